"""The interface of an extractor: from a history to a group of interest vectors, at one level.

Legend: B requests, M candidates, N history steps, d width of an item vector at the level, e the
same in E, K interests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from mfn.models.batch import Features
from mfn.models.embedding import FrozenItems, ItemTable


@dataclass(frozen=True)
class History:
    """Histories at one level, oldest behaviour first; `mask_BN` is True at real behaviours.

    `trainable_BNd` is 𝓔. `frozen_BNe` is E, or None if no extractor of the model needs it.
    """

    trainable_BNd: Tensor
    frozen_BNe: Tensor | None
    mask_BN: Tensor


@dataclass(frozen=True)
class Candidates:
    """Candidates at one level, in 𝓔 and in E; `frozen_BMe` is None where `History` has no E."""

    trainable_BMd: Tensor
    frozen_BMe: Tensor | None


@dataclass(frozen=True)
class Interests:
    """A group of interests of each request.

    Attributes:
        vectors_BKd: an interest that a request does not have is a zero vector; without a history
            all are. The candidate attends only over vectors that are not zero.
        log_mass_BK: logarithm of the number of behaviours that an interest is made of; None if
            the candidate's attention does not take it into account.
    """

    vectors_BKd: Tensor
    log_mass_BK: Tensor | None = None


@dataclass(frozen=True)
class LevelSize:
    """What the parts of a model need to know of a level.

    Attributes:
        width: d, of an item vector in 𝓔.
        frozen_width: e, of an item vector in E.
        steps: the maximum history length.
    """

    width: int
    frozen_width: int
    steps: int


class Extractor(nn.Module, ABC):
    """A group of interests of a request, computed from its history only; its candidates share them.

    The constructor takes the model's settings and the size of the level.

    Attributes:
        interests: K, the number of interests in the group.
    """

    interests: int

    @abstractmethod
    def forward(self, history: History) -> Interests:
        """The interests, from the history alone."""

    def log_affinity(self, candidates: Candidates) -> Tensor | None:
        """What is known of a candidate and each interest before the attention has learnt anything.

        Returns: [B, M, K], added to the scores of the attention; None by default.
        """
        return None

    def auxiliary_loss(self, history: History) -> Tensor:
        """A scalar that training adds to the loss of every candidate; 0 by default."""
        return history.trainable_BNd.new_zeros(())

    def learning_rates(self) -> Mapping[str, float]:
        """By parameter name, its multiple of the learning rate, where that is not 1."""
        return {}

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
    check_steps(steps, len(positions_Nx))
    return positions_Nx[:steps]


def check_steps(steps: int, maximum: int) -> None:
    """Check that the histories have no more steps than the model was built for.

    Raises:
        ValueError: they have more.
    """
    if steps > maximum:
        raise ValueError(
            f"history: expected at most {maximum} steps, the maximum when this model was "
            f"trained, got {steps}; train it again on these splits"
        )
