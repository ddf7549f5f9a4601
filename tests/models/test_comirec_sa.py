"""ComiRec-SA, compared with plain loops."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from torch import Tensor

from mfn.models.comirec_sa import ComiRecSA
from mfn.models.extractor import History
from mfn.models.settings import ComiRecSASettings
from tests.models.naive import SHAPES, history, matvec, real, size, softmax, stirred, weighted


def oracle(model: ComiRecSA, past: History) -> Tensor:
    """A x, where A = softmax over time of W₂ tanh(W₁ (x + position))."""
    B, _, d = past.trainable_BNd.shape
    rows = torch.zeros(B, model.interests, d).double()
    for b in range(B):
        xs = real(past, b)
        scores = [
            matvec(model.W2.weight, torch.tanh(matvec(model.W1.weight, x + model.positions_Nd[t])))
            for t, x in enumerate(xs)
        ]
        for j in range(model.interests if xs else 0):
            rows[b, j] = weighted(softmax([score[j] for score in scores]), xs, d)
    return rows


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_comirec_sa_is_the_equation_of_its_paper(shape: dict) -> None:
    torch.manual_seed(shape["seed"])
    model = ComiRecSA(ComiRecSASettings(interests=shape["K"]), size(shape["d"])).double()
    stirred(model)
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    torch.testing.assert_close(model(past).vectors_BKd, oracle(model, past))


def test_positions_change_weights_and_are_not_in_the_output() -> None:
    model = ComiRecSA(ComiRecSASettings(), size(4)).double()
    past = history([3], 4, seed=1)
    before = model(past).vectors_BKd
    with torch.no_grad():
        model.positions_Nd.mul_(50)
    assert not torch.allclose(model(past).vectors_BKd, before)
    same = past.trainable_BNd[:, :1].expand_as(past.trainable_BNd)
    torch.testing.assert_close(
        model(History(same, None, past.mask_BN)).vectors_BKd, same[:, :1].expand(1, 4, 4)
    )
