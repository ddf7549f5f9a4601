"""What an extractor is: from a history to a group of interest vectors, at one level.

Legend: B requests, N history steps, d width of an item's vector at the level, K interests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from mfn.models.batch import Features
from mfn.models.embedding import FrozenItems, ItemTable


@dataclass(frozen=True)
class History:
    """Histories at one level, oldest behaviour first; `mask_BN` is True at real behaviours.

    `trainable_BNd` is 𝓔. `frozen_BNd` is E, for extractors that ask for it.
    """

    trainable_BNd: Tensor
    frozen_BNd: Tensor | None
    mask_BN: Tensor


class Extractor(nn.Module, ABC):
    """A group of interests of a request, from its history alone: all its candidates share them.

    It is made from the settings that name it, the width d, and the most steps that a history has.

    Attributes:
        interests: K, how many there are; a candidate attends over them.
    """

    interests: int

    @abstractmethod
    def forward(self, history: History) -> Tensor:
        """[B, K, d]. An interest that a request does not have is zero, without a history all are.

        The candidate attends over those that are not zero.
        """

    def auxiliary_loss(self, history: History) -> Tensor:
        """What training adds to the loss of every candidate; a number, by default 0."""
        return history.trainable_BNd.new_zeros(())

    @classmethod
    def frozen_items(
        cls, features: Features, items: ItemTable, dimension: int
    ) -> FrozenItems | None:
        """E as this extractor reads it; None if it does not."""
        return None


def of_steps(positions_Nx: Tensor, history: History) -> Tensor:
    """What is kept by position in a history, for as many steps as these histories have.

    Raises:
        ValueError: they have more steps than the model was made for.
    """
    steps = history.mask_BN.shape[1]
    if steps > len(positions_Nx):
        raise ValueError(
            f"history: expected at most {len(positions_Nx)} steps, as when this model was "
            f"trained, got {steps}; train it on these splits"
        )
    return positions_Nx[:steps]
