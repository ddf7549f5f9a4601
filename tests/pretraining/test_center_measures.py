"""Measures of centers compared with plain loops; which centers are warned about.

Legend: B users, N history steps, K centers.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mfn.models.entropies import assignment
from mfn.pretraining.center_measures import (
    CenterMeasures,
    effective_interests,
    hardened,
    purity,
    purity_of_interests,
    warnings,
)

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 4), st.integers(0, 500))


def drawn(shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """P [B, N, K], the mask [B, N], and true interests [B, N], of which -1 is none."""
    B, N, K, seed = shape
    random = torch.Generator().manual_seed(seed)
    length_B = torch.randint(0, N + 1, (B,), generator=random)
    mask_BN = torch.arange(N) < length_B[:, None]
    frozen_BNd = torch.randn(B, N, 3, generator=random)
    P_BNK = assignment(frozen_BNd, 2 * torch.randn(K, 3, generator=random), mask_BN)
    return P_BNK, mask_BN, torch.randint(-1, 2, (B, N), generator=random)


def rows_of(P_BNK: Tensor, mask_BN: Tensor) -> list[list[list[float]]]:
    """The real steps of each user as lists of weights."""
    return [P[mask].tolist() for P, mask in zip(P_BNK, mask_BN, strict=True)]


def together(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def near(found: float | None, expected: float | None) -> bool:
    return found == expected if expected is None else found == pytest.approx(expected, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(shape=SHAPES, hard=st.booleans())
def test_purity_is_the_share_of_pairs_at_one_center(
    shape: tuple[int, int, int, int], hard: bool
) -> None:
    P_BNK, mask_BN, _ = drawn(shape)
    weight_BNK = hardened(P_BNK) if hard else P_BNK
    users = rows_of(weight_BNK, mask_BN)
    found = purity(weight_BNK, mask_BN)
    pairs = [
        (len(user), i, j, user) for user in users for i, j in combinations(range(len(user)), 2)
    ]
    assert near(found.adjacent, mean([together(u[i], u[j]) for _, i, j, u in pairs if j - i == 1]))
    assert near(found.far, mean([together(u[i], u[j]) for n, i, j, u in pairs if 2 * (j - i) >= n]))
    steps = [(number, step) for number, user in enumerate(users) for step in user]
    assert near(
        found.strangers,
        mean([together(one, two) for u, one in steps for v, two in steps if u != v]),
    )
    assert near(found.chance, mean([together(one, two) for _, one in steps for _, two in steps]))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES)
def test_purity_of_interests_leaves_out_behaviours_without_interest(
    shape: tuple[int, int, int, int],
) -> None:
    P_BNK, mask_BN, interest_BN = drawn(shape)
    found = purity_of_interests(P_BNK, mask_BN, interest_BN)
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for P_NK, mask_N, interest_N in zip(P_BNK, mask_BN, interest_BN, strict=True):
        for i, j in combinations(range(len(mask_N)), 2):
            if mask_N[i] and mask_N[j] and min(interest_N[i], interest_N[j]) >= 0:
                same = bool(interest_N[i] == interest_N[j])
                kinds[same].append(together(P_NK[i].tolist(), P_NK[j].tolist()))
    assert near(found.same, mean(kinds[True]))
    assert near(found.different, mean(kinds[False]))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES)
def test_effective_interests_are_the_exponential_of_the_entropy(
    shape: tuple[int, int, int, int],
) -> None:
    P_BNK, mask_BN, _ = drawn(shape)
    users = [user for user in rows_of(P_BNK, mask_BN) if user]
    if not users:
        return

    def effective(steps: list[list[float]]) -> float:
        shares = [sum(column) / len(steps) for column in zip(*steps, strict=True)]
        return math.exp(-sum(share * math.log(share) for share in shares if share > 0))

    found = effective_interests(P_BNK, mask_BN)
    assert found.of_user == pytest.approx(sum(map(effective, users)) / len(users), abs=1e-5)
    assert found.of_all == pytest.approx(effective([s for user in users for s in user]), abs=1e-5)


def test_the_users_are_not_strangers_to_themselves() -> None:
    """Two users, each always at one center of her own: pure, and never together."""
    P_BNK = torch.zeros(2, 4, 2)
    P_BNK[0, :, 0] = P_BNK[1, :, 1] = 1
    mask_BN = torch.ones(2, 4, dtype=torch.bool)
    found = purity(P_BNK, mask_BN)
    assert (found.adjacent, found.far, found.strangers, found.chance) == (1, 1, 0, 0.5)
    effective = effective_interests(P_BNK, mask_BN)
    assert (effective.of_user, effective.of_all) == pytest.approx((1, 2))


GOOD = CenterMeasures(
    interests=8,
    converged=True,
    steps=200,
    replaced=0,
    L_E=-0.18,
    L_SE=0.08,
    L_ME=0.26,
    L_E_at_start=-0.12,
    L_SE_at_start=0.14,
    L_ME_at_start=0.26,
    largest_entropy=0.26,
    empty=0,
    duplicates=0,
    purity_adjacent=0.4,
    purity_far=0.35,
    purity_strangers=0.125,
    purity_chance=0.126,
    interests_of_user=4.2,
    interests_of_all=7.9,
    norm=1.0,
    largest_share=0.55,
    behaviour_share=(0.125,) * 8,
)


def test_good_centers_are_not_warned_about() -> None:
    assert warnings(GOOD) == []
    assert warnings(replace(GOOD, purity_adjacent=None, purity_strangers=None)) == []


@pytest.mark.parametrize(
    ("bad", "what_to_do"),
    [
        ({"converged": False}, r"after 200 steps; raise centers\.max_steps"),
        ({"empty": 2, "duplicates": 1}, r"2 of 8 are empty and 1 .*; fewer interests"),
        ({"purity_adjacent": 0.13}, r"13\.0 % .* strangers' behaviours 12\.5 %.*measures of E"),
        ({"largest_share": 0.13}, r"0\.130, nearly 1 / 8.*raise the model's centers_norm"),
        ({"largest_share": 0.995}, r"0\.9950: P is too hard.*set the model's centers_norm to 1"),
    ],
)
def test_bad_centers_are_warned_about_with_what_to_do(bad: dict[str, Any], what_to_do: str) -> None:
    (line,) = warnings(replace(GOOD, **bad))
    assert re.search(what_to_do, line)


def test_a_single_center_is_neither_impure_nor_soft() -> None:
    alone = replace(GOOD, interests=1, purity_adjacent=1.0, purity_strangers=1.0, largest_share=1.0)
    assert warnings(alone) == []
