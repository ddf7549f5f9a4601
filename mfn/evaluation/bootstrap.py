"""How sure a comparison is: exact AUC on users drawn again and again, the same for every model.

Candidates of a user hang together, so users are drawn and not candidates: as many as there are,
with replacement (Efron and Tibshirani 1993). A user drawn twice counts twice; AUC is then that of
candidates with weights, counted exactly, a tie as half.

Legend: n candidates, U users, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from mfn.evaluation.comparison import relaimpr

LEVEL = 0.95
"""Share of the draws that an interval holds."""

Array = np.ndarray


@dataclass(frozen=True)
class Interval:
    """A number on all users, and between what it lies in so large a share of the draws."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign is sure; only then is a gain a win, or a loss one."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Gauc:
    """Mean over users of AUC among a user's own candidates, weighted by how many these are.

    users_left_out: those with clicked candidates alone, or none, who have no AUC.
    """

    value: float
    users: int
    users_left_out: int


def draw_users(users: int, draws: int, seed: int) -> Array:
    """How often each user is drawn, [R, U]; every draw has as many users as there are."""
    random = np.random.default_rng(seed)
    return random.multinomial(users, np.full(users, 1 / users), size=draws)


def resampled_aucs(labels_n: Array, scores_n: Array, users_n: Array, drawn_RU: Array) -> Array:
    """AUC of every draw, [R]; NaN where a draw has clicked candidates alone, or none.

    Scores are sorted once. Pairs are counted twice, in whole numbers: a click wins 2 against each
    weight below it and 1 against each that ties.

    Args:
        labels_n: 0 or 1.
        scores_n: any numbers but NaN.
        users_n: each candidate's user, from 0.
        drawn_RU: how often each user is drawn.
    """
    order = np.argsort(scores_n, kind="stable")
    users_n, clicked_n = users_n[order], labels_n[order] == 1
    sorted_n = scores_n[order]
    first_of_ties = np.flatnonzero(np.r_[True, sorted_n[1:] != sorted_n[:-1]])
    aucs_R = np.full(len(drawn_RU), np.nan)
    for draw, drawn_U in enumerate(drawn_RU):
        weights_n = drawn_U[users_n].astype(np.int64)
        clicks = np.add.reduceat(np.where(clicked_n, weights_n, 0), first_of_ties)
        others = np.add.reduceat(np.where(clicked_n, 0, weights_n), first_of_ties)
        pairs = int(clicks.sum()) * int(others.sum())
        if pairs:
            below = np.cumsum(others) - others
            aucs_R[draw] = int((clicks * (2 * below + others)).sum()) / (2 * pairs)
    return aucs_R


def relaimpr_interval(auc: float, base_auc: float, aucs_R: Array, base_aucs_R: Array) -> Interval:
    """RelaImpr in per cent (eq. 13), from the AUC on all users and on the same draws of both.

    NaN where the base model is no better than chance.
    """
    gain = relaimpr(auc, base_auc)
    if gain is None:
        return Interval(float("nan"), float("nan"), float("nan"))
    with np.errstate(divide="ignore", invalid="ignore"):
        gains_R = ((aucs_R - 0.5) / (base_aucs_R - 0.5) - 1) * 100
    return _interval(gain, gains_R)


def difference_interval(
    auc: float, other: float, aucs_R: Array, others_R: Array, level: float = LEVEL
) -> Interval:
    """AUC less another's, from the AUC on all users and on the same draws of both."""
    return _interval(auc - other, aucs_R - others_R, level)


def _interval(value: float, drawn_R: Array, level: float = LEVEL) -> Interval:
    """The middle of the draws that have a number; NaN without any."""
    finite = drawn_R[np.isfinite(drawn_R)]
    if not len(finite):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def auc(labels_n: Array, scores_n: Array) -> float:
    """AUC, ties as half; NaN unless both labels occur."""
    if labels_n.min() == labels_n.max():
        return float("nan")
    return float(roc_auc_score(labels_n, scores_n))


def gauc_by_impressions(labels_n: Array, scores_n: Array, users_n: Array) -> Gauc:
    """GAUC (Zhu et al. 2017), a user's weight being the number of candidates that he was shown."""
    order = np.lexsort((scores_n, users_n))
    users_n, scores_n, clicked_n = users_n[order], scores_n[order], labels_n[order] == 1
    new_user = np.r_[True, users_n[1:] != users_n[:-1]]
    first_of_ties = np.flatnonzero(new_user | np.r_[True, scores_n[1:] != scores_n[:-1]])
    first_of_users = np.flatnonzero(new_user[first_of_ties])
    clicks = np.add.reduceat(clicked_n.astype(np.int64), first_of_ties)
    others = np.add.reduceat((~clicked_n).astype(np.int64), first_of_ties)
    clicks_U = np.add.reduceat(clicks, first_of_users)
    others_U = np.add.reduceat(others, first_of_users)
    ties_U = np.diff(np.r_[first_of_users, len(first_of_ties)])
    before_user = np.repeat(np.cumsum(others_U) - others_U, ties_U)
    below = np.cumsum(others) - others - before_user
    won_U = np.add.reduceat(clicks * (2 * below + others), first_of_users)
    both_U = (clicks_U > 0) & (others_U > 0)
    left_out = int((~both_U).sum())
    if not both_U.any():
        return Gauc(float("nan"), 0, left_out)
    aucs = won_U[both_U] / (2 * clicks_U[both_U] * others_U[both_U])
    value = np.average(aucs, weights=(clicks_U + others_U)[both_U])
    return Gauc(float(value), int(both_U.sum()), left_out)
