"""The similarity interests of MFN (Xie et al., 2021), section 3.2, at one level.

Legend: B requests, N history steps, d width of an item's vector, K interests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.models.batch import Features
from mfn.models.centers import assignment, entropies
from mfn.models.embedding import FrozenItems, ItemTable, RandomItems
from mfn.models.extractor import Extractor, History
from mfn.models.settings import (
    PretrainedCentersSettings,
    SimilaritySettings,
    TrainedCentersSettings,
)

LEAST_MASS = 1e-12
"""Of an interest that behaviours belong to: far less than one has, far more than nothing."""


class Similarity(Extractor):
    """R_s = Pᵀ 𝓔 (eq. 5), P from the frozen embedding and the centers C, [K, d].

    Scaled by `mass`, an interest is divided by Σ_t P[t, j]: it is then a mean of behaviours, and
    does not grow with the history.
    """

    centers_Kd: Tensor

    def __init__(self, settings: SimilaritySettings) -> None:
        super().__init__()
        self.interests = settings.interests
        self.by_mass = settings.similarity_scale == "mass"

    @classmethod
    def frozen_items(cls, features: Features, items: ItemTable, dimension: int) -> FrozenItems:
        """The pretrained E."""
        return FrozenItems(features, dimension)

    def P(self, history: History) -> Tensor:
        """Eq. 4, [B, N, K]."""
        if history.frozen_BNd is None:
            raise ValueError("similarity interests need the frozen embedding of the history")
        return assignment(history.frozen_BNd, self.centers_Kd, history.mask_BN)

    def forward(self, history: History) -> Tensor:
        """R_s, [B, K, d]."""
        weight_BNK = self.P(history)
        if self.by_mass:
            # Divided before the behaviours come in: their gradient is then a mean of what comes
            # back, and not first divided by a mass of nothing. Below LEAST_MASS an interest fades.
            mass_B1K = weight_BNK.sum(dim=1, keepdim=True)
            weight_BNK = weight_BNK / mass_B1K.clamp(min=LEAST_MASS)
        return weight_BNK.transpose(1, 2) @ history.trainable_BNd


class PretrainedCenters(Similarity):
    """With the centers that Alg. 1 has found; they stay as they are."""

    def __init__(self, settings: PretrainedCentersSettings, width: int, steps: int) -> None:
        super().__init__(settings)
        self.register_buffer("centers_Kd", torch.zeros(settings.interests, width))


class TrainedCenters(Similarity):
    """With centers drawn at random and trained with the task: MFN w/o pretrain of Table 1.

    They are drawn as far from zero as E is, so that P starts as soft as between behaviours. The
    paper's auxiliary loss L_E, which pretraining would have minimised, can be added.
    """

    def __init__(self, settings: TrainedCentersSettings, width: int, steps: int) -> None:
        super().__init__(settings)
        self.auxiliary_weight = settings.auxiliary_weight
        self.centers_Kd = nn.Parameter(torch.randn(settings.interests, width) * width**-0.25)

    def auxiliary_loss(self, history: History) -> Tensor:
        """λ L_E (eq. 3) of these histories, q of eq. 1 taken by user as in Alg. 1."""
        if self.auxiliary_weight == 0:
            return super().auxiliary_loss(history)
        L_E = entropies(self.P(history), history.mask_BN, "user").loss
        return self.auxiliary_weight * L_E


class RandomEmbedding(TrainedCenters):
    """With E drawn at random too: what the pretrained E is worth (beyond Table 1).

    Pretrained centers lie in the space of the pretrained E and mean nothing in another, so these
    are trained with the task.
    """

    @classmethod
    def frozen_items(cls, features: Features, items: ItemTable, dimension: int) -> FrozenItems:
        """A random E."""
        return RandomItems(features, items, dimension)
