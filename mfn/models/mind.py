"""MIND (Li et al., 2019), Multi-Interest Network with Dynamic Routing for Recommendation at Tmall.

Only its multi-interest extractor layer. The later layers of the paper are for matching; here all
models share the aggregation and the head instead.

Legend: B requests, N history steps, d width of an item vector, K interests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.models.extractor import Extractor, History, Interests, LevelSize, first_steps
from mfn.models.recency import Recency
from mfn.models.routing import route
from mfn.models.settings import MindSettings


class Mind(Extractor):
    """B2I dynamic routing with one bilinear map S, shared by all behaviours and interests.

    The initial routing logits are random, because with equal logits all interests would stay equal.
    They are drawn once per interest and step and saved with the model; with new draws a request
    would get another score each time. S is initialised with the identity.
    """

    start_NK: Tensor

    def __init__(self, settings: MindSettings, size: LevelSize) -> None:
        super().__init__()
        self.interests = settings.interests
        self.iterations = settings.iterations
        self.adaptive = settings.adaptive
        self.S = nn.Parameter(torch.eye(size.width))
        self.register_buffer("start_NK", torch.randn(size.steps, settings.interests))
        self.recency = Recency(size) if settings.positions else None

    def forward(self, history: History) -> Interests:
        """Interests, [B, K, d]; with few behaviours the last ones are zero."""
        logits_BKN = first_steps(self.start_NK, history).T.expand(len(history.mask_BN), -1, -1)
        if self.adaptive:
            lowest = torch.finfo(logits_BKN.dtype).min
            logits_BKN = logits_BKN.masked_fill(self.surplus(history)[..., None], lowest)
        behaviours_BNd = history.trainable_BNd if self.recency is None else self.recency(history)
        votes_B1Nd = (behaviours_BNd @ self.S)[:, None]
        return Interests(route(votes_B1Nd, logits_BKN, history.mask_BN, self.iterations))

    def surplus(self, history: History) -> Tensor:
        """[B, K], True at interests beyond max(1, min(K, ⌊log₂ n⌋)) for n behaviours."""
        lengths_B = history.mask_BN.sum(dim=1)
        log2_B = torch.frexp(lengths_B.float()).exponent - 1  # exact floor, unlike torch.log2
        return torch.arange(self.interests, device=log2_B.device) >= log2_B.clamp(min=1)[:, None]
