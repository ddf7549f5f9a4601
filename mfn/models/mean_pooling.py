"""Base of the paper's Table 1: the mean of the history (Embedding&MLP)."""

from __future__ import annotations

from mfn.models.embedding import masked_mean
from mfn.models.extractor import Extractor, History, Interests, LevelSize
from mfn.models.settings import BaseSettings


class MeanPooling(Extractor):
    """One interest: the mean of the vectors of the behaviours."""

    interests = 1

    def __init__(self, settings: BaseSettings, size: LevelSize) -> None:
        super().__init__()

    def forward(self, history: History) -> Interests:
        """The mean, [B, 1, d]."""
        return Interests(masked_mean(history.trainable_BNd, history.mask_BN)[:, None])
