"""Combination interests, compared with plain loops."""

from __future__ import annotations

import torch
from hypothesis import given, settings
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
        scores = []
        for mixed in self_attention(inputs, output, attention.heads, xs) if xs else []:
            hidden = matvec(branch.W1.weight, mixed)
            scores.append(matvec(branch.W2.weight, hidden / (1 + torch.exp(-hidden))))
        for j in range(branch.interests if xs else 0):
            R[b, j] = weighted(softmax([score[j] for score in scores]), xs, d)
    return R


def make(K: int, d: int, seed: int) -> Combination:
    torch.manual_seed(seed)
    config = MfnSettings(interests=K, heads=2, combination_units=5)
    return Combination(config, d, STEPS).double()


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_combination_is_equations_6_and_7(shape: dict) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    branch = make(shape["K"], shape["d"], shape["seed"])
    torch.testing.assert_close(branch(past), oracle(past, branch))


def test_with_one_behaviour_every_combination_interest_is_its_vector() -> None:
    past = history([1], 4, seed=2)
    torch.testing.assert_close(make(3, 4, 1)(past), past.trainable_BNd.expand(1, 3, 4))
