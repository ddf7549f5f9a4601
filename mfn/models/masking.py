"""Attention that ignores padding, also for histories that are all padding.

Legend: B requests, N history steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_softmax(scores: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Softmax over `dim` where `mask` is True; 0 elsewhere, and all 0 where `mask` is all False.

    The shape of `mask` must broadcast to that of `scores`.
    """
    # Not -inf: with all entries masked, values and gradients would be NaN.
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~mask, lowest), dim=dim) * mask


def visible(mask_BN: Tensor) -> Tensor:
    """The steps that self-attention may read, [B, N]: the real ones, or all of an empty history.

    The result for an empty history has no meaning, but is finite.
    """
    return mask_BN | ~mask_BN.any(dim=1, keepdim=True)


def check_heads(width: int, heads: int) -> None:
    """Check that an item vector can be split into equal parts, one per head.

    Raises:
        ValueError: the number of heads does not divide the width.
    """
    if width % heads:
        raise ValueError(
            f"heads: expected a divisor of {width}, the width of an item vector, got {heads}"
        )
