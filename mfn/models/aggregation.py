"""Attention of a candidate over the interests of its request (eq. 8 to 11 of the paper).

Legend: B requests, M candidates, K interests of a group, d width of a vector, h attention width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.models.extractor import Interests
from mfn.models.masking import masked_softmax


class InterestAttention(nn.Module):
    """a(r_j, i_c) of eq. 10 for one group: a feed-forward network with a softmax over the group.

    The hidden layer is relu(W r + V i + P r ⊙ Q i). All matrix products are computed once per
    interest or once per candidate; a pair costs only h numbers. Without the product the network
    could not see whether a pair matches. With r ⊙ i before the matrix, a pair would cost d times
    as much.
    """

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.interest = nn.Linear(width, 2 * units)
        self.candidate = nn.Linear(width, 2 * units)
        self.score = nn.Linear(units, 1, bias=False)

    def forward(
        self, interests: Interests, candidates_BMd: Tensor, log_affinity_BMK: Tensor | None = None
    ) -> Tensor:
        """Attention weights [B, M, K]; they sum to 1 over the interests that are not zero.

        If the interests have masses, or an affinity with the candidate, the weights are in
        proportion to them where the network says the same of all interests.
        """
        interests_BKd = interests.vectors_BKd
        add_BKh, times_BKh = self.interest(interests_BKd).chunk(2, dim=-1)
        add_BMh, times_BMh = self.candidate(candidates_BMd).chunk(2, dim=-1)
        hidden_BMKh = torch.addcmul(add_BMh[:, :, None], times_BMh[:, :, None], times_BKh[:, None])
        # In place, because this is the largest tensor of a step; its gradient does not need
        # the earlier values.
        hidden_BMKh = hidden_BMKh.add_(add_BKh[:, None]).relu_()
        score_BMK = self.score(hidden_BMKh).squeeze(-1)
        if interests.log_mass_BK is not None:
            score_BMK = score_BMK + interests.log_mass_BK[:, None]
        if log_affinity_BMK is not None:
            score_BMK = score_BMK + log_affinity_BMK
        return masked_softmax(score_BMK, (interests_BKd != 0).any(dim=-1)[:, None], dim=-1)


class Aggregation(nn.Module):
    """The weighted sum of a group's interests for a candidate: one term of R(i_c) (eq. 11)."""

    def __init__(self, width: int, interests: int, units: int) -> None:
        super().__init__()
        # The only interest of a group has weight 1, so such a group needs no network.
        self.attention = InterestAttention(width, units) if interests > 1 else None

    def forward(
        self, interests: Interests, candidates_BMd: Tensor, log_affinity_BMK: Tensor | None = None
    ) -> Tensor:
        """The readout of the group, [B, M, d]."""
        interests_BKd = interests.vectors_BKd
        if self.attention is None:
            return interests_BKd.expand_as(candidates_BMd)
        weight_BMK: Tensor = self.attention(interests, candidates_BMd, log_affinity_BMK)
        return weight_BMK @ interests_BKd
