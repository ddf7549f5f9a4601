"""Histories for tests of extractors, and the equations of models in plain loops.

Legend: B requests, N history steps, d width of an item vector, K interests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from mfn.models.extractor import History, LevelSize

STEPS = 12
"""The maximum history length of the models in these tests."""


def size(d: int, e: int | None = None) -> LevelSize:
    """A level whose items are d numbers wide, e in E: as many if None."""
    return LevelSize(d, e or d, STEPS)


SHAPES = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(0, 6), min_size=1, max_size=4),
        "K": st.integers(1, 4),
        "d": st.sampled_from([2, 4, 6]),
        "scale": st.sampled_from([0.1, 1.0, 10.0]),
        "seed": st.integers(0, 1000),
    }
)


def history(lengths: Sequence[int], d: int, seed: int, scale: float = 1.0, pad: int = 0) -> History:
    """Random histories in float64, with garbage at padded steps.

    `pad` adds padded steps; it does not change the real steps.
    """
    random = torch.Generator().manual_seed(seed)
    longest = max([*lengths, 1])
    mask_BN = torch.arange(longest + pad) < torch.tensor(lengths)[:, None]
    E, trainable = (
        scale * torch.randn(len(lengths), longest, d, generator=random).double() for _ in range(2)
    )
    garbage = torch.full((len(lengths), pad, d), 7.0).double()
    return History(torch.cat([trainable, garbage], 1), torch.cat([E, garbage], 1), mask_BN)


def real(past: History, b: int) -> list[Tensor]:
    """The vectors of the behaviours of request b, oldest first."""
    return [x for x, is_real in zip(past.trainable_BNd[b], past.mask_BN[b], strict=True) if is_real]


def softmax(scores: Sequence[float | Tensor]) -> list[float]:
    """Softmax of a list of numbers, one at a time."""
    numbers = [float(s.detach()) if isinstance(s, Tensor) else s for s in scores]
    weights = [math.exp(number - max(numbers)) for number in numbers]
    return [weight / sum(weights) for weight in weights]


def matvec(W: Tensor, x: Tensor) -> Tensor:
    """W x, one multiplication at a time."""
    return torch.stack(
        [sum((W[i, j] * x[j] for j in range(len(x))), x.new_zeros(())) for i in range(len(W))]
    )


def weighted(weights: Sequence[float], xs: Sequence[Tensor], d: int) -> Tensor:
    """Σ w x."""
    total = torch.zeros(d).double()
    for weight, x in zip(weights, xs, strict=True):
        total = total + weight * x
    return total


def routed(
    votes: list[list[Tensor]], logits: list[list[float]], iterations: int, d: int
) -> list[Tensor]:
    """The interests by dynamic routing: votes[t][j] of step t for interest j, with logits[t][j].

    Alg. 1 of Li et al. (2019); votes are constants in all iterations except the last.
    """
    K = len(logits[0])
    logits = [list(row) for row in logits]
    for iteration in range(iterations):
        last = iteration == iterations - 1
        shares = [softmax(row) for row in logits]
        interests = []
        for j in range(K):
            z = torch.zeros(d).double()
            for t, vote in enumerate(votes):
                z = z + shares[t][j] * (vote[j] if last else vote[j].detach())
            norm = z.square().sum().sqrt()
            interests.append(norm**2 / (1 + norm**2) * (z / norm) if norm > 0 else z)
        if not last:
            for t, vote in enumerate(votes):
                for j in range(K):
                    logits[t][j] += float(vote[j].detach() @ interests[j])
    return interests


def stirred(module: nn.Module, seed: int = 4, spread: float = 0.3) -> nn.Module:
    """Add noise to every parameter, so that tests do not depend on special initial values."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.add_((spread * noise).to(parameter.dtype))
    return module


def gradient_of(result: Tensor, past: History, seed: int = 8) -> Tensor:
    """The gradient of a random linear combination of the result, for the behaviours' vectors."""
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(seed)).double()
    (gradient,) = torch.autograd.grad((result * weights).sum(), past.trainable_BNd)
    return gradient


def self_attention(
    inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor], heads: int, xs: Sequence[Tensor]
) -> list[Tensor]:
    """Self-attention, one head, query and key at a time (Vaswani et al., 2017).

    `inputs` and `output` are the weights and biases of the projections.
    """
    d = len(xs[0])
    width = d // heads
    projected = [matvec(inputs[0], x) + inputs[1] for x in xs]
    mixed = []
    for one in projected:
        parts = []
        for head in range(heads):
            at = slice(head * width, (head + 1) * width)
            scores = [one[:d][at] @ other[d : 2 * d][at] / math.sqrt(width) for other in projected]
            parts.append(
                weighted(softmax(scores), [other[2 * d :][at] for other in projected], width)
            )
        mixed.append(matvec(output[0], torch.cat(parts)) + output[1])
    return mixed
