"""Dynamic routing of behaviours to interest capsules, for MIND and ComiRec-DR.

Sabour et al. (2017), Dynamic Routing Between Capsules, as modified by Li et al. (2019), Alg. 1.
The gradient is that of the code of Cen et al. (2020), https://github.com/THUDM/ComiRec.

Legend: B requests, N history steps, d width of an item vector, K interests, G bilinear maps,
L interests that share a map, K = G L.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squash(z: Tensor) -> Tensor:
    """|z|² / (1 + |z|²) · z / |z|, in a form whose value and gradient are 0 at z = 0."""
    norm: Tensor = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z * norm / (1 + norm.square())


def route(votes_BGNd: Tensor, logits_BKN: Tensor, mask_BN: Tensor, iterations: int) -> Tensor:
    """Interests [B, K, d] after this number of iterations.

    The votes are the behaviours after a bilinear map. Each iteration distributes every behaviour
    over the interests (softmax over interests, not over time), squashes the weighted sum of each
    interest, and adds the dot product of interest and vote to the logits. Gradients flow only
    through the last iteration.
    """
    with torch.no_grad():
        for _ in range(iterations - 1):
            interests_BKd = _capsules(votes_BGNd, logits_BKN, mask_BN)
            agreement_BGLN = _by_map(interests_BKd, votes_BGNd) @ votes_BGNd.transpose(2, 3)
            logits_BKN = logits_BKN + agreement_BGLN.reshape(logits_BKN.shape)
    return _capsules(votes_BGNd, logits_BKN, mask_BN)


def _capsules(votes_BGNd: Tensor, logits_BKN: Tensor, mask_BN: Tensor) -> Tensor:
    """Squashed weighted sums of the votes, [B, K, d]."""
    weights_BKN = torch.softmax(logits_BKN, dim=1) * mask_BN[:, None]
    return squash((_by_map(weights_BKN, votes_BGNd) @ votes_BGNd).flatten(1, 2))


def _by_map(values_BKx: Tensor, votes_BGNd: Tensor) -> Tensor:
    """Values per interest, grouped by the map that the interests share: [B, G, L, x]."""
    values_BGLx: Tensor = values_BKx.unflatten(1, (votes_BGNd.shape[1], -1))
    return values_BGLx
