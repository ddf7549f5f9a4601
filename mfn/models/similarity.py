"""The similarity interests of MFN (Xie et al., 2021), section 3.2, at one level.

Legend: B requests, N history steps, d width of an item vector, K interests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.models.batch import Features
from mfn.models.embedding import FrozenItems, ItemTable, RandomItems
from mfn.models.entropies import assignment, entropies
from mfn.models.extractor import Extractor, History
from mfn.models.settings import (
    PretrainedCentersSettings,
    SimilaritySettings,
    TrainedCentersSettings,
)

LEAST_MASS = 1e-12
"""Minimum mass to divide by: far below that of an interest with behaviours, far above 0."""


class Similarity(Extractor):
    """R_s = Pᵀ 𝓔 (eq. 5), with P from the frozen embedding and the centers C, [K, d].

    With the scale `mass`, interest j is divided by its mass Σ_t P[t, j]. It is then a weighted mean
    of behaviours and does not grow with the history.
    """

    centers_Kd: Tensor

    def __init__(self, settings: SimilaritySettings) -> None:
        super().__init__()
        self.interests = settings.interests
        self.by_mass = settings.similarity_scale == "mass"

    @classmethod
    def frozen_items(cls, features: Features, items: ItemTable, dimension: int) -> FrozenItems:
        """A module for the pretrained E."""
        return FrozenItems(features, dimension)

    def P(self, history: History) -> Tensor:
        """P of eq. 4, [B, N, K]."""
        if history.frozen_BNd is None:
            raise ValueError(
                "similarity interests need the frozen embedding, but the history has none"
            )
        return assignment(history.frozen_BNd, self.centers_Kd, history.mask_BN)

    def forward(self, history: History) -> Tensor:
        """R_s, [B, K, d]."""
        weight_BNK = self.P(history)
        if self.by_mass:
            # Divide before the product with the behaviours, so that their gradient is a weighted
            # mean of the incoming gradient and is never divided by a mass near 0. Below LEAST_MASS
            # an interest shrinks to zero.
            mass_B1K = weight_BNK.sum(dim=1, keepdim=True)
            weight_BNK = weight_BNK / mass_B1K.clamp(min=LEAST_MASS)
        return weight_BNK.transpose(1, 2) @ history.trainable_BNd


class PretrainedCenters(Similarity):
    """With the centers that Alg. 1 learnt; they are not trained further."""

    def __init__(self, settings: PretrainedCentersSettings, width: int, steps: int) -> None:
        super().__init__(settings)
        self.register_buffer("centers_Kd", torch.zeros(settings.interests, width))


class TrainedCenters(Similarity):
    """With random initial centers that are trained with the task: MFN w/o pretrain of Table 1.

    The centers start with the scale of E, so that P starts as soft as between behaviours. The
    auxiliary loss L_E, which pretraining would minimise, can be added.
    """

    def __init__(self, settings: TrainedCentersSettings, width: int, steps: int) -> None:
        super().__init__(settings)
        self.auxiliary_weight = settings.auxiliary_weight
        self.centers_Kd = nn.Parameter(torch.randn(settings.interests, width) * width**-0.25)

    def auxiliary_loss(self, history: History) -> Tensor:
        """λ L_E (eq. 3) of these histories, with q of eq. 1 for each user as in Alg. 1."""
        if self.auxiliary_weight == 0:
            return super().auxiliary_loss(history)
        L_E = entropies(self.P(history), history.mask_BN, "user").loss
        return self.auxiliary_weight * L_E


class RandomEmbedding(TrainedCenters):
    """With a random E too, to measure the value of the pretrained E (not in Table 1).

    Pretrained centers fit only the pretrained E, so the centers are trained with the task.
    """

    @classmethod
    def frozen_items(cls, features: Features, items: ItemTable, dimension: int) -> FrozenItems:
        """A module with a random E."""
        return RandomItems(features, items, dimension)
