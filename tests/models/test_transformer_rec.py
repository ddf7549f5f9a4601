"""TransformerRec, compared with a transformer encoder in plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from mfn.models.extractor import History
from mfn.models.settings import TransformerRecSettings
from mfn.models.transformer_rec import TransformerRec
from tests.models.naive import SHAPES, history, matvec, real, self_attention, size, stirred


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return matvec(layer.weight, x) + layer.bias


def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    std = ((x - x.mean()).square().mean() + norm.eps).sqrt()
    return (x - x.mean()) / std * norm.weight + norm.bias


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def oracle(model: TransformerRec, past: History) -> Tensor:
    """The mean of the encoded history, one request, layer and step at a time."""
    B, _, d = past.trainable_BNd.shape
    rows = torch.zeros(B, 1, d).double()
    for b in range(B):
        xs = [x + model.positions_Nd[t] for t, x in enumerate(real(past, b))]
        if not xs:
            continue
        for layer in model.layers:
            assert isinstance(layer, nn.TransformerEncoderLayer)
            attention = layer.self_attn
            inputs = (attention.in_proj_weight, attention.in_proj_bias)
            output = (attention.out_proj.weight, attention.out_proj.bias)
            mixed = self_attention(inputs, output, attention.num_heads, xs)
            xs = [normed(layer.norm1, x + y) for x, y in zip(xs, mixed, strict=True)]
            fed = [linear(layer.linear2, gelu(linear(layer.linear1, x))) for x in xs]
            xs = [normed(layer.norm2, x + y) for x, y in zip(xs, fed, strict=True)]
        rows[b, 0] = sum(xs, torch.zeros(d).double()) / len(xs)
    return rows


@pytest.mark.parametrize("training", [True, False])
@settings(max_examples=12, deadline=None)
@given(SHAPES)
def test_transformer_rec_is_the_mean_of_the_encoded_history(training: bool, shape: dict) -> None:
    torch.manual_seed(shape["seed"])
    model = TransformerRec(TransformerRecSettings(), size(shape["d"])).double()
    stirred(model)
    model.train(training)  # torch has a separate fast path for inference
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    with torch.no_grad():
        torch.testing.assert_close(
            model(past).vectors_BKd, oracle(model, past), rtol=1e-6, atol=1e-6
        )


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"heads: expected a divisor of 6, .* got 4"):
        TransformerRec(TransformerRecSettings(heads=4), size(6))
