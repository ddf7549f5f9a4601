"""Alg. 1 of the paper: interest centers by gradient descent on L_E, and repair of collapsed ones.

L_E falls in two ways: if the centers point where the behaviours are, and if they grow, which makes
P hard. Only the first is worth something, and the second is easier. So the length of the centers is
held (`Centers.norm`), and the gradient is taken with respect to their direction alone. It is not
enough to set the length back after each step: most of each step would be spent on it.

The descent has converged when L_E, evaluated on always the same users, has stopped to improve. The
centers with the lowest evaluated L_E are kept.

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

import logging
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfn.engine.adam import Adam
from mfn.engine.progress import Progress
from mfn.indices import PADDING
from mfn.models.embedding import ItemEncoder
from mfn.models.entropies import Entropies, assignment, entropies
from mfn.models.settings import Centers
from mfn.settings import CenterSettings

log = logging.getLogger("mfn")

MAX_REPLACEMENTS = 3
MAX_USERS = 4096
"""Maximum number of users on whom centers are described."""
MAX_EVALUATED = 1024
"""Maximum number of users on whom L_E is evaluated during the descent."""
EVALUATE_EVERY_STEPS = 10
PATIENCE_STEPS = 50
"""The descent has converged if L_E improves too little over this many steps."""
LOG_EVERY_STEPS = 100
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
        """The users on whom centers are described, always the same."""
        return torch.arange(min(len(self.history_UN), MAX_USERS))

    @cached_property
    def first(self) -> tuple[Tensor, Tensor]:
        """`take` of the first users; encoded once."""
        return self.take(self.first_users)

    @property
    def evaluated(self) -> tuple[Tensor, Tensor]:
        """The part of `first` on which L_E is evaluated during the descent."""
        frozen_BNd, mask_BN = self.first
        return frozen_BNd[:MAX_EVALUATED], mask_BN[:MAX_EVALUATED]


@dataclass(frozen=True)
class Losses:
    """L_E, L_SE and L_ME in nats (eq. 1 to 3)."""

    L_E: float
    L_SE: float
    L_ME: float

    @classmethod
    def of(cls, found: Entropies) -> Losses:
        """As numbers."""
        return cls(float(found.loss), float(found.single), float(found.marginal))

    def __str__(self) -> str:
        return f"L_E {self.L_E:.4f}, L_SE {self.L_SE:.4f}, L_ME {self.L_ME:.4f}"


@dataclass(frozen=True)
class LearntCenters:
    """Centers, and how they were learnt.

    Attributes:
        centers_Kd: [K, d].
        start: the losses of the initial centers, on the users of `Sample.evaluated`.
        end: the losses of these centers on the same users.
        steps: number of steps, over all descents.
        converged: whether the last descent stopped because L_E no longer improved.
        replaced: number of collapsed centers that were replaced.
    """

    centers_Kd: Tensor
    start: Losses
    end: Losses
    steps: int
    converged: bool
    replaced: int = 0


def learn(sample: Sample, wanted: Centers, settings: CenterSettings, name: str) -> LearntCenters:
    """Alg. 1: K centers, initialised by k-means++ on E, by gradient descent on L_E."""
    random = torch.Generator().manual_seed(settings.seed)
    frozen_BNd, mask_BN = sample.draw(settings.batch_users, random)
    centers_Kd = start(frozen_BNd[mask_BN], wanted.interests, settings.seed)
    frozen_BNd, mask_BN = sample.first
    behaviours_nd = frozen_BNd[mask_BN]
    learnt = descend(centers_Kd, sample, wanted, settings, random, name)
    for _ in range(MAX_REPLACEMENTS):
        to_replace = collapsed(learnt.centers_Kd, behaviours_nd)
        if not to_replace:
            break
        repaired_Kd = replace(learnt.centers_Kd, to_replace, behaviours_nd)
        again = descend(repaired_Kd, sample, wanted, settings, random, name)
        learnt = LearntCenters(
            again.centers_Kd,
            learnt.start,
            again.end,
            learnt.steps + again.steps,
            again.converged,
            learnt.replaced + len(to_replace),
        )
    return learnt


def descend(
    initial_Kd: Tensor,
    sample: Sample,
    wanted: Centers,
    settings: CenterSettings,
    random: torch.Generator,
    name: str,
) -> LearntCenters:
    """Gradient descent on L_E, until it has converged or for max_steps.

    It has converged if `PATIENCE_STEPS` steps improve the evaluated L_E by at most min_progress of
    log(K) / K, the maximum of either entropy.
    """
    frozen_BNd, mask_BN = sample.evaluated
    length = None
    if wanted.norm is not None:
        length = wanted.norm * float(frozen_BNd[mask_BN].norm(dim=1).mean())

    def evaluate(centers_Kd: Tensor) -> Losses:
        P_BNK = assignment(frozen_BNd, centers_Kd, mask_BN)
        return Losses.of(entropies(P_BNK, mask_BN, wanted.marginal))

    free_Kd = nn.Parameter(at_length(initial_Kd, length).clone())
    optimizer = Adam([free_Kd], [], settings.learning_rate)
    least_progress = settings.min_progress * largest_entropy(wanted.interests)
    best_Kd = free_Kd.detach().clone()
    start = end = evaluate(best_Kd)
    # The lowest evaluated L_E so far, after each evaluation.
    lowest = [start.L_E]
    patience = PATIENCE_STEPS // EVALUATE_EVERY_STEPS
    converged = False
    step = 0
    log.info("centers %s: at the start, %s", name, start)
    with Progress(f"centers {name}", settings.max_steps, shown=True) as progress:
        while step < settings.max_steps and not converged:
            step += 1
            drawn_BNd, drawn_mask_BN = sample.draw(settings.batch_users, random)
            P_BNK = assignment(drawn_BNd, at_length(free_Kd, length), drawn_mask_BN)
            loss = entropies(P_BNK, drawn_mask_BN, wanted.marginal).loss
            (free_Kd.grad,) = torch.autograd.grad(loss, free_Kd)
            optimizer.step()
            with torch.no_grad():  # the same direction; keeps the steps' size relative to it
                free_Kd.copy_(at_length(free_Kd, length))
            progress.advance(f"L_E {float(loss.detach()):.4f}")
            if step % EVALUATE_EVERY_STEPS == 0 or step == settings.max_steps:
                now = evaluate(free_Kd.detach())
                if now.L_E < end.L_E:
                    best_Kd, end = free_Kd.detach().clone(), now
                lowest.append(end.L_E)
                gained = lowest[-1 - patience] - end.L_E if len(lowest) > patience else math.inf
                converged = gained <= least_progress
                if step % LOG_EVERY_STEPS == 0:
                    log.info("centers %s: after %d steps, %s", name, step, now)
    return LearntCenters(best_Kd, start, end, step, converged)


def largest_entropy(interests: int) -> float:
    """The maximum of L_SE and of L_ME: log(K) / K, in nats."""
    return math.log(interests) / interests


def at_length(free_Kd: Tensor, length: float | None) -> Tensor:
    """The centers with this length; None: as they are."""
    if length is None:
        return free_Kd
    return functional.normalize(free_Kd, dim=1) * length


def collapsed(centers_Kd: Tensor, behaviours_nd: Tensor) -> list[int]:
    """The centers that are empty, or duplicates of an earlier center."""
    useless_K = empty(centers_Kd, behaviours_nd) | duplicates(centers_Kd)
    return torch.nonzero(useless_K).flatten().tolist()


def empty(centers_Kd: Tensor, behaviours_nd: Tensor) -> Tensor:
    """Which centers are the nearest of no behaviour, [K]."""
    return torch.bincount(nearest(centers_Kd, behaviours_nd), minlength=len(centers_Kd)) == 0


def duplicates(centers_Kd: Tensor) -> Tensor:
    """Which centers are at nearly the same place as an earlier one, [K]."""
    limit = DUPLICATE_DISTANCE * centers_Kd.norm(dim=1).mean()
    close_KK = torch.cdist(centers_Kd, centers_Kd) < limit
    found_K: Tensor = close_KK.tril(diagonal=-1).any(dim=1)
    return found_K


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
        cosine_nk = functional.normalize(behaviours_nd) @ functional.normalize(new_Kd[kept]).T
        farthest = int(cosine_nk.max(dim=1).values.argmin())
        new_Kd[center] = functional.normalize(behaviours_nd[farthest], dim=0) * length
        kept.append(center)
    return new_Kd


def nearest(centers_Kd: Tensor, frozen: Tensor) -> Tensor:
    """The center with the largest dot product, for vectors of E, [..., d]."""
    return (frozen @ centers_Kd.T).argmax(dim=-1)


def start(behaviours_nd: Tensor, interests: int, seed: int) -> Tensor:
    """K behaviours that lie far apart (k-means++); repeated if there are fewer than K."""
    from sklearn.cluster import kmeans_plusplus  # here, because the import takes 2 s

    count = min(interests, len(behaviours_nd))
    chosen, _ = kmeans_plusplus(behaviours_nd.numpy(), count, random_state=seed)
    repeated = [center % count for center in range(interests)]
    return torch.from_numpy(chosen[repeated].copy())
