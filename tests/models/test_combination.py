"""Combination interests, compared with plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mfn.models.combination import Combination
from mfn.models.extractor import History
from mfn.models.settings import MfnSettings
from tests.models.naive import (
    SHAPES,
    STEPS,
    history,
    matvec,
    real,
    self_attention,
    size,
    softmax,
    weighted,
)


def oracle(past: History, branch: Combination) -> Tensor:
    """Eq. 6 and 7, one head, query and key at a time, over the real behaviours only."""
    attention = branch.attention
    inputs = (attention.inputs.weight, attention.inputs.bias)
    output = (attention.output.weight, attention.output.bias)
    B, _, d = past.trainable_BNd.shape
    R = torch.zeros(B, branch.interests, d).double()
    for b in range(B):
        xs = real(past, b)
        positioned = xs
        if branch.recency is not None:  # the last behaviour has position 0
            last_first = branch.recency.positions_Nd[: len(xs)].flip(0)
            positioned = [x + position for x, position in zip(xs, last_first, strict=True)]
        scores = []
        for mixed in self_attention(inputs, output, attention.heads, positioned) if xs else []:
            hidden = matvec(branch.W1.weight, mixed)
            scores.append(matvec(branch.W2.weight, hidden / (1 + torch.exp(-hidden))))
        for j in range(branch.interests if xs else 0):
            R[b, j] = weighted(softmax([score[j] for score in scores]), xs, d)
    return R


def make(K: int, d: int, seed: int, positions: bool = True) -> Combination:
    torch.manual_seed(seed)
    config = MfnSettings(combination_interests=K, heads=2, combination_units=5, positions=positions)
    return Combination(config, size(d)).double()


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.booleans())
def test_combination_is_equations_6_and_7(shape: dict, positions: bool) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    branch = make(shape["K"], shape["d"], shape["seed"], positions)
    torch.testing.assert_close(branch(past).vectors_BKd, oracle(past, branch))


def test_with_one_behaviour_every_combination_interest_is_its_vector() -> None:
    past = history([1], 4, seed=2)
    torch.testing.assert_close(make(3, 4, 1)(past).vectors_BKd, past.trainable_BNd.expand(1, 3, 4))


def test_positions_count_from_the_end_and_are_not_in_the_output() -> None:
    branch, past = make(3, 4, 1), history([3, 5], 4, seed=2)
    assert branch.recency is not None
    before = branch(past).vectors_BKd
    with torch.no_grad():
        branch.recency.positions_Nd[3:] += 7.0  # a history of 3 has no such step
    assert torch.equal(branch(past).vectors_BKd[0], before[0])
    assert not torch.allclose(branch(past).vectors_BKd[1], before[1])
    same = past.trainable_BNd[:, :1].expand_as(past.trainable_BNd)
    R = branch(History(same, None, past.mask_BN)).vectors_BKd
    torch.testing.assert_close(R, same[:, :3])


def test_longer_histories_than_positions_are_refused() -> None:
    make(3, 4, 1)(history([STEPS], 4, seed=1))
    with pytest.raises(ValueError, match=f"at most {STEPS} steps.*got {STEPS + 1}"):
        make(3, 4, 1)(history([STEPS + 1], 4, seed=1))
    make(3, 4, 1, positions=False)(history([STEPS + 1], 4, seed=1))
