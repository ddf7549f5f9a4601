"""One model, some epochs of a split: the training loop, the same for every model and worker."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mfn.engine.adam import Adam, AdamState
from mfn.engine.checkpoint import Checkpoints, Part, Position
from mfn.engine.events import Events
from mfn.engine.feed import Feed
from mfn.engine.plan import seed_of_step, shards, steps
from mfn.engine.progress import Progress
from mfn.engine.stats import EpochStats, TrainingStats, total, training_stats
from mfn.engine.workers import Workers
from mfn.errors import JobFailed
from mfn.models.batch import Batch
from mfn.models.embedding import ShardedTable
from mfn.models.ranker import Ranker
from mfn.splits.published import SplitFile

log = logging.getLogger("mfn")


class TrainingFailed(JobFailed):
    """The loss is no number any more; the message says at which step, and where its batch is."""


@dataclass(frozen=True)
class Schedule:
    """How a model is trained, whatever it is trained for."""

    learning_rate: float
    batch_requests: int
    seed: int
    date: str


class Trainer:
    """A model and its optimizer, the paper's Adam; a step pays for the rows that it touches."""

    def __init__(
        self, model: Ranker, schedule: Schedule, workers: Workers, events: Events | None = None
    ) -> None:
        self.model, self.schedule, self.workers, self.events = model, schedule, workers, events
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        table = model.embedding.weight
        dense = [p for p in self.parameters if p is not table]
        sharded = isinstance(model.embedding, ShardedTable)
        self.averaged, self.summed = (dense, [table]) if sharded else (self.parameters, [])
        self.optimizer = Adam(dense, [table], schedule.learning_rate)
        self.feed = Feed(
            user_fields=len(model.features.user_fields),
            context_fields=len(model.features.context_fields),
        )
        workers.broadcast(
            {
                name: tensor
                for name, tensor in model.state_dict(keep_vars=True).items()
                if not (sharded and tensor is table)
            }
        )

    def train(
        self,
        files: Sequence[SplitFile],
        epochs: int,
        name: str,
        checkpoints: Checkpoints | None = None,
    ) -> TrainingStats:
        """So many passes over the files; with checkpoints, from the newest one on.

        Raises:
            TrainingFailed, RowsLost: as `epoch`.
        """
        done: list[EpochStats] = []
        begun = EpochStats()
        table = self.model.embedding
        saved = None if checkpoints is None else checkpoints.newest(table.rank, table.workers)
        self._check_agreed(None if saved is None else saved[0])
        if saved is not None:
            position, part = saved
            self._load(part)
            done = list(position.epochs)
            if not position.epoch_ended:
                begun = done.pop()
            if self.workers.rank == 0:
                log.info("%s: goes on at step %d of epoch %d", name, begun.steps, len(done) + 1)
        for number in range(len(done), epochs):
            done.append(self._epoch(files, number, name, begun, tuple(done), checkpoints))
            begun = EpochStats()
            if checkpoints is not None and number + 1 < epochs:
                self._save(checkpoints, name, Position(tuple(done), epoch_ended=True))
        return total([training_stats(one) for one in done])

    def epoch(self, files: Sequence[SplitFile], number: int, name: str) -> TrainingStats:
        """One pass over the files, shared among the workers.

        All workers take the same number of steps, agreed on beforehand; one that runs out of rows
        takes them with batches of weight 0.

        Raises:
            TrainingFailed: the loss is NaN or infinite.
            RowsLost: a file gave other rows than its footer promises.
        """
        return training_stats(self._epoch(files, number, name, EpochStats(), (), None))

    def _epoch(
        self,
        files: Sequence[SplitFile],
        number: int,
        name: str,
        epoch: EpochStats,
        before: tuple[EpochStats, ...],
        checkpoints: Checkpoints | None,
    ) -> EpochStats:
        """From the steps of the epoch on; `before` tells the epochs that have ended."""
        workers, schedule = self.workers, self.schedule
        dealt = shards(files, schedule.date, number, workers.size, schedule.seed)
        total_steps = steps(dealt, schedule.batch_requests)
        batches = self.feed.epoch(dealt[workers.rank], schedule.batch_requests, epoch.steps)
        begun = epoch
        waited, talked = self.feed.wait_seconds, workers.communication_seconds
        start = time.perf_counter()
        self.model.train()
        title = f"{name} epoch {number + 1}"
        with Progress(title, total_steps, workers.rank == 0, begun.steps) as progress:
            for step, batch in _agreed(batches, begun.steps, total_steps):
                workers.heartbeat(f"{title}, step {step}")
                random = seed_of_step(schedule.seed, schedule.date, number, workers.rank, step)
                torch.manual_seed(random)
                due = checkpoints is not None and checkpoints.due(step + 1)
                told = self._step(batch, title, step, due, checkpoints)
                seconds = time.perf_counter() - start
                epoch = EpochStats(
                    steps=step + 1,
                    requests=epoch.requests + told.requests,
                    candidates=epoch.candidates + told.candidates,
                    loss=epoch.loss + told.loss,
                    seconds=begun.seconds + seconds,
                    wait_seconds=begun.wait_seconds + self.feed.wait_seconds - waited,
                    communication_seconds=begun.communication_seconds
                    + workers.communication_seconds
                    - talked,
                )
                if checkpoints is not None and told.save and step + 1 < total_steps:
                    self._save(checkpoints, name, Position((*before, epoch), epoch_ended=False))
                if self.events is not None:
                    self.events.step(sum(one.steps for one in before) + step + 1, epoch)
                speed = (epoch.candidates - begun.candidates) / seconds
                loss = epoch.loss / max(epoch.candidates, 1)
                progress.advance(f"loss {loss:.4f}, {speed:,.0f} candidates/s")
        return epoch

    def _step(
        self,
        batch: Batch | None,
        title: str,
        step: int,
        due: bool,
        checkpoints: Checkpoints | None,
    ) -> _StepResult:
        """One step of all workers.

        due: whether this worker asks for a checkpoint; worker 0's word counts.
        """
        workers = self.workers
        self.optimizer.zero_grad()
        if batch is not None:
            loss, weight = self.model.loss(batch), int(batch.candidate_count_B.sum())
        else:
            # Out of rows: the others wait for this worker's gradients, so it sends zeros.
            loss, weight = self.model.loss(_nothing(self.model)) * 0, 0
        loss.backward()
        value = float(loss.detach())
        kept = ""
        if not math.isfinite(value) and batch is not None and checkpoints is not None:
            kept = checkpoints.keep_batch(workers.rank, vars(batch))
        requests = 0 if batch is None else len(batch)
        asked = float(due and workers.rank == 0)
        candidates, of_all, requests_of_all, save = workers.average_gradients(
            self.averaged, weight, [value, requests, asked], self.summed
        )
        if not math.isfinite(of_all):
            # All workers see it at the same step, and before anything is changed by it.
            where = "another worker" if math.isfinite(value) else f"worker {workers.rank}"
            raise TrainingFailed(
                f"{title}: the loss is {of_all} at step {step}, of {where}"
                + (f", whose batch is kept in {kept}" if kept else "")
                + f"; try a lower train.learning_rate than {self.schedule.learning_rate}"
            )
        self.optimizer.step()
        return _StepResult(of_all, round(candidates), round(requests_of_all), save > 0)

    def _save(self, checkpoints: Checkpoints, name: str, position: Position) -> None:
        """Write a checkpoint, all workers together; not where it holds what is no number."""
        part = self._part()
        held = {**part.common, **part.rows}
        bad = [name for name, tensor in held.items() if not bool(torch.isfinite(tensor).all())]
        if self.workers.sum([len(bad)])[0]:
            raise TrainingFailed(
                f"{name}: after step {position.epochs[-1].steps} of epoch "
                f"{len(position.epochs)} {', '.join(bad) or 'what another worker holds'} holds "
                "numbers that are NaN or infinite; the checkpoints before it stay; try a lower "
                f"train.learning_rate than {self.schedule.learning_rate}"
            )
        digests = [0.0] * part.of
        if self.workers.rank < part.of:
            digests[part.place] = checkpoints.write(part, position)
        digests = self.workers.sum(digests)  # once all have written
        if self.workers.rank == 0:
            checkpoints.complete(position, [round(digest) for digest in digests])

    def _part(self) -> Part:
        """Parameters and the optimizer's state, by name, as far as this worker holds them."""
        names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}
        tensors = {f"parameter.{names[p]}": p.detach() for p in self.parameters}
        for parameter, moments in self.optimizer.state.items():
            for key, value in vars(moments).items():
                tensors[f"{key}.{names[parameter]}"] = torch.as_tensor(value)
        table = self.model.embedding
        long = {
            name
            for name, tensor in tensors.items()
            if name.endswith(f".{names[table.weight]}") and tensor.dim()
        }
        return Part(
            {name: tensor for name, tensor in tensors.items() if name not in long},
            {name: tensors[name] for name in long},
            table.rank,
            table.workers,
        )

    @torch.no_grad()
    def _load(self, part: Part) -> None:
        held: dict[str, dict[str, Tensor]] = {}
        for name, tensor in {**part.common, **part.rows}.items():
            key, _, of_name = name.partition(".")
            held.setdefault(of_name, {})[key] = tensor
        parameters = dict(self.model.named_parameters())
        for name, of_one in held.items():
            parameters[name].copy_(of_one.pop("parameter"))
            if of_one:
                self.optimizer.state[parameters[name]] = AdamState(
                    int(of_one["step"]), of_one["exp_avg"], of_one["exp_avg_sq"]
                )

    def _check_agreed(self, position: Position | None) -> None:
        """All workers go on from the same position, or none begins."""
        mine = 0.0
        if position is not None:
            mine = 1.0 + position.epochs[-1].steps + 1e9 * len(position.epochs)
        if self.workers.sum([mine])[0] != mine * self.workers.size:
            raise RuntimeError(
                f"worker {self.workers.rank} found another newest checkpoint than the others; do "
                "all workers see the same root?"
            )

    @torch.no_grad()
    def log_loss(self, files: Sequence[SplitFile]) -> float:
        """Mean binary cross entropy in nats over the files, shared among the workers."""
        dealt = shards(files, self.schedule.date, 0, self.workers.size, self.schedule.seed)
        batches = self.feed.epoch(dealt[self.workers.rank], self.schedule.batch_requests)
        self.model.eval()
        loss, candidates = 0.0, 0
        for _, batch in _agreed(batches, 0, steps(dealt, self.schedule.batch_requests)):
            if batch is None:  # out of rows: others may wait for this worker's part of the table
                self.model.look_up(_nothing(self.model))
                continue
            loss += float(self.model.loss(batch))
            candidates += int(batch.candidate_count_B.sum())
        total_loss, total_candidates = self.workers.sum([loss, candidates])
        return total_loss / total_candidates


@dataclass(frozen=True)
class _StepResult:
    """A step over all workers; the loss is a sum over candidates."""

    loss: float
    candidates: int
    requests: int
    save: bool


def _agreed(batches: Iterator[Batch], first: int, steps: int) -> Iterator[tuple[int, Batch | None]]:
    """A batch for each of the steps that the workers agreed on; None once there are no more."""
    for step in range(first, steps):
        yield step, next(batches, None)
    if next(batches, None) is not None:
        raise RuntimeError(f"rows are left after the {steps} steps that the workers agreed on")


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


def parameter_count(model: Ranker) -> int:
    """Trainable numbers in a model, those of the embedding that other workers hold included."""
    table = model.embedding
    elsewhere = (table.rows - len(table.weight)) * table.weight.shape[1]
    return elsewhere + sum(p.numel() for p in model.parameters() if p.requires_grad)
