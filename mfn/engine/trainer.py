"""The training loop: it trains one model on a split for some epochs.

Every worker runs this same loop, on its own files.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mfn.engine.adam import Adam, AdamState
from mfn.engine.checkpoint import Checkpoints, Part, Position
from mfn.engine.events import Events
from mfn.engine.feed import Feed
from mfn.engine.progress import Progress
from mfn.engine.shards import shards, steps
from mfn.engine.stats import EpochStats, TrainingStats, total, training_stats
from mfn.engine.workers import Workers
from mfn.errors import JobFailed
from mfn.models.batch import Batch
from mfn.models.embedding import ShardedTable
from mfn.models.ranker import Ranker
from mfn.splits.published import SplitFile

log = logging.getLogger("mfn")

MEASURED_ROWS = 1024
"""Rows on which a model is measured after its training."""


class TrainingFailed(JobFailed):
    """The loss is NaN or infinite; the message names the step and the file of its batch."""


@dataclass(frozen=True)
class Schedule:
    """How a model is trained, in pretraining and in training."""

    learning_rate: float
    batch_requests: int
    seed: int
    date: str


class Trainer:
    """A model with its optimizer (Adam, as in the paper).

    A step updates only those rows of the embedding table that its batch uses.
    """

    def __init__(
        self, model: Ranker, schedule: Schedule, workers: Workers, events: Events | None = None
    ) -> None:
        self.model, self.schedule, self.workers, self.events = model, schedule, workers, events
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        table = model.embedding.weight
        dense = [p for p in self.parameters if p is not table]
        sharded = isinstance(model.embedding, ShardedTable)
        self.averaged, self.summed = (dense, [table]) if sharded else (self.parameters, [])
        self.optimizer = Adam(
            dense, [table], schedule.learning_rate, multiples=model.learning_rates()
        )
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
        """Train for `epochs` passes over the files; with checkpoints, resume from the newest one.

        Raises:
            TrainingFailed, RowsLost: as `epoch`.
        """
        done: list[EpochStats] = []
        started = EpochStats()  # steps of the current epoch that the checkpoint contains
        table = self.model.embedding
        saved = None if checkpoints is None else checkpoints.newest(table.rank, table.workers)
        self._check_same_position(None if saved is None else saved[0])
        if saved is not None:
            position, part = saved
            self._load(part)
            done = list(position.epochs)
            if not position.epoch_ended:
                started = done.pop()
            if self.workers.rank == 0:
                log.info("%s: resumes at step %d of epoch %d", name, started.steps, len(done) + 1)
        for number in range(len(done), epochs):
            done.append(self._epoch(files, number, name, started, tuple(done), checkpoints))
            started = EpochStats()
            if checkpoints is not None and number + 1 < epochs:
                self._save(checkpoints, name, Position(tuple(done), epoch_ended=True))
        return total([training_stats(one) for one in done])

    def measures(self, files: Sequence[SplitFile]) -> dict[str, float]:
        """What the model measures on the first rows of the first file, without other workers."""
        if self.model.encoder.frozen is None:  # it measures nothing: no file need be read
            return {}
        (shard,) = shards(files[:1], self.schedule.date, 0, 1, self.schedule.seed)
        with contextlib.closing(self.feed.epoch(shard, MEASURED_ROWS)) as batches:
            return self.model.measures(next(batches))

    def _measures(self, batch: Batch | None) -> dict[str, float]:
        """What the model measures on the batch of a step; nothing if it had no rows."""
        return {} if batch is None else self.model.measures(batch)

    def epoch(self, files: Sequence[SplitFile], number: int, name: str) -> TrainingStats:
        """Train for one pass over the files, which are divided among the workers.

        All workers take the same number of steps, computed beforehand. A worker without further
        rows takes the rest with batches of weight 0.

        Raises:
            TrainingFailed: the loss is NaN or infinite.
            RowsLost: a file has another number of rows than its footer says.
        """
        return training_stats(self._epoch(files, number, name, EpochStats(), (), None))

    def _epoch(
        self,
        files: Sequence[SplitFile],
        number: int,
        name: str,
        started: EpochStats,
        earlier: tuple[EpochStats, ...],
        checkpoints: Checkpoints | None,
    ) -> EpochStats:
        """Train for an epoch, or for the rest of it.

        Args:
            started: statistics of the steps of this epoch that are already done.
            earlier: statistics of the epochs before this one.
        """
        workers, schedule = self.workers, self.schedule
        dealt = shards(files, schedule.date, number, workers.size, schedule.seed)
        total_steps = steps(dealt, schedule.batch_requests)
        batches = self.feed.epoch(dealt[workers.rank], schedule.batch_requests, started.steps)
        epoch = started
        # The feed and the workers count seconds over all epochs.
        wait_before, communication_before = self.feed.wait_seconds, workers.communication_seconds
        start = time.perf_counter()
        self.model.train()
        title = f"{name} epoch {number + 1}"
        with Progress(title, total_steps, workers.rank == 0, started.steps) as progress:
            for step, batch in _step_batches(batches, started.steps, total_steps):
                workers.heartbeat(f"{title}, step {step}")
                due = checkpoints is not None and checkpoints.due(step + 1)
                result = self._step(batch, title, step, due, checkpoints)
                seconds = time.perf_counter() - start
                epoch = EpochStats(
                    steps=step + 1,
                    requests=epoch.requests + result.requests,
                    candidates=epoch.candidates + result.candidates,
                    loss=epoch.loss + result.loss,
                    seconds=started.seconds + seconds,
                    wait_seconds=started.wait_seconds + self.feed.wait_seconds - wait_before,
                    communication_seconds=started.communication_seconds
                    + workers.communication_seconds
                    - communication_before,
                )
                if checkpoints is not None and result.save and step + 1 < total_steps:
                    self._save(checkpoints, name, Position((*earlier, epoch), epoch_ended=False))
                if self.events is not None:
                    number = sum(one.steps for one in earlier) + step + 1
                    self.events.step(number, epoch, partial(self._measures, batch))
                speed = (epoch.candidates - started.candidates) / seconds
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
        """Take one step, on all workers together.

        Args:
            batch: None if this worker has no further rows.
            due: whether a checkpoint is due on this worker; worker 0 decides for all.

        Raises:
            TrainingFailed: the loss is NaN or infinite on one of the workers.
        """
        workers = self.workers
        self.optimizer.zero_grad()
        if batch is not None:
            loss, weight = self.model.loss(batch), int(batch.candidate_count_B.sum())
        else:
            # No further rows: the others wait for this worker's gradients, so it sends zeros.
            loss, weight = self.model.loss(_empty_batch(self.model)) * 0, 0
        loss.backward()
        value = float(loss.detach())
        batch_file = ""
        if not math.isfinite(value) and batch is not None and checkpoints is not None:
            batch_file = checkpoints.keep_batch(workers.rank, vars(batch))
        requests = 0 if batch is None else len(batch)
        wants_save = float(due and workers.rank == 0)
        candidates, total_loss, total_requests, save = workers.average_gradients(
            self.averaged, weight, [value, requests, wants_save], self.summed
        )
        if not math.isfinite(total_loss):
            # All workers see it at the same step, before any parameter has changed.
            where = "another worker" if math.isfinite(value) else f"worker {workers.rank}"
            raise TrainingFailed(
                f"{title}: the loss is {total_loss} at step {step}, on {where}"
                + (f"; its batch is kept in {batch_file}" if batch_file else "")
                + f"; try a lower train.learning_rate than {self.schedule.learning_rate}"
            )
        self.optimizer.step()
        return _StepResult(total_loss, round(candidates), round(total_requests), save > 0)

    def _save(self, checkpoints: Checkpoints, name: str, position: Position) -> None:
        """Write a checkpoint, all workers together.

        Raises:
            TrainingFailed: a value is NaN or infinite on one of the workers; nothing is written.
        """
        part = self._part()
        tensors = {**part.common, **part.rows}
        bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
        if self.workers.sum([len(bad)])[0]:
            raise TrainingFailed(
                f"{name}: after step {position.epochs[-1].steps} of epoch "
                f"{len(position.epochs)}: NaN or infinite values in "
                f"{', '.join(bad) or 'the state of another worker'}; this checkpoint is not "
                "written, earlier ones stay; try a lower train.learning_rate than "
                f"{self.schedule.learning_rate}"
            )
        digests = [0.0] * part.count
        if self.workers.rank < part.count:
            digests[part.index] = checkpoints.write(part, position)
        digests = self.workers.sum(digests)  # returns once all workers have written their part
        if self.workers.rank == 0:
            checkpoints.complete(position, [round(digest) for digest in digests])

    def _part(self) -> Part:
        """The parameters and the optimizer's state that this worker holds, by name."""
        names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}
        tensors = {f"parameter.{names[p]}": p.detach() for p in self.parameters}
        for parameter, state in self.optimizer.state.items():
            for key, value in vars(state).items():
                tensors[f"{key}.{names[parameter]}"] = torch.as_tensor(value)
        table = self.model.embedding
        # Tensors with one row per row of the embedding table; these may be divided among workers.
        with_rows = {
            name
            for name, tensor in tensors.items()
            if name.endswith(f".{names[table.weight]}") and tensor.dim()
        }
        return Part(
            {name: tensor for name, tensor in tensors.items() if name not in with_rows},
            {name: tensors[name] for name in with_rows},
            table.rank,
            table.workers,
        )

    @torch.no_grad()
    def _load(self, part: Part) -> None:
        """Set the parameters and the optimizer's state to those of a checkpoint."""
        by_parameter: dict[str, dict[str, Tensor]] = {}
        for name, tensor in {**part.common, **part.rows}.items():
            key, _, parameter = name.partition(".")
            by_parameter.setdefault(parameter, {})[key] = tensor
        parameters = dict(self.model.named_parameters())
        for name, saved in by_parameter.items():
            parameters[name].copy_(saved.pop("parameter"))
            if saved:
                self.optimizer.state[parameters[name]] = AdamState(
                    int(saved["step"]), saved["exp_avg"], saved["exp_avg_sq"]
                )

    def _check_same_position(self, position: Position | None) -> None:
        """Raise RuntimeError unless all workers resume from the same position.

        The check is a sum over the workers, so each position becomes one number.
        """
        mine = 0.0
        if position is not None:
            mine = 1.0 + position.epochs[-1].steps + 1e9 * len(position.epochs)
        if self.workers.sum([mine])[0] != mine * self.workers.size:
            raise RuntimeError(
                f"worker {self.workers.rank} found a different newest checkpoint than the other "
                "workers; do all workers see the same root?"
            )

    @torch.no_grad()
    def log_loss(self, files: Sequence[SplitFile]) -> float:
        """Mean binary cross entropy in nats over the files, which are divided among the workers."""
        dealt = shards(files, self.schedule.date, 0, self.workers.size, self.schedule.seed)
        batches = self.feed.epoch(dealt[self.workers.rank], self.schedule.batch_requests)
        self.model.eval()
        loss, candidates = 0.0, 0
        for _, batch in _step_batches(batches, 0, steps(dealt, self.schedule.batch_requests)):
            if batch is None:  # no further rows; others may wait for this worker's embedding rows
                self.model.look_up(_empty_batch(self.model))
                continue
            loss += float(self.model.loss(batch))
            candidates += int(batch.candidate_count_B.sum())
        total_loss, total_candidates = self.workers.sum([loss, candidates])
        return total_loss / total_candidates


@dataclass(frozen=True)
class _StepResult:
    """Result of a step over all workers; the loss is a sum over candidates."""

    loss: float
    candidates: int
    requests: int
    save: bool


def _step_batches(
    batches: Iterator[Batch], first: int, steps: int
) -> Iterator[tuple[int, Batch | None]]:
    """Each step from `first` on with its batch; None once this worker has no further batch."""
    for step in range(first, steps):
        yield step, next(batches, None)
    if next(batches, None) is not None:
        raise RuntimeError(f"rows are left after the {steps} planned steps")


def _empty_batch(model: Ranker) -> Batch:
    """One request with an empty history and one candidate that is padding."""
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
    """Number of trainable values in a model, with embedding rows that other workers hold."""
    table = model.embedding
    elsewhere = (table.rows - len(table.weight)) * table.weight.shape[1]
    return elsewhere + sum(p.numel() for p in model.parameters() if p.requires_grad)
