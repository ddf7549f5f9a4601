"""What interest centers are worth, without labels: purity of P, softness, effective interests.

The functions of P take the weights of behaviours for centers, [B, N, K]: P itself, or `hardened`,
where each behaviour counts for its nearest center only. So they also apply to centers that a model
has trained further.

Legend: B users, b users of a part, N history steps (oldest first), K centers, d width of an item
vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mfn.models.entropies import assignment
from mfn.pretraining.descent import LearntCenters, Sample, duplicates, empty, largest_entropy

USERS_AT_ONCE = 256
"""Bounds the memory for pairs of behaviours."""


@dataclass(frozen=True)
class Purity:
    """Share of pairs of behaviours that are at one center, by who did them and when.

    Without pairs of a kind, its share is None.

    Attributes:
        adjacent: of one user, one directly after the other.
        far: of one user, at least half of the history's length apart.
        strangers: of different users.
        chance: of any two behaviours, Σ_k share_k².
    """

    adjacent: float | None
    far: float | None
    strangers: float | None
    chance: float | None


@dataclass(frozen=True)
class PurityOfInterests:
    """Share of pairs of one user's behaviours at one center, where the true interests are known.

    Attributes:
        same: pairs with the same interest.
        different: pairs with different interests.
    """

    same: float | None
    different: float | None


@dataclass(frozen=True)
class EffectiveInterests:
    """The exponential of the entropy of the shares of centers: how many of them are in use.

    Attributes:
        of_user: of the shares of one user's behaviours, mean over the users with behaviours.
        of_all: of the shares of all behaviours.
    """

    of_user: float
    of_all: float


def hardened(weight_BNK: Tensor) -> Tensor:
    """Weight 1 for the center with the largest weight, 0 for the others; all 0 at padding."""
    nearest_BN = weight_BNK.argmax(dim=-1)
    one_hot_BNK = functional.one_hot(nearest_BN, weight_BNK.shape[-1]).to(weight_BNK.dtype)
    return one_hot_BNK * (weight_BNK > 0).any(dim=-1, keepdim=True)


def purity(weight_BNK: Tensor, mask_BN: Tensor) -> Purity:
    """Purity over time: do behaviours of one user meet at a center more often than strangers'?

    The probability that two behaviours are at one center is Σ_k of the product of their weights.

    Args:
        weight_BNK: weights of behaviours for centers, with sum 1 over the centers.
        mask_BN: True at real behaviours; padding comes last.
    """
    users, N, K = weight_BNK.shape
    adjacent = far = adjacent_pairs = far_pairs = torch.zeros((), dtype=torch.double)
    of_user_BK = torch.zeros(users, K, dtype=torch.double)
    for some in torch.arange(users).split(USERS_AT_ONCE):
        weight_bNK = weight_BNK[some].double() * mask_BN[some][..., None]
        length_b = mask_BN[some].sum(dim=1)
        of_user_BK[some] = weight_bNK.sum(dim=1)
        adjacent = adjacent + (weight_bNK[:, :-1] * weight_bNK[:, 1:]).sum()
        adjacent_pairs = adjacent_pairs + (length_b - 1).clamp(min=0).sum()
        # Step t with all steps from t + ⌈n/2⌉ on, whose weights' sum is a suffix sum.
        suffix_bNK = functional.pad(weight_bNK.flip(1).cumsum(1).flip(1), (0, 0, 0, 1))
        apart_b = ((length_b + 1) // 2).clamp(min=1)
        from_bN = (torch.arange(N) + apart_b[:, None]).clamp(max=N)
        later_bNK = suffix_bNK.gather(1, from_bN[..., None].expand_as(weight_bNK))
        far = far + (weight_bNK * later_bNK).sum()
        far_pairs = far_pairs + (length_b[:, None] - from_bN).clamp(min=0).sum()
    # Pairs of different users: all ordered pairs, without those within a user.
    length_B = mask_BN.sum(dim=1)
    total_K = of_user_BK.sum(dim=0)
    strangers = total_K.square().sum() - of_user_BK.square().sum()
    strangers_pairs = length_B.sum() ** 2 - length_B.square().sum()
    return Purity(
        _ratio(adjacent, adjacent_pairs),
        _ratio(far, far_pairs),
        _ratio(strangers, strangers_pairs),
        _ratio(total_K.square().sum(), length_B.sum() ** 2),
    )


def purity_of_interests(
    weight_BNK: Tensor, mask_BN: Tensor, interest_BN: Tensor
) -> PurityOfInterests:
    """As `purity`, where it is known which interest each behaviour serves.

    Args:
        weight_BNK: weights of behaviours for centers, with sum 1 over the centers.
        mask_BN: True at real behaviours.
        interest_BN: number of the interest; negative: none or unknown, which is left out.
    """
    sums = torch.zeros(2, dtype=torch.double)
    pairs = torch.zeros(2, dtype=torch.double)
    for some in torch.arange(len(mask_BN)).split(USERS_AT_ONCE):
        interest_bN = interest_BN[some]
        real_bN = mask_BN[some] & (interest_bN >= 0)
        # Each pair of different steps once.
        pair_bNN = (real_bN[:, :, None] & real_bN[:, None]).triu(diagonal=1)
        same_bNN = interest_bN[:, :, None] == interest_bN[:, None]
        weight_bNK = weight_BNK[some].double()
        together_bNN = weight_bNK @ weight_bNK.transpose(1, 2)
        for kind, chosen_bNN in enumerate((pair_bNN & same_bNN, pair_bNN & ~same_bNN)):
            sums[kind] += together_bNN[chosen_bNN].sum()
            pairs[kind] += chosen_bNN.sum()
    return PurityOfInterests(_ratio(sums[0], pairs[0]), _ratio(sums[1], pairs[1]))


def effective_interests(weight_BNK: Tensor, mask_BN: Tensor) -> EffectiveInterests:
    """How many centers a user has on average, and how many all users together."""
    weight_BNK = weight_BNK.double() * mask_BN[..., None]
    of_user_BK = weight_BNK.sum(dim=1)[mask_BN.any(dim=1)]
    return EffectiveInterests(
        float(_effective(of_user_BK).mean()), float(_effective(of_user_BK.sum(dim=0)))
    )


def _effective(mass_xK: Tensor) -> Tensor:
    share_xK = mass_xK / mass_xK.sum(dim=-1, keepdim=True)
    return torch.exp(-torch.special.xlogy(share_xK, share_xK).sum(dim=-1))


def _ratio(part: Tensor, whole: Tensor) -> float | None:
    return float(part) / float(whole) if float(whole) > 0 else None


@dataclass(frozen=True)
class CenterMeasures:
    """What a set of centers is worth, on the sample's first users.

    Purity and effective interests are those of the nearest centers, not of P.

    Attributes:
        interests: K.
        converged: whether Alg. 1 stopped because L_E no longer improved.
        steps: of Alg. 1.
        replaced: collapsed centers that were replaced.
        L_E: loss at the end, in nats, on the users on whom Alg. 1 evaluates it.
        L_SE: entropy of P of single behaviours, at the end (eq. 2).
        L_ME: entropy of q, at the end (eq. 1).
        L_E_at_start: loss of the initial centers.
        L_SE_at_start: as L_SE, of the initial centers.
        L_ME_at_start: as L_ME, of the initial centers.
        largest_entropy: the maximum of L_SE and of L_ME, log(K) / K.
        empty: centers that are the nearest of no behaviour.
        duplicates: other centers, at nearly the same place as another.
        purity_adjacent: share of pairs at one center, for behaviours one after the other.
        purity_far: the same for behaviours of one user that are far apart in time.
        purity_strangers: the same for behaviours of different users.
        purity_chance: the same for any two behaviours.
        interests_of_user: effective number of centers of a user, mean over users.
        interests_of_all: effective number of centers of all users together.
        norm: mean length of a center, as a multiple of the mean length of a behaviour in E.
        largest_share: mean over behaviours of the largest P.
        behaviour_share: share of behaviours by center.
    """

    interests: int
    converged: bool
    steps: int
    replaced: int
    L_E: float
    L_SE: float
    L_ME: float
    L_E_at_start: float
    L_SE_at_start: float
    L_ME_at_start: float
    largest_entropy: float
    empty: int
    duplicates: int
    purity_adjacent: float | None
    purity_far: float | None
    purity_strangers: float | None
    purity_chance: float | None
    interests_of_user: float
    interests_of_all: float
    norm: float
    largest_share: float
    behaviour_share: tuple[float, ...]

    def __str__(self) -> str:
        pairs = (self.purity_adjacent, self.purity_far, self.purity_strangers)
        purity = ", ".join("–" if share is None else f"{share:.3f}" for share in pairs)
        return (
            f"{'' if self.converged else 'not '}converged after {self.steps} steps: "
            f"L_E {self.L_E:.4f}, L_SE {self.L_SE:.4f}, L_ME {self.L_ME:.4f} of at most "
            f"{self.largest_entropy:.4f}; purity of adjacent, far and strangers' behaviours "
            f"{purity}; effective interests {self.interests_of_user:.1f} of a user, "
            f"{self.interests_of_all:.1f} of all; largest share {self.largest_share:.3f}, "
            f"norm {self.norm:.2f}"
        )


@torch.no_grad()
def measure(learnt: LearntCenters, sample: Sample) -> CenterMeasures:
    """Measure centers on the sample's first users."""
    centers_Kd = learnt.centers_Kd
    frozen_BNd, mask_BN = sample.first
    behaviours_nd = frozen_BNd[mask_BN]
    P_BNK = assignment(frozen_BNd, centers_Kd, mask_BN)
    nearest_BNK = hardened(P_BNK)
    pure = purity(nearest_BNK, mask_BN)
    effective = effective_interests(nearest_BNK, mask_BN)
    share_K = nearest_BNK.sum(dim=(0, 1)) / mask_BN.sum()
    empty_K = empty(centers_Kd, behaviours_nd)
    return CenterMeasures(
        interests=len(centers_Kd),
        converged=learnt.converged,
        steps=learnt.steps,
        replaced=learnt.replaced,
        L_E=learnt.end.L_E,
        L_SE=learnt.end.L_SE,
        L_ME=learnt.end.L_ME,
        L_E_at_start=learnt.start.L_E,
        L_SE_at_start=learnt.start.L_SE,
        L_ME_at_start=learnt.start.L_ME,
        largest_entropy=largest_entropy(len(centers_Kd)),
        empty=int(empty_K.sum()),
        duplicates=int((duplicates(centers_Kd) & ~empty_K).sum()),
        purity_adjacent=pure.adjacent,
        purity_far=pure.far,
        purity_strangers=pure.strangers,
        purity_chance=pure.chance,
        interests_of_user=effective.of_user,
        interests_of_all=effective.of_all,
        norm=float(centers_Kd.norm(dim=1).mean() / behaviours_nd.norm(dim=1).mean()),
        largest_share=float(P_BNK[mask_BN].max(dim=1).values.mean()),
        behaviour_share=tuple(round(float(share), 4) for share in share_K),
    )


HARDLY_PURER = 0.05
"""Least share of the way from strangers' purity to 1 that adjacent behaviours should reach."""
TOO_SOFT, TOO_HARD = 1.2, 0.99
"""Limits of the mean largest share: as a multiple of 1 / K, and as it is."""


def warnings(found: CenterMeasures) -> Sequence[str]:
    """What is bad about centers, and what to do about it."""
    lines = []
    if not found.converged:
        lines.append(f"Alg. 1 had not converged after {found.steps} steps; raise centers.max_steps")
    if found.empty or found.duplicates:
        lines.append(
            f"{found.empty} of {found.interests} are empty and {found.duplicates} are duplicates, "
            f"after {found.replaced} replacements; fewer interests may be enough for these data"
        )
    if found.interests == 1:
        return lines
    adjacent, strangers = found.purity_adjacent, found.purity_strangers
    if (
        adjacent is not None
        and strangers is not None
        and adjacent - strangers < HARDLY_PURER * (1 - strangers)
    ):
        lines.append(
            f"{100 * adjacent:.1f} % of pairs of a user's successive behaviours are at one "
            f"center, of strangers' behaviours {100 * strangers:.1f} %: E does not know what "
            "belongs together; see the measures of E, and give pretraining more days"
        )
    if found.largest_share < TOO_SOFT / found.interests:
        lines.append(
            f"the mean largest share of P is {found.largest_share:.3f}, nearly "
            f"1 / {found.interests}: every behaviour belongs to every center; raise the model's "
            "centers_norm"
        )
    if found.largest_share > TOO_HARD:
        lines.append(
            f"the mean largest share of P is {found.largest_share:.4f}: P is too hard for the "
            "centers to be trained further; set the model's centers_norm to 1"
        )
    return lines
