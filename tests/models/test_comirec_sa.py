"""ComiRec-SA against plain loops."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from torch import Tensor

from mfn.models.comirec_sa import ComiRecSA
from mfn.models.extractor import History
from mfn.models.settings import ComiRecSASettings
from tests.models.naive import SHAPES, STEPS, history, matvec, real, softmax, stirred, weighted


def oracle(made: ComiRecSA, past: History) -> Tensor:
    """A = softmax over time of W₂ tanh(W₁ (x + position)); A times x without its position."""
    B, _, d = past.trainable_BNd.shape
    rows = torch.zeros(B, made.interests, d).double()
    for b in range(B):
        xs = real(past, b)
        scores = [
            matvec(made.W2.weight, torch.tanh(matvec(made.W1.weight, x + made.positions_Nd[t])))
            for t, x in enumerate(xs)
        ]
        for j in range(made.interests if xs else 0):
            rows[b, j] = weighted(softmax([score[j] for score in scores]), xs, d)
    return rows


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_comirec_sa_is_its_paper_s_equation(shape: dict) -> None:
    torch.manual_seed(shape["seed"])
    made = ComiRecSA(ComiRecSASettings(interests=shape["K"]), shape["d"], STEPS).double()
    stirred(made)
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    torch.testing.assert_close(made(past), oracle(made, past))


def test_positions_move_weights_and_never_enter_the_output() -> None:
    made = ComiRecSA(ComiRecSASettings(), 4, STEPS).double()
    past = history([3], 4, seed=1)
    before = made(past)
    with torch.no_grad():
        made.positions_Nd.mul_(50)
    assert not torch.allclose(made(past), before)
    same = past.trainable_BNd[:, :1].expand_as(past.trainable_BNd)
    torch.testing.assert_close(made(History(same, None, past.mask_BN)), same[:, :1].expand(1, 4, 4))
