"""TransformerRec of the paper's Table 1: the mean of the history, encoded by a transformer.

The paper does not name its encoder; here it is that of BERT4Rec (Sun et al., 2019), which the paper
cites. The candidate does not attend over the encoded steps.

Legend: B requests, N history steps, d width of an item vector.
"""

from __future__ import annotations

import torch
from torch import nn

from mfn.models.embedding import masked_mean
from mfn.models.extractor import Extractor, History, Interests, LevelSize, first_steps
from mfn.models.masking import check_heads, visible
from mfn.models.settings import TransformerRecSettings


class TransformerRec(Extractor):
    """One interest. No dropout, as in all models here: training is reproducible bit for bit."""

    interests = 1

    def __init__(self, settings: TransformerRecSettings, size: LevelSize) -> None:
        super().__init__()
        width = size.width
        check_heads(width, settings.heads)
        self.positions_Nd = nn.Parameter(torch.randn(size.steps, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, settings.heads, settings.width_factor * width,
                dropout=0.0, activation="gelu", batch_first=True,
            )
            for _ in range(settings.layers)
        )  # fmt: skip

    def forward(self, history: History) -> Interests:
        """The mean of the encoded steps, [B, 1, d]."""
        hidden_BNd = history.trainable_BNd + first_steps(self.positions_Nd, history)
        ignored_BN = ~visible(history.mask_BN)
        for layer in self.layers:
            hidden_BNd = layer(hidden_BNd, src_key_padding_mask=ignored_BN)
        return Interests(masked_mean(hidden_BNd, history.mask_BN)[:, None])
