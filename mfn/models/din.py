"""The target attention of DIN (Zhou et al., 2018).

Deep Interest Network for Click-Through Rate Prediction, section 4.3.

Legend: B requests, M candidates, N history steps, d width of an item vector, h hidden width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn.models.extractor import History, LevelSize
from mfn.models.masking import masked_softmax
from mfn.models.recency import Recency
from mfn.models.settings import TargetAttentionSettings


class TargetAttention(nn.Module):
    """Σ_t a(r_t, i_c) r_t over the behaviours of a history (eq. 3 there), for each candidate.

    a is a feed-forward network over [r, i, r − i, r ⊙ i], as in the authors' code
    (https://github.com/zhougr1993/DeepInterestNetwork). The first layer is linear in these four
    parts, so r − i needs no separate weights. The layer is then one matrix product per candidate,
    (W_r + i ⊙ W_p) r + W_i i, and no tensor of width d is computed per pair.

    The activation is leaky ReLU with slope 1/4, the initial slope of the paper's PReLU. The slope
    is not trained, because that would cost a quarter of this network's time. The paper's
    alternative, Dice, needs batch statistics, but the rows of a batch share requests.
    """

    def __init__(self, settings: TargetAttentionSettings, size: LevelSize) -> None:
        super().__init__()
        first, *others = settings.target_units
        widths, width = [first, *others], size.width
        self.softmax = settings.target_softmax
        self.recency = Recency(size) if settings.target_positions else None
        self.behaviour = nn.Linear(width, first, bias=False)
        self.candidate = nn.Linear(width, first)
        self.product = nn.Linear(width, first, bias=False)
        self.rest = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        # No bias: it would have no effect in a softmax.
        self.score = nn.Linear(widths[-1], 1, bias=False)

    def forward(self, history: History, candidates_BMd: Tensor) -> Tensor:
        """R(i_c), [B, M, d]; zeros for a request without history."""
        r_BNd, mask_B1N = history.trainable_BNd, history.mask_BN[:, None]
        positioned_BNd = r_BNd if self.recency is None else self.recency(history)
        # First layer: W_r + i ⊙ W_p for each candidate, then its product with all behaviours.
        weight_BMhd = torch.addcmul(
            self.behaviour.weight, candidates_BMd[:, :, None], self.product.weight
        )
        hidden_BMhN = torch.baddbmm(
            self.candidate(candidates_BMd).flatten(1)[..., None],
            weight_BMhd.flatten(1, 2),
            positioned_BNd.transpose(1, 2),
        ).unflatten(1, weight_BMhd.shape[1:3])
        for layer in self.rest:
            hidden_BMhN = layer(_activated(hidden_BMhN).transpose(2, 3)).transpose(2, 3)
        # N stays the last dimension: moving h there would copy the largest tensor of the model.
        score_BMN = torch.einsum("h,bmhn->bmn", self.score.weight[0], _activated(hidden_BMhN))
        if self.softmax:
            return masked_softmax(score_BMN, mask_B1N, dim=2) @ r_BNd
        return (score_BMN * mask_B1N) @ r_BNd


def _activated(hidden: Tensor) -> Tensor:
    return functional.leaky_relu(hidden, 0.25)
