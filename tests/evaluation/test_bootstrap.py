"""Resampled AUC and GAUC beside plain loops and scikit-learn; what an interval is told of."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mfn.evaluation.bootstrap import (
    Interval,
    auc,
    difference_interval,
    draw_users,
    gauc_by_impressions,
    relaimpr_interval,
    resampled_aucs,
)
from mfn.evaluation.comparison import relaimpr
from mfn.reporting.numbers import NOTHING, decimals, per_cent, percentage

candidates = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=40
)
"""Label, score (of few values, so that many tie) and user."""


def naive_auc(labels: list[int], scores: list[float]) -> float:
    """Every pair of a clicked and an unclicked candidate."""
    won, pairs = 0.0, 0
    for click, score in zip(labels, scores, strict=True):
        for other, its_score in zip(labels, scores, strict=True):
            if click == 1 and other == 0:
                pairs += 1
                won += 1.0 if score > its_score else 0.5 if score == its_score else 0.0
    return won / pairs if pairs else math.nan


def naive_draw(rows: list[tuple[int, int, int]], drawn: list[int]) -> float:
    """AUC of the candidates of users, each as often as its user is drawn."""
    again = [row for row in rows for _ in range(drawn[row[2]])]
    return naive_auc([row[0] for row in again], [row[1] for row in again])


def arrays(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, scores, users = (np.array(column) for column in zip(*rows, strict=True))
    return labels, scores.astype(float), users


@settings(deadline=None)
@given(candidates, st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1))
def test_a_draw_counts_each_candidate_as_often_as_its_user(
    rows: list[tuple[int, int, int]], drawn: list[list[int]]
) -> None:
    found = resampled_aucs(*arrays(rows), np.array(drawn))
    expected = [naive_draw(rows, one) for one in drawn]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_draw_is_scikit_learns_auc_with_weights() -> None:
    random = np.random.default_rng(1)
    users = random.integers(0, 200, 5000)
    labels = random.integers(0, 2, 5000)
    scores = np.round(random.random(5000) + 0.2 * labels, 2)
    drawn = draw_users(200, 20, seed=3)
    found = resampled_aucs(labels, scores, users, drawn)
    expected = [roc_auc_score(labels, scores, sample_weight=one[users]) for one in drawn]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_every_draw_has_as_many_users_as_there_are_and_follows_from_the_seed() -> None:
    drawn = draw_users(50, 30, seed=1)
    assert drawn.shape == (30, 50)
    assert (drawn.sum(axis=1) == 50).all()
    assert np.array_equal(drawn, draw_users(50, 30, seed=1))
    assert not np.array_equal(drawn, draw_users(50, 30, seed=2))


@settings(deadline=None)
@given(candidates)
def test_gauc_is_the_mean_of_users_aucs_by_their_candidates(
    rows: list[tuple[int, int, int]],
) -> None:
    found = gauc_by_impressions(*arrays(rows))
    total, weight, left_out = 0.0, 0, 0
    for user in {row[2] for row in rows}:
        own = [row for row in rows if row[2] == user]
        value = naive_auc([row[0] for row in own], [row[1] for row in own])
        if math.isnan(value):
            left_out += 1
        else:
            total, weight = total + value * len(own), weight + len(own)
    assert found.users_left_out == left_out
    assert found.users + left_out == len({row[2] for row in rows})
    assert found.value == pytest.approx(total / weight if weight else math.nan, nan_ok=True)


def test_a_gain_that_every_user_shows_is_a_win_and_none_of_noise_is() -> None:
    random = np.random.default_rng(5)
    users = np.repeat(np.arange(300), 10)
    labels = random.integers(0, 2, 3000)
    noise, again = random.normal(size=3000), random.normal(size=3000)
    drawn = draw_users(300, 200, seed=1)

    def gain(signal: float, base_signal: float) -> tuple[Interval, Interval]:
        model, base = labels * signal + noise, labels * base_signal + again
        at, base_at = auc(labels, model), auc(labels, base)
        draws = resampled_aucs(labels, model, users, drawn)
        base_draws = resampled_aucs(labels, base, users, drawn)
        return (
            relaimpr_interval(at, base_at, draws, base_draws),
            difference_interval(at, base_at, draws, base_draws),
        )

    for better in gain(1.0, 0.5):
        assert 0 < better.low < better.value < better.high
        assert better.excludes_zero
    for worse in gain(0.5, 1.0):
        assert worse.high < 0
        assert worse.excludes_zero
    for same in gain(0.7, 0.7):
        assert same.low < 0 < same.high
        assert not same.excludes_zero


def test_the_same_draw_for_both_models_takes_away_what_they_share() -> None:
    """Of two models that differ little the difference is told far better than either AUC."""
    random = np.random.default_rng(6)
    users = np.repeat(np.arange(200), 10)
    labels = random.integers(0, 2, 2000)
    base = labels * 0.5 + random.normal(size=2000)
    model = base + 0.05 * labels
    drawn, others = draw_users(200, 200, seed=1), draw_users(200, 200, seed=2)
    at, base_at = auc(labels, model), auc(labels, base)
    draws = resampled_aucs(labels, model, users, drawn)
    paired = difference_interval(at, base_at, draws, resampled_aucs(labels, base, users, drawn))
    apart = difference_interval(at, base_at, draws, resampled_aucs(labels, base, users, others))
    assert paired.excludes_zero
    assert not apart.excludes_zero


def test_an_interval_holds_the_middle_95_per_cent_of_the_draws() -> None:
    # Of 1,001 draws, that from the 26th smallest to the 26th largest.
    draws = np.random.default_rng(1).permutation(np.linspace(-0.5, 0.5, 1001))
    found = difference_interval(0.7, 0.6, draws, np.zeros(1001))
    assert (found.low, found.high) == pytest.approx((-0.475, 0.475), abs=1e-12)
    found = relaimpr_interval(0.7, 0.6, 0.5 + draws, np.full(1001, 0.6))
    assert (found.low, found.high) == pytest.approx((-575, 375), abs=1e-6)


def test_intervals_cover_the_true_gain_in_95_per_cent_of_samples() -> None:
    """Users' candidates are correlated: some users click more, some have all scores higher.

    A score is normal for clicked and for unclicked candidates, so the true AUC has a formula.
    """
    users, candidates, draws, samples = 200, 2, 300, 400
    random = np.random.default_rng(11)
    user_n = np.repeat(np.arange(users), candidates)
    # The first draw is the sample itself: each user once.
    drawn = np.vstack([np.ones(users, dtype=int), draw_users(users, draws, seed=1)])
    signals = 2.0, 1.2
    # A clicked score less an unclicked one has the variance of two users and of two noises.
    truth, base_truth = (NormalDist().cdf(signal / math.sqrt(4)) for signal in signals)
    true_gain = relaimpr(truth, base_truth)
    assert true_gain is not None
    covered: dict[str, list[bool]] = {"difference": [], "RelaImpr": [], "difference, 90 %": []}
    for _ in range(samples):
        chance_U = random.beta(2, 3, users)
        labels = (random.random(len(user_n)) < chance_U[user_n]).astype(int)
        model, base = (
            resampled_aucs(
                labels,
                signal * labels
                + random.normal(size=users)[user_n]
                + random.normal(size=len(user_n)),
                user_n,
                drawn,
            )
            for signal in signals
        )
        sampled = float(model[0]), float(base[0]), model[1:], base[1:]
        for name, interval, true in (
            ("difference", difference_interval(*sampled), truth - base_truth),
            ("RelaImpr", relaimpr_interval(*sampled), true_gain),
            ("difference, 90 %", difference_interval(*sampled, level=0.9), truth - base_truth),
        ):
            covered[name].append(interval.low <= true <= interval.high)
    coverage = {name: np.mean(found) for name, found in covered.items()}
    assert 0.93 <= coverage["difference"] <= 0.97, coverage
    assert 0.93 <= coverage["RelaImpr"] <= 0.97, coverage
    assert coverage["difference, 90 %"] < 0.93, coverage  # the control: a shorter one is found out


def test_what_has_no_number_is_told_as_such() -> None:
    none = np.array([np.nan, np.nan])
    for base, draws in ((0.5, none), (0.45, np.array([0.44, 0.46]))):
        found = relaimpr_interval(0.6, base, np.array([0.59, 0.61]), draws)
        assert all(map(math.isnan, (found.value, found.low, found.high)))
        assert not found.excludes_zero
        assert per_cent(found.value) == decimals(found.low, 2) == percentage(found.high) == NOTHING
    assert math.isnan(auc(np.ones(3), np.arange(3.0)))
