"""Confidence intervals by bootstrap over users; every model is measured on the same draws.

The candidates of a user are not independent, so the bootstrap draws users and not candidates. Each
draw takes U users with replacement (Efron and Tibshirani 1993). If a user is drawn twice, each of
the user's candidates has weight 2. The AUC of a draw is the exact weighted AUC; a tie counts as
half.

Legend: n candidates, U users, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from mfn.evaluation.comparison import relaimpr

LEVEL = 0.95
"""Share of the draws inside an interval."""

Array = np.ndarray


@dataclass(frozen=True)
class Interval:
    """A value on all users, and its confidence interval from the draws."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does not contain 0; only then is it counted as a win or a loss."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Gauc:
    """Mean over users of the AUC of a user's candidates, weighted by the number of candidates.

    Attributes:
        users: users with an AUC.
        users_left_out: users without an AUC: all of their candidates were clicked, or none.
    """

    value: float
    users: int
    users_left_out: int


def draw_users(users: int, draws: int, seed: int) -> Array:
    """Draw U of U users with replacement, R times.

    Returns:
        how often each user is drawn, [R, U].
    """
    random = np.random.default_rng(seed)
    return random.multinomial(users, np.full(users, 1 / users), size=draws)


def resampled_aucs(labels_n: Array, scores_n: Array, users_n: Array, drawn_RU: Array) -> Array:
    """AUC of every draw; NaN if all candidates of a draw were clicked, or none.

    Scores are sorted once. Twice the pairs are counted, so that all counts are integers: a click
    wins 2 for each unclicked candidate below it and 1 for each that ties.

    Args:
        labels_n: 0 or 1.
        scores_n: any numbers except NaN.
        users_n: each candidate's user, from 0.
        drawn_RU: how often each user is drawn.

    Returns:
        AUCs, [R].
    """
    # Candidates by score, [n], and where each distinct score starts, [distinct scores].
    order = np.argsort(scores_n, kind="stable")
    users_n, clicked_n = users_n[order], labels_n[order] == 1
    sorted_n = scores_n[order]
    first_of_ties = np.flatnonzero(np.r_[True, sorted_n[1:] != sorted_n[:-1]])
    aucs_R = np.full(len(drawn_RU), np.nan)
    for draw, drawn_U in enumerate(drawn_RU):
        # A candidate counts as often as its user. clicks, others: weights by distinct score.
        weights_n = drawn_U[users_n].astype(np.int64)
        clicks = np.add.reduceat(np.where(clicked_n, weights_n, 0), first_of_ties)
        others = np.add.reduceat(np.where(clicked_n, 0, weights_n), first_of_ties)
        pairs = int(clicks.sum()) * int(others.sum())
        if pairs:
            below = np.cumsum(others) - others  # unclicked weight with a lower score
            aucs_R[draw] = int((clicks * (2 * below + others)).sum()) / (2 * pairs)
    return aucs_R


def relaimpr_interval(auc: float, base_auc: float, aucs_R: Array, base_aucs_R: Array) -> Interval:
    """RelaImpr in per cent (eq. 13) and its interval; NaN if the base model is not above chance.

    Args:
        auc, base_auc: AUCs of both models on all users.
        aucs_R, base_aucs_R: AUCs of both models on the same draws.
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
    """Difference of two models' AUCs and its interval; both models on the same draws."""
    return _interval(auc - other, aucs_R - others_R, level)


def _interval(value: float, drawn_R: Array, level: float = LEVEL) -> Interval:
    """The central `level` of the finite draws; low and high are NaN if no draw is finite."""
    finite = drawn_R[np.isfinite(drawn_R)]
    if not len(finite):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def auc(labels_n: Array, scores_n: Array) -> float:
    """AUC; a tie counts as half. NaN unless both labels occur."""
    if labels_n.min() == labels_n.max():
        return float("nan")
    return float(roc_auc_score(labels_n, scores_n))


def gauc_by_impressions(labels_n: Array, scores_n: Array, users_n: Array) -> Gauc:
    """GAUC (Zhu et al. 2017); a user's weight is the number of candidates shown to that user."""
    # Candidates by user and score, [n]; where each distinct (user, score) and each user starts.
    order = np.lexsort((scores_n, users_n))
    users_n, scores_n, clicked_n = users_n[order], scores_n[order], labels_n[order] == 1
    new_user = np.r_[True, users_n[1:] != users_n[:-1]]
    first_of_ties = np.flatnonzero(new_user | np.r_[True, scores_n[1:] != scores_n[:-1]])
    first_of_users = np.flatnonzero(new_user[first_of_ties])
    # Counts by distinct (user, score), then by user, [U].
    clicks = np.add.reduceat(clicked_n.astype(np.int64), first_of_ties)
    others = np.add.reduceat((~clicked_n).astype(np.int64), first_of_ties)
    clicks_U = np.add.reduceat(clicks, first_of_users)
    others_U = np.add.reduceat(others, first_of_users)
    # below: unclicked candidates of the same user with a lower score. won_U: twice the won pairs.
    ties_U = np.diff(np.r_[first_of_users, len(first_of_ties)])
    before_user = np.repeat(np.cumsum(others_U) - others_U, ties_U)
    below = np.cumsum(others) - others - before_user
    won_U = np.add.reduceat(clicks * (2 * below + others), first_of_users)
    # Only users with both labels have an AUC.
    both_U = (clicks_U > 0) & (others_U > 0)
    without_auc = int((~both_U).sum())
    if not both_U.any():
        return Gauc(float("nan"), 0, without_auc)
    aucs = won_U[both_U] / (2 * clicks_U[both_U] * others_U[both_U])
    value = np.average(aucs, weights=(clicks_U + others_U)[both_U])
    return Gauc(float(value), int(both_U.sum()), without_auc)
