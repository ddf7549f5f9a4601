"""The interface of an extractor: from a history to a group of interest vectors, at one level.

Legend: B requests, N history steps, d width of an item vector at the level, K interests.
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

    `trainable_BNd` is 𝓔. `frozen_BNd` is E, or None if no extractor of the model needs it.
    """

    trainable_BNd: Tensor
    frozen_BNd: Tensor | None
    mask_BN: Tensor


class Extractor(nn.Module, ABC):
    """A group of interests of a request, computed from its history only; its candidates share them.

    The constructor takes the model's settings, the width d and the maximum history length.

    Attributes:
        interests: K, the number of interests in the group.
    """

    interests: int

    @abstractmethod
    def forward(self, history: History) -> Tensor:
        """Interests, [B, K, d].

        An interest that a request does not have is a zero vector; without a history all are. The
        candidate attends only over vectors that are not zero.
        """

    def auxiliary_loss(self, history: History) -> Tensor:
        """A scalar that training adds to the loss of every candidate; 0 by default."""
        return history.trainable_BNd.new_zeros(())

    @classmethod
    def frozen_items(
        cls, features: Features, items: ItemTable, dimension: int
    ) -> FrozenItems | None:
        """The module that holds E for this extractor, or None if it does not use E."""
        return None


def first_steps(positions_Nx: Tensor, history: History) -> Tensor:
    """Cut parameters that are stored by position to the number of steps of these histories.

    Raises:
        ValueError: the histories have more steps than the model was built for.
    """
    steps = history.mask_BN.shape[1]
    if steps > len(positions_Nx):
        raise ValueError(
            f"history: expected at most {len(positions_Nx)} steps, the maximum when this model was "
            f"trained, got {steps}; train it again on these splits"
        )
    return positions_Nx[:steps]
