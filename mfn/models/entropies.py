"""Assignment of behaviours to interest centers, and the loss of centers (eq. 1 to 4).

Legend: B users or requests, N history steps, K centers, d width of an item vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Marginal = Literal["user", "batch"]


def assignment(frozen_BNd: Tensor, centers_Kd: Tensor, mask_BN: Tensor) -> Tensor:
    """P of eq. 4, [B, N, K]: weight of each behaviour for each center; 0 at padding."""
    # Steps stay the last dimension in memory: a softmax over a short last dimension of K centers
    # would take ten times as long.
    P_BKN = torch.softmax(centers_Kd @ frozen_BNd.transpose(1, 2), dim=1)
    return P_BKN.transpose(1, 2) * mask_BN[..., None]


@dataclass(frozen=True)
class Entropies:
    """L_ME (eq. 1), L_SE (eq. 2) and L_E = L_SE − L_ME (eq. 3), in nats."""

    marginal: Tensor
    single: Tensor

    @property
    def loss(self) -> Tensor:
        """L_E, the loss that Alg. 1 minimises."""
        return self.single - self.marginal


def entropies(P_BNK: Tensor, mask_BN: Tensor, marginal: Marginal) -> Entropies:
    """Eq. 1 and 2 for each user, averaged over the users (Alg. 1); padding is ignored.

    With `marginal` "batch", q of eq. 1 is averaged over all behaviours of the batch, so that a
    single user does not need behaviours at every center.
    """
    K = P_BNK.shape[2]
    length_B = mask_BN.sum(dim=1).clamp(min=1)
    P_BNK = P_BNK * mask_BN[..., None]
    single_B = _plogp(P_BNK).sum(dim=(1, 2)) / (K * length_B)
    if marginal == "user":
        q_BK = P_BNK.sum(dim=1) / length_B[:, None]
        return Entropies(-_plogp(q_BK).sum(dim=1).mean() / K, -single_B.mean())
    q_K = P_BNK.sum(dim=(0, 1)) / mask_BN.sum()
    return Entropies(-_plogp(q_K).sum() / K, -single_B.mean())


def _plogp(p: Tensor) -> Tensor:
    """p log p, 0 at p = 0, with a finite gradient there."""
    result: Tensor = torch.special.xlogy(p, p.clamp(min=torch.finfo(p.dtype).tiny))
    return result
