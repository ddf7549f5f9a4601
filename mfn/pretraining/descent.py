"""Alg. 1 of the paper: interest centers by gradient descent on L_E, and what becomes of idle ones.

**Collapsed centers.** A center is empty where no behaviour is nearer to it than to the others, and
doubled where it lies within a twentieth of the centers' mean length of an earlier one. Such a one
says nothing: it is put on the behaviour that is farthest from all others, made as long as they are
on average, and the descent goes on. That is done at most `MENDINGS` times; what is collapsed then
is reported. Of fewer different behaviours than centers some must be.

Legend: B users of a mini-batch, U users of the sample, N history steps, n behaviours, K centers,
d width of an item's vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mfn.engine.progress import Progress
from mfn.indices import PADDING
from mfn.models.centers import Marginal, assignment, entropies
from mfn.models.embedding import ItemEncoder
from mfn.settings import CenterSettings

MENDINGS = 3
MOST_USERS = 4096
"""Users over whom centers are looked at."""
STEPS_BETWEEN_LOOKS = 10
NEAR = 0.05
"""Share of the centers' mean length within which two are one."""


@dataclass(frozen=True)
class Sample:
    """Histories of users, to be seen through E at one level."""

    encoder: ItemEncoder
    level: str
    history_UN: Tensor

    def take(self, users_B: Tensor) -> tuple[Tensor, Tensor]:
        """E of these users' behaviours, [B, N, d], and which steps are real, [B, N]."""
        history_BN = self.history_UN[users_B]
        items, inverse_BN = torch.unique(history_BN, return_inverse=True)
        vectors = self.encoder.frozen_vectors(items)[self.level]
        return vectors[inverse_BN], history_BN != PADDING

    def draw(self, users: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """A uniform sample of users."""
        return self.take(torch.randint(len(self.history_UN), (users,), generator=random))

    @property
    def first_users(self) -> Tensor:
        """Those over whom centers are looked at, the same each time."""
        return torch.arange(min(len(self.history_UN), MOST_USERS))

    @cached_property
    def first(self) -> tuple[Tensor, Tensor]:
        """`take` of these users, encoded once however often centers are looked at."""
        return self.take(self.first_users)


@dataclass(frozen=True)
class Learnt:
    """Centers [K, d], the steps that they took, and how many collapsed ones were replaced."""

    centers_Kd: Tensor
    steps: int
    replaced: int


def learn(sample: Sample, interests: int, settings: CenterSettings, name: str) -> Learnt:
    """Alg. 1: K centers from k-means++ on E by gradient descent on L_E."""
    random = torch.Generator().manual_seed(settings.seed)
    frozen_BNd, mask_BN = sample.draw(settings.batch_users, random)
    centers_Kd = start(frozen_BNd[mask_BN], interests, settings.seed)
    frozen_BNd, mask_BN = sample.first
    behaviours_nd = frozen_BNd[mask_BN]
    steps = replaced = 0
    for mending in range(MENDINGS + 1):
        centers_Kd, taken = descend(centers_Kd, sample, settings, random, name)
        steps += taken
        idle = collapsed(centers_Kd, behaviours_nd)
        if not idle or mending == MENDINGS:
            break
        centers_Kd = mend(centers_Kd, idle, behaviours_nd)
        replaced += len(idle)
    return Learnt(centers_Kd, steps, replaced)


def descend(
    centers_Kd: Tensor,
    sample: Sample,
    settings: CenterSettings,
    random: torch.Generator,
    name: str,
) -> tuple[Tensor, int]:
    """Steps down L_E, at most those of the settings, fewer if it makes no more progress.

    Returns:
        the centers, and how many steps were taken.
    """
    frozen_BNd, mask_BN = sample.first

    def look() -> float:
        with torch.no_grad():
            P_BNK = assignment(frozen_BNd, centers_Kd, mask_BN)
            return float(entropies(P_BNK, mask_BN, settings.marginal).loss)

    centers_Kd = centers_Kd.clone().requires_grad_()
    before = look()
    with Progress(f"centers {name}", settings.max_steps, shown=True) as progress:
        for step in range(1, settings.max_steps + 1):
            drawn_BNd, drawn_mask_BN = sample.draw(settings.batch_users, random)
            P_BNK = assignment(drawn_BNd, centers_Kd, drawn_mask_BN)
            loss = entropies(P_BNK, drawn_mask_BN, settings.marginal).loss
            (gradient_Kd,) = torch.autograd.grad(loss, centers_Kd)
            with torch.no_grad():
                centers_Kd.sub_(gradient_Kd, alpha=settings.learning_rate)
            progress.advance(f"L_E {float(loss.detach()):.4f}")
            if step % STEPS_BETWEEN_LOOKS == 0:
                now = look()
                if before - now < settings.min_progress:
                    break
                before = now
    return centers_Kd.detach(), step


def collapsed(centers_Kd: Tensor, behaviours_nd: Tensor) -> list[int]:
    """Centers that are empty, or double one before them."""
    share_K = torch.bincount(nearest(centers_Kd, behaviours_nd), minlength=len(centers_Kd))
    near_KK = torch.cdist(centers_Kd, centers_Kd) < NEAR * centers_Kd.norm(dim=1).mean()
    doubled_K = near_KK.tril(diagonal=-1).any(dim=1)
    return torch.nonzero((share_K == 0) | doubled_K).flatten().tolist()


def mend(centers_Kd: Tensor, idle: list[int], behaviours_nd: Tensor) -> Tensor:
    """Centers with the idle ones put where behaviours are farthest from the others."""
    mended_Kd = centers_Kd.clone()
    kept = [place for place in range(len(centers_Kd)) if place not in idle]
    if not kept:  # all are one: the first stays
        kept, idle = idle[:1], idle[1:]
    length = float(mended_Kd[kept].norm(dim=1).mean())
    for place in idle:
        # By angle, as E Cᵀ sees it: centers are longer than behaviours once they have moved.
        angle_nk = _unit(behaviours_nd) @ _unit(mended_Kd[kept]).T
        farthest = int(angle_nk.max(dim=1).values.argmin())
        mended_Kd[place] = _unit(behaviours_nd[farthest]) * length
        kept.append(place)
    return mended_Kd


def nearest(centers_Kd: Tensor, frozen: Tensor) -> Tensor:
    """The center that each behaviour belongs to most, of E [..., d]."""
    return (frozen @ centers_Kd.T).argmax(dim=-1)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def start(behaviours_nd: Tensor, interests: int, seed: int) -> Tensor:
    """K behaviours that lie far apart (k-means++); fewer distinct ones are drawn again."""
    from sklearn.cluster import kmeans_plusplus  # 2 s that only a day with new centers waits for

    count = min(interests, len(behaviours_nd))
    chosen, _ = kmeans_plusplus(behaviours_nd.numpy(), count, random_state=seed)
    again = [place % count for place in range(interests)]
    return torch.from_numpy(chosen[again].copy())


@torch.no_grad()
def describe(learnt: Learnt, sample: Sample, marginal: Marginal) -> dict[str, float | list[float]]:
    """What the centers are worth, over the sample's first users."""
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
