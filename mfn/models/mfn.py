"""The interest module of MFN (Xie et al., 2021), sections 3.2 and 3.3, at one level.

Legend: B requests, N history steps, d width of an item's vector, K interests, h attention width,
H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn.models.extractor import Extractor, History
from mfn.models.settings import MfnSettings


def assignment(frozen_BNd: Tensor, centers_Kd: Tensor, mask_BN: Tensor) -> Tensor:
    """P of eq. 4, [B, N, K]: how far each behaviour belongs to each center; padding to none."""
    P_BNK = torch.softmax(frozen_BNd @ centers_Kd.T, dim=-1)
    return P_BNK * mask_BN[..., None]


class Similarity(nn.Module):
    """R_s = Pᵀ 𝓔 (eq. 5), P from the frozen embedding and the pretrained centers.

    Scaled by `mass`, an interest is divided by Σ_t P[t, j]: it is then a mean of behaviours, and
    does not grow with the history.
    """

    centers_Kd: Tensor

    def __init__(self, settings: MfnSettings, width: int) -> None:
        super().__init__()
        self.by_mass = settings.similarity_scale == "mass"
        self.register_buffer("centers_Kd", torch.zeros(settings.interests, width))

    def forward(self, history: History) -> Tensor:
        """R_s, [B, K, d]."""
        if history.frozen_BNd is None:
            raise ValueError("the similarity branch needs the frozen embedding of the history")
        P_BNK = assignment(history.frozen_BNd, self.centers_Kd, history.mask_BN)
        R_BKd = P_BNK.transpose(1, 2) @ history.trainable_BNd
        if not self.by_mass:
            return R_BKd
        mass_BK = P_BNK.sum(dim=1)
        # A center that no behaviour belongs to, to the last digit, has a zero interest.
        return R_BKd / mass_BK.clamp(min=torch.finfo(mass_BK.dtype).tiny)[..., None]


class MultiHeadSelfAttention(nn.Module):
    """MSA of eq. 6: scaled dot products in H heads (Vaswani et al., 2017), padding masked."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"heads: expected a divisor of {width}, the width of an item's vector, got {heads}"
            )
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x_BNd: Tensor, mask_BN: Tensor) -> Tensor:
        """[B, N, d]; what stands at padded steps has no meaning, but is finite."""
        B, N, d = x_BNd.shape
        query, key, value = (
            self.inputs(x_BNd).view(B, N, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        )
        # A request without history attends to its padding: a softmax over nothing is NaN.
        visible_BN = mask_BN | ~mask_BN.any(dim=1, keepdim=True)
        mixed_BHNd = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=visible_BN[:, None, None, :]
        )
        output_BNd: Tensor = self.output(mixed_BHNd.transpose(1, 2).reshape(B, N, d))
        return output_BNd


class Combination(nn.Module):
    """R_c = A 𝓔 with A = softmax over time of W₂ᵀ swish(W₁ MSA(𝓔)ᵀ) (eq. 6, 7)."""

    def __init__(self, settings: MfnSettings, width: int) -> None:
        super().__init__()
        self.attention = MultiHeadSelfAttention(width, settings.heads)
        self.W1 = nn.Linear(width, settings.combination_units, bias=False)
        self.W2 = nn.Linear(settings.combination_units, settings.interests, bias=False)

    def forward(self, history: History) -> Tensor:
        """R_c, [B, K, d]."""
        mask_BN = history.mask_BN
        mixed_BNd = self.attention(history.trainable_BNd, mask_BN)
        score_BNK = self.W2(functional.silu(self.W1(mixed_BNd)))
        lowest = torch.finfo(score_BNK.dtype).min
        A_BNK = torch.softmax(score_BNK.masked_fill(~mask_BN[..., None], lowest), dim=1)
        A_BNK = A_BNK * mask_BN[..., None]  # a request without history: no weight on padding
        return A_BNK.transpose(1, 2) @ history.trainable_BNd


class MfnExtractor(Extractor):
    """Similarity and combination interests side by side, R of eq. 8 in two groups of K."""

    needs_frozen = True

    def __init__(self, settings: MfnSettings, width: int) -> None:
        super().__init__()
        self.groups = (settings.interests, settings.interests)
        self.similarity = Similarity(settings, width)
        self.combination = Combination(settings, width)

    def forward(self, history: History) -> tuple[Tensor, ...]:
        """R_s and R_c, [B, K, d] each."""
        return self.similarity(history), self.combination(history)
