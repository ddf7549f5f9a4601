"""DIN's target attention, compared with a network over the full concatenation of each pair.

Legend: B requests, M candidates, N history steps, d width of an item vector.
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
from tests.models.naive import SHAPES, history, matvec, real, size, softmax, stirred, weighted


def set_first_layer(model: TargetAttention, weight_h4d: Tensor) -> None:
    """Set the first layer to this weight over [r, i, r − i, r ⊙ i], as in the paper."""
    of_r, of_i, of_difference, of_product = weight_h4d.chunk(4, dim=1)
    with torch.no_grad():
        model.behaviour.weight.copy_(of_r + of_difference)
        model.candidate.weight.copy_(of_i - of_difference)
        model.product.weight.copy_(of_product)


def oracle(model: TargetAttention, weight_h4d: Tensor, past: History, candidates: Tensor) -> Tensor:
    """Eq. 3 of Zhou et al. (2018), one behaviour and one candidate at a time."""
    R = torch.zeros_like(candidates)
    for b, slate in enumerate(candidates):
        xs = real(past, b)
        for m, i in enumerate(slate if xs else []):
            scores = []
            for r in xs:
                hidden = matvec(weight_h4d, torch.cat([r, i, r - i, r * i])) + model.candidate.bias
                for layer in (*model.rest, model.score):
                    assert isinstance(layer, nn.Linear)
                    hidden = torch.stack([h if h > 0 else 0.25 * h for h in hidden])
                    hidden = matvec(layer.weight, hidden)
                    if layer.bias is not None:
                        hidden = hidden + layer.bias
                scores.append(float(hidden[0].detach()))
            R[b, m] = weighted(softmax(scores) if model.softmax else scores, xs, len(i))
    return R


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(1, 3), st.sampled_from([(3,), (4, 2)]), st.booleans())
def test_din_is_the_equation_of_its_paper(
    shape: dict, M: int, units: tuple[int, ...], softmax: bool
) -> None:
    torch.manual_seed(shape["seed"])
    config = DinSettings(target_units=units, target_softmax=softmax)
    model = TargetAttention(config, size(shape["d"])).double()
    stirred(model)
    weight_h4d = torch.randn(units[0], 4 * shape["d"]).double()
    set_first_layer(model, weight_h4d)
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    candidates = torch.randn(len(shape["lengths"]), M, shape["d"]).double()
    found, expected = model(past, candidates), oracle(model, weight_h4d, past, candidates)
    torch.testing.assert_close(found, expected)


def test_din_on_an_example_by_hand() -> None:
    # One hidden unit, r · i. The candidate 3 gives the behaviours 1, 2 and −1 the weights 3, 6 and
    # −3/4 (negative slope 1/4). So R = 3 · 1 + 6 · 2 + (−3/4)(−1).
    model = TargetAttention(DinSettings(target_units=(1,)), size(1)).double()
    set_first_layer(model, torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    with torch.no_grad():
        model.candidate.bias.zero_()
        model.score.weight.fill_(1.0)
    past = History(
        torch.tensor([[[1.0], [2.0], [-1.0], [9.0]]]).double(),
        None,
        torch.tensor([[True, True, True, False]]),
    )
    assert model(past, torch.tensor([[[3.0]]]).double()).item() == pytest.approx(15.75)


def test_no_tensor_with_the_width_of_an_item_vector_is_computed_per_pair() -> None:
    B, M, N, d, h = 2, 5, 7, 64, 3
    model = TargetAttention(DinSettings(target_units=(h,)), size(d))
    past = history([N] * B, d, seed=1)
    past = History(past.trainable_BNd.float(), None, past.mask_BN)
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(past, torch.randn(B, M, d, requires_grad=True))
    assert B * M * N * h in sizes  # control: the hidden layer is recorded
    assert max(sizes) < B * M * N * d
