"""What an extractor is: from a history to groups of interest vectors, at one level.

Legend: B requests, N history steps, d width of an item's vector at the level, K interests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class History:
    """Histories at one level; `mask_BN` is True at real behaviours.

    `trainable_BNd` is 𝓔. `frozen_BNd` is E, for extractors that ask for it.
    """

    trainable_BNd: Tensor
    frozen_BNd: Tensor | None
    mask_BN: Tensor


class Extractor(nn.Module, ABC):
    """Interests of a request, from its history alone: they are shared by all its candidates.

    Attributes:
        groups: how many interests there are in each group; a candidate attends within a group.
        needs_frozen: whether it reads E.
    """

    groups: tuple[int, ...]
    needs_frozen: bool = False

    @abstractmethod
    def forward(self, history: History) -> tuple[Tensor, ...]:
        """One tensor [B, K, d] a group; zeros for a request without history."""
