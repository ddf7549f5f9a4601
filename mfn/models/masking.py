"""Attention where padding counts nowhere, also where there is nothing but padding.

Legend: B requests, N history steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_softmax(scores: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Weights over `dim` that add up to 1 over what is real, or are all 0 where nothing is.

    `mask` is True at what is real, and of a shape that broadcasts to that of the scores.
    """
    # Not -inf: a softmax over nothing would be NaN, forward and backward.
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~mask, lowest), dim=dim) * mask


def visible(mask_BN: Tensor) -> Tensor:
    """What self-attention may look at, [B, N]: the real steps, or all of an empty history.

    What it says of an empty history has no meaning, but is finite.
    """
    return mask_BN | ~mask_BN.any(dim=1, keepdim=True)


def check_heads(width: int, heads: int) -> None:
    """Refuse heads among which an item's vector cannot be shared out.

    Raises:
        ValueError: the heads do not divide the width.
    """
    if width % heads:
        raise ValueError(
            f"heads: expected a divisor of {width}, the width of an item's vector, got {heads}"
        )
