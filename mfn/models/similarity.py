"""The similarity interests of MFN (Xie et al., 2021), section 3.2, at one level.

Legend: B requests, M candidates, N history steps, d width of an item vector, e width of an item
vector in E, K interests.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfn.models.batch import Features
from mfn.models.embedding import FrozenItems, ItemTable, RandomItems
from mfn.models.entropies import assignment, entropies
from mfn.models.extractor import Candidates, Extractor, History, Interests, LevelSize
from mfn.models.settings import RandomCentersSettings, SimilaritySettings

CENTERS = "centers_Ke"
"""Last part of the names of the interest centers among a model's tensors."""

LEAST_MASS = 1e-6
"""An interest with less mass than this share of one behaviour is none: its vector is zero."""


class Similarity(Extractor):
    """R_s = Pᵀ 𝓔 (eq. 5), with P from the frozen embedding and the centers C, [K, e].

    With the scale `mass`, interest j is divided by its mass Σ_t P[t, j]. It is then a weighted mean
    of behaviours and does not grow with the history. What this loses, how much of the user an
    interest is, the candidate's attention gets back as the logarithm of the mass.

    The centers are initial ones: training tunes them at `centers_rate` times the learning rate of
    the other parameters.
    """

    start_Ke: Tensor

    def __init__(self, settings: SimilaritySettings, size: LevelSize) -> None:
        super().__init__()
        self.interests = settings.similarity_interests
        self.by_mass = settings.similarity_scale == "mass"
        self.mass_in_attention = settings.mass_in_attention
        self.assignment_in_attention = settings.assignment_in_attention
        self.centers_rate = settings.centers_rate
        start_Ke = torch.randn(self.interests, size.frozen_width) * size.frozen_width**-0.25
        self.centers_Ke = nn.Parameter(start_Ke.clone(), requires_grad=settings.centers_rate > 0)
        # Where the centers started, to see how far they move; not saved with the model.
        self.register_buffer("start_Ke", start_Ke, persistent=False)

    @classmethod
    def frozen_items(cls, features: Features, items: ItemTable, dimension: int) -> FrozenItems:
        """A module for the pretrained E."""
        return FrozenItems(features, dimension)

    def learning_rates(self) -> Mapping[str, float]:
        """The centers' multiple of the learning rate."""
        return {CENTERS: self.centers_rate} if self.centers_rate else {}

    def P(self, history: History) -> Tensor:
        """P of eq. 4, [B, N, K]."""
        if history.frozen_BNe is None:
            raise ValueError(
                "similarity interests need the frozen embedding, but the history has none"
            )
        return assignment(history.frozen_BNe, self.centers_Ke, history.mask_BN)

    def forward(self, history: History) -> Interests:
        """R_s, [B, K, d], and the logarithm of each interest's mass."""
        weight_BNK = self.P(history)
        mass_B1K = weight_BNK.sum(dim=1, keepdim=True)
        log_mass_BK = (
            mass_B1K.clamp(min=LEAST_MASS).log().squeeze(1) if self.mass_in_attention else None
        )
        if self.by_mass:
            # Divide before the product with the behaviours, so that their gradient is a weighted
            # mean of the incoming gradient and is never divided by a mass near 0.
            share_BNK = weight_BNK / mass_B1K.clamp(min=LEAST_MASS)
            weight_BNK = torch.where(mass_B1K >= LEAST_MASS, share_BNK, 0)
        return Interests(weight_BNK.transpose(1, 2) @ history.trainable_BNd, log_mass_BK)

    def log_affinity(self, candidates: Candidates) -> Tensor | None:
        """Logarithm of the candidate's own weight for each center (P of eq. 4), [B, M, K].

        With it the candidate attends from the first step on to the interests at the centers where
        it lies itself. Without it the network has to find out which interest is meant, which takes
        most of an epoch.
        """
        if not self.assignment_in_attention or candidates.frozen_BMe is None:
            return None
        return torch.log_softmax(candidates.frozen_BMe @ self.centers_Ke.T, dim=-1)

    @torch.no_grad()
    def measures(self, frozen_BNe: Tensor, mask_BN: Tensor) -> Mapping[str, float]:
        """How hard P is on these histories in E, and how far the centers are from their start.

        Returns: nothing for histories without behaviours, else
            `centers_norm`: the mean length of the centers, as a multiple of the mean length of a
            behaviour in E; `centers_largest_share`: the mean over behaviours of the largest P;
            `centers_moved`: the mean distance of a center from its start, as a multiple of the
            mean length at the start.
        """
        if not bool(mask_BN.any()):
            return {}
        length = frozen_BNe[mask_BN].norm(dim=1).mean()
        largest_n = assignment(frozen_BNe, self.centers_Ke, mask_BN)[mask_BN].max(dim=1).values
        moved_K = (self.centers_Ke - self.start_Ke).norm(dim=1)
        return {
            "centers_norm": float(self.centers_Ke.norm(dim=1).mean() / length),
            "centers_largest_share": float(largest_n.mean()),
            "centers_moved": float(moved_K.mean() / self.start_Ke.norm(dim=1).mean()),
        }


class PretrainedCenters(Similarity):
    """With the initial centers that Alg. 1 learnt."""

    @torch.no_grad()
    def load(self, centers_Ke: Tensor) -> None:
        """Start at these centers, [K, e]."""
        self.centers_Ke.copy_(centers_Ke)
        self.start_Ke.copy_(centers_Ke)


class RandomCenters(Similarity):
    """With random initial centers.

    They start as long as a behaviour in E, so that P starts as soft as between behaviours. The
    auxiliary loss L_E, which pretraining would minimise, can be added.
    """

    def __init__(self, settings: RandomCentersSettings, size: LevelSize) -> None:
        super().__init__(settings, size)
        self.auxiliary_weight = settings.auxiliary_weight

    def auxiliary_loss(self, history: History) -> Tensor:
        """λ L_E (eq. 3) of these histories, with q of eq. 1 for each user as in Alg. 1."""
        if self.auxiliary_weight == 0:
            return super().auxiliary_loss(history)
        L_E = entropies(self.P(history), history.mask_BN, "user").loss
        return self.auxiliary_weight * L_E


class RandomEmbedding(RandomCenters):
    """With a random E too; pretrained centers would not fit it."""

    @classmethod
    def frozen_items(cls, features: Features, items: ItemTable, dimension: int) -> FrozenItems:
        """A module with a random E."""
        return RandomItems(features, items, dimension)
