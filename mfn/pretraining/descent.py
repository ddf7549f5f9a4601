"""Alg. 1 of the paper: interest centers by gradient descent on L_E, and repair of collapsed ones.

A center is collapsed if it is empty (it is the nearest center of no behaviour) or a duplicate (its
distance to an earlier center is under 5 % of the centers' mean length). A collapsed center has no
use. It is moved to the behaviour that is farthest from all other centers and gets their mean
length; then the descent continues. This is repeated at most `MAX_REPLACEMENTS` times; the number
of centers that are collapsed at the end is reported. With fewer distinct behaviours than centers,
some centers always collapse.

Legend: B users of a mini-batch, U users of the sample, N history steps, n behaviours, K centers,
d width of an item vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from mfn.engine.adam import Adam
from mfn.engine.progress import Progress
from mfn.indices import PADDING
from mfn.models.embedding import ItemEncoder
from mfn.models.entropies import Marginal, assignment, entropies
from mfn.models.settings import Centers
from mfn.settings import CenterSettings

MAX_REPLACEMENTS = 3
MAX_USERS = 4096
"""Maximum number of users on whom centers are evaluated."""
EVALUATE_EVERY_STEPS = 10
DUPLICATE_DISTANCE = 0.05
"""Two centers closer than this share of the mean length are duplicates."""


@dataclass(frozen=True)
class Sample:
    """Histories of users, with their vectors in E at one level."""

    encoder: ItemEncoder
    level: str
    history_UN: Tensor

    def take(self, users_B: Tensor) -> tuple[Tensor, Tensor]:
        """E of these users' behaviours, [B, N, d], and the mask of real steps, [B, N]."""
        history_BN = self.history_UN[users_B]
        items, inverse_BN = torch.unique(history_BN, return_inverse=True)
        vectors = self.encoder.frozen_vectors(items)[self.level]
        return vectors[inverse_BN], history_BN != PADDING

    def draw(self, users: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """`take` of a uniform random sample of users."""
        return self.take(torch.randint(len(self.history_UN), (users,), generator=random))

    @property
    def first_users(self) -> Tensor:
        """The users on whom centers are evaluated, always the same."""
        return torch.arange(min(len(self.history_UN), MAX_USERS))

    @cached_property
    def first(self) -> tuple[Tensor, Tensor]:
        """`take` of the first users; encoded once, as it is used for every evaluation."""
        return self.take(self.first_users)


@dataclass(frozen=True)
class LearntCenters:
    """Centers [K, d], the number of steps, and the number of collapsed centers replaced."""

    centers_Kd: Tensor
    steps: int
    replaced: int


def learn(sample: Sample, wanted: Centers, settings: CenterSettings, name: str) -> LearntCenters:
    """Alg. 1: K centers, initialised by k-means++ on E, by gradient descent on L_E."""
    random = torch.Generator().manual_seed(settings.seed)
    frozen_BNd, mask_BN = sample.draw(settings.batch_users, random)
    centers_Kd = start(frozen_BNd[mask_BN], wanted.interests, settings.seed)
    frozen_BNd, mask_BN = sample.first
    behaviours_nd = frozen_BNd[mask_BN]
    steps = replaced = 0
    for replacement in range(MAX_REPLACEMENTS + 1):
        centers_Kd, done = descend(centers_Kd, sample, wanted, settings, random, name)
        steps += done
        to_replace = collapsed(centers_Kd, behaviours_nd)
        if not to_replace or replacement == MAX_REPLACEMENTS:
            break
        centers_Kd = replace(centers_Kd, to_replace, behaviours_nd)
        replaced += len(to_replace)
    return LearntCenters(centers_Kd, steps, replaced)


def descend(
    centers_Kd: Tensor,
    sample: Sample,
    wanted: Centers,
    settings: CenterSettings,
    random: torch.Generator,
    name: str,
) -> tuple[Tensor, int]:
    """Gradient descent on L_E, until max_steps or until L_E improves less than min_progress.

    Returns:
        the centers, and the number of steps.
    """
    frozen_BNd, mask_BN = sample.first

    def evaluate() -> float:
        with torch.no_grad():
            P_BNK = assignment(frozen_BNd, centers_Kd, mask_BN)
            return float(entropies(P_BNK, mask_BN, wanted.marginal).loss)

    centers_Kd = nn.Parameter(centers_Kd.clone())
    length = None
    if wanted.norm is not None:
        length = wanted.norm * float(frozen_BNd[mask_BN].norm(dim=1).mean())
    hold(centers_Kd, length)
    optimizer = Adam([centers_Kd], [], settings.learning_rate)
    before = evaluate()
    with Progress(f"centers {name}", settings.max_steps, shown=True) as progress:
        for step in range(1, settings.max_steps + 1):
            drawn_BNd, drawn_mask_BN = sample.draw(settings.batch_users, random)
            P_BNK = assignment(drawn_BNd, centers_Kd, drawn_mask_BN)
            loss = entropies(P_BNK, drawn_mask_BN, wanted.marginal).loss
            (centers_Kd.grad,) = torch.autograd.grad(loss, centers_Kd)
            optimizer.step()
            hold(centers_Kd, length)
            progress.advance(f"L_E {float(loss.detach()):.4f}")
            if step % EVALUATE_EVERY_STEPS == 0:
                now = evaluate()
                if before - now < settings.min_progress:
                    break
                before = now
    return centers_Kd.detach(), step


@torch.no_grad()
def hold(centers_Kd: Tensor, length: float | None) -> None:
    """Give every center this length; None: leave it as it is."""
    if length is not None:
        centers_Kd.mul_(length / centers_Kd.norm(dim=1, keepdim=True).clamp(min=1e-12))


def collapsed(centers_Kd: Tensor, behaviours_nd: Tensor) -> list[int]:
    """The centers that are empty, or duplicates of an earlier center."""
    share_K = torch.bincount(nearest(centers_Kd, behaviours_nd), minlength=len(centers_Kd))
    close_KK = (
        torch.cdist(centers_Kd, centers_Kd) < DUPLICATE_DISTANCE * centers_Kd.norm(dim=1).mean()
    )
    duplicate_K = close_KK.tril(diagonal=-1).any(dim=1)
    return torch.nonzero((share_K == 0) | duplicate_K).flatten().tolist()


def replace(centers_Kd: Tensor, to_replace: list[int], behaviours_nd: Tensor) -> Tensor:
    """Move each collapsed center to the behaviour that is farthest from the other centers."""
    new_Kd = centers_Kd.clone()
    kept = [center for center in range(len(centers_Kd)) if center not in to_replace]
    if not kept:  # all centers are collapsed: keep the first
        kept, to_replace = to_replace[:1], to_replace[1:]
    length = float(new_Kd[kept].norm(dim=1).mean())
    for center in to_replace:
        # Compare angles, not distances: E Cᵀ is a dot product, and the descent makes centers
        # longer than behaviours.
        cosine_nk = _unit(behaviours_nd) @ _unit(new_Kd[kept]).T
        farthest = int(cosine_nk.max(dim=1).values.argmin())
        new_Kd[center] = _unit(behaviours_nd[farthest]) * length
        kept.append(center)
    return new_Kd


def nearest(centers_Kd: Tensor, frozen: Tensor) -> Tensor:
    """The center with the largest dot product, for vectors of E, [..., d]."""
    return (frozen @ centers_Kd.T).argmax(dim=-1)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def start(behaviours_nd: Tensor, interests: int, seed: int) -> Tensor:
    """K behaviours that lie far apart (k-means++); repeated if there are fewer than K."""
    from sklearn.cluster import kmeans_plusplus  # here, because the import takes 2 s

    count = min(interests, len(behaviours_nd))
    chosen, _ = kmeans_plusplus(behaviours_nd.numpy(), count, random_state=seed)
    repeated = [center % count for center in range(interests)]
    return torch.from_numpy(chosen[repeated].copy())


@torch.no_grad()
def describe(
    learnt: LearntCenters, sample: Sample, marginal: Marginal
) -> dict[str, float | list[float]]:
    """Statistics of the centers, evaluated on the sample's first users."""
    centers_Kd = learnt.centers_Kd
    frozen_BNd, mask_BN = sample.first
    P_BNK = assignment(frozen_BNd, centers_Kd, mask_BN)
    found = entropies(P_BNK, mask_BN, marginal)
    P_nK = P_BNK[mask_BN]
    share_K = torch.bincount(P_nK.argmax(dim=1), minlength=len(centers_Kd)) / len(P_nK)
    return {
        "L_E": float(found.loss),
        "L_SE": float(found.single),
        "L_ME": float(found.marginal),
        "behaviour_share": [round(float(share), 4) for share in share_K],
        "empty": int((share_K == 0).sum()),
        "collapsed": len(collapsed(centers_Kd, frozen_BNd[mask_BN])),
        "replaced": learnt.replaced,
        "steps": learnt.steps,
        "norm": float(centers_Kd.norm(dim=1).mean()),
        "mean_largest_share": float(P_nK.max(dim=1).values.mean()),
    }
