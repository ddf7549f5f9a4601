"""DIN's target attention against a network over the whole concatenation, pair by pair.

Legend: B requests, M candidates, N history steps, d width of an item's vector.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfn.models.din import TargetAttention
from mfn.models.extractor import History
from mfn.models.settings import DinSettings
from tests.models.naive import SHAPES, STEPS, history, matvec, real, softmax, stirred, weighted


def of_whole(made: TargetAttention, whole: Tensor) -> None:
    """Give it a first layer over [r, i, r − i, r ⊙ i], as the paper has it."""
    of_r, of_i, of_difference, of_product = whole.chunk(4, dim=1)
    with torch.no_grad():
        made.behaviour.weight.copy_(of_r + of_difference)
        made.candidate.weight.copy_(of_i - of_difference)
        made.product.weight.copy_(of_product)


def oracle(made: TargetAttention, whole: Tensor, past: History, candidates: Tensor) -> Tensor:
    """Eq. 3 of Zhou et al. (2018), a behaviour and a candidate at a time."""
    R = torch.zeros_like(candidates)
    for b, slate in enumerate(candidates):
        xs = real(past, b)
        for m, i in enumerate(slate if xs else []):
            scores = []
            for r in xs:
                hidden = matvec(whole, torch.cat([r, i, r - i, r * i])) + made.candidate.bias
                for layer in (*made.rest, made.score):
                    assert isinstance(layer, nn.Linear)
                    hidden = torch.stack([h if h > 0 else 0.25 * h for h in hidden])
                    hidden = matvec(layer.weight, hidden)
                    if layer.bias is not None:
                        hidden = hidden + layer.bias
                scores.append(float(hidden[0].detach()))
            R[b, m] = weighted(softmax(scores) if made.softmax else scores, xs, len(i))
    return R


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(1, 3), st.sampled_from([(3,), (4, 2)]), st.booleans())
def test_din_is_its_paper_s_equation(
    shape: dict, M: int, units: tuple[int, ...], softmax: bool
) -> None:
    torch.manual_seed(shape["seed"])
    own = DinSettings(target_units=units, target_softmax=softmax)
    made = TargetAttention(own, shape["d"], STEPS).double()
    stirred(made)
    whole = torch.randn(units[0], 4 * shape["d"]).double()
    of_whole(made, whole)
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    candidates = torch.randn(len(shape["lengths"]), M, shape["d"]).double()
    found, expected = made(past, candidates), oracle(made, whole, past, candidates)
    torch.testing.assert_close(found, expected)


def test_din_worked_by_hand() -> None:
    # One hidden unit, r · i. A candidate 3 weighs the behaviours 1, 2 and −1 by 3, 6 and −3/4, of
    # which the last has passed the leaky side: R = 3 · 1 + 6 · 2 + (−3/4)(−1).
    made = TargetAttention(DinSettings(target_units=(1,)), 1, STEPS).double()
    of_whole(made, torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    with torch.no_grad():
        made.candidate.bias.zero_()
        made.score.weight.fill_(1.0)
    past = History(
        torch.tensor([[[1.0], [2.0], [-1.0], [9.0]]]).double(),
        None,
        torch.tensor([[True, True, True, False]]),
    )
    assert made(past, torch.tensor([[[3.0]]]).double()).item() == pytest.approx(15.75)


def test_nothing_as_wide_as_an_item_is_made_for_every_pair() -> None:
    B, M, N, d, h = 2, 5, 7, 64, 3
    made = TargetAttention(DinSettings(target_units=(h,)), d, STEPS)
    past = history([N] * B, d, seed=1)
    past = History(past.trainable_BNd.float(), None, past.mask_BN)
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made(past, torch.randn(B, M, d, requires_grad=True))
    assert B * M * N * h in sizes  # the control: hidden layers are seen here
    assert max(sizes) < B * M * N * d
