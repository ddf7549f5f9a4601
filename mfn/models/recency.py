"""Positions of behaviours, counted from the end of the history.

Legend: B requests, N history steps, d width of an item vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.models.extractor import History, LevelSize, check_steps

INITIAL_STD = 0.1


class Recency(nn.Module):
    """A trained vector for the last behaviour, the last but one, and so on.

    Positions count from the end, because a history that is shorter than the maximum has no early
    steps, and because what a user did last says most about what she wants now.
    """

    def __init__(self, size: LevelSize) -> None:
        super().__init__()
        self.positions_Nd = nn.Parameter(torch.randn(size.steps, size.width) * INITIAL_STD)

    def forward(self, history: History) -> Tensor:
        """The behaviours with the vector of their position added, [B, N, d].

        Raises:
            ValueError: the histories have more steps than the model was built for.
        """
        steps = history.mask_BN.shape[1]
        check_steps(steps, len(self.positions_Nd))
        length_B1 = history.mask_BN.sum(dim=1, keepdim=True)
        age_BN = (length_B1 - 1 - torch.arange(steps, device=length_B1.device)).clamp(min=0)
        return history.trainable_BNd + nn.functional.embedding(age_BN, self.positions_Nd)
