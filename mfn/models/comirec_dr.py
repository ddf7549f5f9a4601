"""ComiRec-DR (Cen et al., 2020), Controllable Multi-Interest Framework for Recommendation.

Dynamic routing as in the authors' code (https://github.com/THUDM/ComiRec).

Legend: B requests, N history steps, d width of an item vector, K interests, e width of a vote
(equal to d).
"""

from __future__ import annotations

import torch
from torch import nn

from mfn.models.extractor import Extractor, History, Interests, LevelSize, first_steps
from mfn.models.routing import route
from mfn.models.settings import ComiRecDRSettings


class ComiRecDR(Extractor):
    """Dynamic routing with a bilinear map for each step and interest, and zero initial logits.

    The maps are initialised with the identity plus noise of a tenth of its size. With equal maps
    all interests and their gradients would stay equal. The maps have N · K · d · d parameters.
    """

    def __init__(self, settings: ComiRecDRSettings, size: LevelSize) -> None:
        super().__init__()
        K = self.interests = settings.interests
        self.iterations = settings.iterations
        width = size.width
        noise_NKde = torch.randn(size.steps, K, width, width) * 0.1 * width**-0.5
        self.maps_NKde = nn.Parameter(torch.eye(width) + noise_NKde)

    def forward(self, history: History) -> Interests:
        """Interests, [B, K, d]."""
        B, N = history.mask_BN.shape
        maps_NKde = first_steps(self.maps_NKde, history)
        votes_BKNe = torch.einsum("bnd,nkde->bkne", history.trainable_BNd, maps_NKde)
        logits_BKN = votes_BKNe.new_zeros(B, self.interests, N)
        return Interests(route(votes_BKNe, logits_BKN, history.mask_BN, self.iterations))
