"""One model, some epochs of a split: the training loop, the same for every model and worker."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mfn.models.batch import Batch
from mfn.models.ranker import Ranker
from mfn.training.feed import Feed
from mfn.training.plan import SplitFile, shards, steps
from mfn.training.progress import Progress
from mfn.training.workers import Workers


class TrainingFailed(RuntimeError):
    """The loss is no number any more; the message says at which step."""


@dataclass(frozen=True)
class Schedule:
    """How a model is trained, whatever it is trained for."""

    learning_rate: float
    batch_requests: int
    seed: int
    date: str


@dataclass(frozen=True)
class Account:
    """What a training did and cost, over all workers; shares are of its seconds on worker 0."""

    steps: int
    requests: int
    candidates: int
    loss: float
    seconds: float
    candidates_per_second: float
    wait_share: float
    communication_share: float


class Trainer:
    """A model with its optimizers: Adam for dense parameters, its sparse form for embeddings.

    Both are the paper's Adam; the sparse form updates, and pays for, only the rows that a step
    has touched.
    """

    def __init__(self, model: Ranker, schedule: Schedule, workers: Workers) -> None:
        self.model, self.schedule, self.workers = model, schedule, workers
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        table = model.embedding.weight
        dense = [p for p in self.parameters if p is not table]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Adam(dense, lr=schedule.learning_rate),
            torch.optim.SparseAdam([table], lr=schedule.learning_rate),
        )
        self.feed = Feed(
            user_fields=len(model.features.user_fields),
            context_fields=len(model.features.context_fields),
        )
        workers.same_start(model)

    def epoch(self, files: Sequence[SplitFile], number: int, name: str) -> Account:
        """One pass over the files, shared among the workers.

        All workers take the same number of steps, agreed on beforehand; one that runs out of rows
        takes them with batches of weight 0.

        Raises:
            TrainingFailed: the loss is NaN or infinite.
            RowsLost: a file gave other rows than its footer promises.
        """
        workers, schedule = self.workers, self.schedule
        dealt = shards(files, schedule.date, number, workers.size, schedule.seed)
        total_steps = steps(dealt, schedule.batch_requests)
        batches = self.feed.epoch(dealt[workers.rank], schedule.batch_requests)
        waited, talked = self.feed.wait_seconds, workers.communication_seconds
        start = time.perf_counter()
        loss, candidates, requests = 0.0, 0, 0
        self.model.train()
        with Progress(f"{name} epoch {number + 1}", total_steps, workers.rank == 0) as progress:
            for step in range(total_steps):
                batch = next(batches, None)
                step_loss, step_candidates = self._step(batch, name, step)
                loss += step_loss
                candidates += step_candidates
                requests += 0 if batch is None else len(batch)
                speed = candidates * workers.size / (time.perf_counter() - start)
                progress.advance(f"loss {loss / max(candidates, 1):.4f}, {speed:,.0f} candidates/s")
        if next(batches, None) is not None:
            raise RuntimeError(f"{name}: rows are left after the {total_steps} steps agreed on")
        seconds = time.perf_counter() - start
        sums = workers.sum([loss, candidates, requests])
        return Account(
            steps=total_steps,
            requests=round(sums[2]),
            candidates=round(sums[1]),
            loss=sums[0] / max(sums[1], 1),
            seconds=seconds,
            candidates_per_second=sums[1] / seconds,
            wait_share=(self.feed.wait_seconds - waited) / seconds,
            communication_share=(workers.communication_seconds - talked) / seconds,
        )

    def _step(self, batch: Batch | None, name: str, step: int) -> tuple[float, int]:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        if batch is not None:
            loss, weight = self.model.loss(batch), int(batch.candidate_count_B.sum())
        else:
            # Out of rows: the others wait for this worker's gradients, so it sends zeros.
            loss, weight = self.model.loss(_nothing(self.model)) * 0, 0
        loss.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingFailed(
                f"{name}: the loss is {value} at step {step} on worker {self.workers.rank}; try a "
                f"lower train.learning_rate than {self.schedule.learning_rate}"
            )
        self.workers.average_gradients(self.parameters, weight)
        for optimizer in self.optimizers:
            optimizer.step()
        return value, weight

    @torch.no_grad()
    def log_loss(self, files: Sequence[SplitFile]) -> float:
        """Mean binary cross entropy in nats over the files, shared among the workers."""
        dealt = shards(files, self.schedule.date, 0, self.workers.size, self.schedule.seed)
        self.model.eval()
        loss, candidates = 0.0, 0
        for batch in self.feed.epoch(dealt[self.workers.rank], self.schedule.batch_requests):
            loss += float(self.model.loss(batch))
            candidates += int(batch.candidate_count_B.sum())
        total_loss, total_candidates = self.workers.sum([loss, candidates])
        return total_loss / total_candidates


def _nothing(model: Ranker) -> Batch:
    """One request without behaviours, and one candidate that is padding."""
    one = torch.zeros(1, dtype=torch.long)
    return Batch(
        history_BN=one[:, None],
        history_length_B=one,
        candidates_BM=one[:, None],
        candidate_count_B=one + 1,
        labels_BM=one[:, None],
        user_fields_BP=torch.zeros(1, len(model.features.user_fields), dtype=torch.long),
        context_fields_BS=torch.zeros(1, len(model.features.context_fields), dtype=torch.long),
    )


def total(accounts: Sequence[Account]) -> Account:
    """Several epochs as one account; the loss is the last epoch's."""
    seconds = sum(one.seconds for one in accounts)
    candidates = sum(one.candidates for one in accounts)

    def share(name: str) -> float:
        return float(sum(getattr(one, name) * one.seconds for one in accounts) / seconds)

    return dataclasses.replace(
        accounts[-1],
        steps=sum(one.steps for one in accounts),
        requests=sum(one.requests for one in accounts),
        candidates=candidates,
        seconds=seconds,
        candidates_per_second=candidates / seconds,
        wait_share=share("wait_share"),
        communication_share=share("communication_share"),
    )


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers in a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
