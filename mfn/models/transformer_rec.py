"""TransformerRec of the paper's Table 1: the mean of the history as a transformer encodes it.

The paper does not say which it took; the encoder here is that of BERT4Rec (Sun et al., 2019), to
which it refers. The candidate does not attend over it.

Legend: B requests, N history steps, d width of an item's vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.models.embedding import masked_mean
from mfn.models.extractor import Extractor, History, of_steps
from mfn.models.masking import check_heads, visible
from mfn.models.settings import TransformerRecSettings


class TransformerRec(Extractor):
    """One interest. No dropout, as no other model here has any: training repeats to the bit."""

    interests = 1

    def __init__(self, settings: TransformerRecSettings, width: int, steps: int) -> None:
        super().__init__()
        check_heads(width, settings.heads)
        self.positions_Nd = nn.Parameter(torch.randn(steps, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, settings.heads, settings.width_factor * width,
                dropout=0.0, activation="gelu", batch_first=True,
            )
            for _ in range(settings.layers)
        )  # fmt: skip

    def forward(self, history: History) -> Tensor:
        """The mean over the encoded history, [B, 1, d]."""
        hidden_BNd = history.trainable_BNd + of_steps(self.positions_Nd, history)
        unseen_BN = ~visible(history.mask_BN)
        for layer in self.layers:
            hidden_BNd = layer(hidden_BNd, src_key_padding_mask=unseen_BN)
        return masked_mean(hidden_BNd, history.mask_BN)[:, None]
