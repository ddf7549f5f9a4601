"""The combination interests of MFN (Xie et al., 2021), section 3.3, at one level.

Legend: B requests, N history steps, d width of an item vector, K interests, h attention width,
H heads.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mfn.models.extractor import Extractor, History, Interests, LevelSize
from mfn.models.masking import check_heads, masked_softmax, visible
from mfn.models.recency import Recency
from mfn.models.settings import CombinationSettings


class MultiHeadSelfAttention(nn.Module):
    """MSA of eq. 6: scaled dot products in H heads (Vaswani et al., 2017), padding masked."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x_BNd: Tensor, mask_BN: Tensor) -> Tensor:
        """[B, N, d]; values at padded steps are finite but have no meaning."""
        output_BNd: Tensor = self.output(self.mixed(x_BNd, mask_BN))
        return output_BNd

    def mixed(self, x_BNd: Tensor, mask_BN: Tensor) -> Tensor:
        """The concatenated outputs of the heads, [B, N, d], before the output projection."""
        B, N, d = x_BNd.shape
        query, key, value = (
            part.view(B, N, self.heads, d // self.heads).transpose(1, 2)
            for part in self.inputs(x_BNd).chunk(3, dim=-1)
        )
        mixed_BHNd = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=visible(mask_BN)[:, None, None, :]
        )
        return mixed_BHNd.transpose(1, 2).reshape(B, N, d)


class Combination(Extractor):
    """R_c = A 𝓔 with A = softmax over time of W₂ᵀ swish(W₁ MSA(𝓔)ᵀ) (eq. 6, 7).

    With positions, the input of MSA, and so A, also depends on how long ago a behaviour was.
    """

    def __init__(self, settings: CombinationSettings, size: LevelSize) -> None:
        super().__init__()
        self.interests = settings.combination_interests
        self.attention = MultiHeadSelfAttention(size.width, settings.heads)
        self.W1 = nn.Linear(size.width, settings.combination_units, bias=False)
        self.W2 = nn.Linear(settings.combination_units, self.interests, bias=False)
        self.recency = Recency(size) if settings.positions else None

    def forward(self, history: History) -> Interests:
        """R_c, [B, K, d]."""
        behaviours_BNd = history.trainable_BNd if self.recency is None else self.recency(history)
        mixed_BNd = self.attention.mixed(behaviours_BNd, history.mask_BN)
        # W1 and the output projection are both linear: their matrices are multiplied once per
        # batch, so that each history step needs one product, not two.
        output = self.attention.output
        weight_hd, bias_h = self.W1.weight @ output.weight, self.W1.weight @ output.bias
        hidden_BNh = functional.silu(functional.linear(mixed_BNd, weight_hd, bias_h))
        score_BNK = self.W2(hidden_BNh)
        A_BNK = masked_softmax(score_BNK, history.mask_BN[..., None], dim=1)
        return Interests(A_BNK.transpose(1, 2) @ history.trainable_BNd)
