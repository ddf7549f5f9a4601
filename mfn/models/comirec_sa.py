"""ComiRec-SA (Cen et al., 2020), Controllable Multi-Interest Framework for Recommendation.

Self-attention after Lin et al. (2017), with positions as in the authors' code
(https://github.com/THUDM/ComiRec).

Legend: B requests, N history steps, d width of an item vector, K interests.
"""

from __future__ import annotations

import torch
from torch import nn

from mfn.models.extractor import Extractor, History, Interests, LevelSize, first_steps
from mfn.models.masking import masked_softmax
from mfn.models.settings import ComiRecSASettings


class ComiRecSA(Extractor):
    """A 𝓔, where A = softmax over time of W₂ tanh(W₁ (𝓔 + positions)).

    Positions change only the weights A; the averaged vectors 𝓔 contain no positions.
    """

    def __init__(self, settings: ComiRecSASettings, size: LevelSize) -> None:
        super().__init__()
        self.interests = settings.interests
        width = size.width
        # The default initialiser of the authors' framework (TensorFlow), which their code uses.
        self.positions_Nd = nn.Parameter(nn.init.xavier_uniform_(torch.empty(size.steps, width)))
        self.W1 = nn.Linear(width, settings.width_factor * width, bias=False)
        self.W2 = nn.Linear(settings.width_factor * width, settings.interests, bias=False)

    def forward(self, history: History) -> Interests:
        """Interests, [B, K, d]."""
        positioned_BNd = history.trainable_BNd + first_steps(self.positions_Nd, history)
        score_BNK = self.W2(torch.tanh(self.W1(positioned_BNd)))
        A_BNK = masked_softmax(score_BNK, history.mask_BN[..., None], dim=1)
        return Interests(A_BNK.transpose(1, 2) @ history.trainable_BNd)
