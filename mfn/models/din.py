"""The target attention of DIN (Zhou et al., 2018).

Deep Interest Network for Click-Through Rate Prediction, section 4.3.

Legend: B requests, M candidates, N history steps, d width of an item's vector, h hidden width.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mfn.models.extractor import History
from mfn.models.masking import masked_softmax
from mfn.models.settings import TargetAttentionSettings


class TargetAttention(nn.Module):
    """Σ_t a(r_t, i_c) r_t over single behaviours (eq. 3 there), for each candidate.

    a is a feed-forward network over [r, i, r − i, r ⊙ i], as in the authors' code
    (https://github.com/zhougr1993/DeepInterestNetwork). Its first layer is linear in these four,
    so r − i needs no weights of its own, what reads r or i alone is computed once a behaviour or
    once a candidate, and (r ⊙ i) W = r (i ⊙ W) is one matrix product: nothing as wide as an item's
    vector is made for each pair.

    Its hidden layers are PReLU, the paper's own alternative to Dice: Dice needs statistics of the
    batch, and the rows of a batch share requests.
    """

    def __init__(self, settings: TargetAttentionSettings, width: int, steps: int) -> None:
        super().__init__()
        first, *others = settings.target_units
        self.softmax = settings.target_softmax
        self.behaviour = nn.Linear(width, first, bias=False)
        self.candidate = nn.Linear(width, first)
        self.product = nn.Linear(width, first, bias=False)
        widths = [first, *others]
        self.activations = nn.ModuleList(nn.PReLU() for _ in widths)
        # A bias of the score would have no effect within a softmax.
        self.rest = nn.ModuleList(
            [
                *(nn.Linear(before, after) for before, after in pairwise(widths)),
                nn.Linear(widths[-1], 1, bias=False),
            ]
        )

    def forward(self, history: History, candidates_BMd: Tensor) -> Tensor:
        """[B, M, d]; zeros for a request without history."""
        r_BNd, mask_BN1 = history.trainable_BNd, history.mask_BN[..., None]
        weighed_BMhd = candidates_BMd[:, :, None] * self.product.weight
        crossed_BNMh = (r_BNd @ weighed_BMhd.flatten(1, 2).transpose(1, 2)).unflatten(
            2, weighed_BMhd.shape[1:3]
        )
        hidden_BNMh = (
            crossed_BNMh
            + self.behaviour(r_BNd)[:, :, None]
            + self.candidate(candidates_BMd)[:, None]
        )
        for activation, layer in zip(self.activations, self.rest, strict=True):
            hidden_BNMh = layer(activation(hidden_BNMh))
        score_BNM = hidden_BNMh.squeeze(-1)
        if self.softmax:
            weight_BNM = masked_softmax(score_BNM, mask_BN1, dim=1)
        else:
            weight_BNM = score_BNM * mask_BN1
        return weight_BNM.transpose(1, 2) @ r_BNd
