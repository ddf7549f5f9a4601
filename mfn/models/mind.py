"""MIND (Li et al., 2019), Multi-Interest Network with Dynamic Routing for Recommendation at Tmall.

Its multi-interest extractor layer. What follows that layer in the paper, for matching, is here
the aggregation and the head that all models share.

Legend: B requests, N history steps, d width of an item's vector, K interests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.models.extractor import Extractor, History, of_steps
from mfn.models.routing import route
from mfn.models.settings import MindSettings


class Mind(Extractor):
    """B2I dynamic routing with one bilinear map S, shared by all behaviours and interests.

    The routing logits start at random numbers, without which all interests would stay the same.
    They are drawn once, one by interest and step, and kept: drawn anew, they would give a request
    another score each time. S starts at the identity.
    """

    start_NK: Tensor

    def __init__(self, settings: MindSettings, width: int, steps: int) -> None:
        super().__init__()
        self.interests = settings.interests
        self.iterations = settings.iterations
        self.adaptive = settings.adaptive
        self.S = nn.Parameter(torch.eye(width))
        self.register_buffer("start_NK", torch.randn(steps, settings.interests))

    def forward(self, history: History) -> Tensor:
        """[B, K, d]; with few behaviours the last interests are zero."""
        logits_BKN = of_steps(self.start_NK, history).T.expand(len(history.mask_BN), -1, -1)
        if self.adaptive:
            lowest = torch.finfo(logits_BKN.dtype).min
            logits_BKN = logits_BKN.masked_fill(self.surplus(history)[..., None], lowest)
        votes_B1Nd = (history.trainable_BNd @ self.S)[:, None]
        return route(votes_B1Nd, logits_BKN, history.mask_BN, self.iterations)

    def surplus(self, history: History) -> Tensor:
        """The interests beyond max(1, min(K, log₂ n)), rounded down, for n behaviours; [B, K]."""
        lengths_B = history.mask_BN.sum(dim=1)
        log2_B = torch.frexp(lengths_B.float()).exponent - 1  # exact, unlike a logarithm
        return torch.arange(self.interests, device=log2_B.device) >= log2_B.clamp(min=1)[:, None]
