"""Train one model on published request rows, with each worker pinned to one core.

python -m bench.trainings TASK.json RESULT.json
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import horovod
import torch

from bench import measure
from mfn.engine.horovod_workers import HorovodWorkers
from mfn.engine.trainer import Schedule, Trainer, parameter_count
from mfn.engine.workers import SingleWorker, Workers
from mfn.models.ranker import Ranker
from mfn.settings import Settings
from mfn.splits.published import Splits

STALL_SECONDS = 300.0


def trainer_of(
    workers: Workers, settings: Settings, splits: Splits, name: str, sharded: bool = False
) -> Trainer:
    """A trainer of a randomly initialized model; speed does not depend on pretraining."""
    train = settings.train
    model = Ranker(
        settings.models[name],
        splits.features,
        splits.item_indices(),
        settings.embeddings.dimension,
        settings.embeddings.initial_std,
        train.seed,
        workers if sharded else None,
    )
    schedule = Schedule(train.learning_rate, train.batch_requests, train.seed, str(settings.date))
    return Trainer(model, schedule, workers)


def measured(trainer: Trainer, splits: Splits, name: str) -> dict[str, Any]:
    """Train one epoch from files, after some warm-up steps that allocate memory.

    Returns:
        the epoch's statistics, the bytes sent to other workers, and the number of parameters.
    """
    files = splits.files("train")
    workers = trainer.workers
    trainer.epoch(files[: workers.size], 0, name)
    sent = workers.communication_bytes
    stats = trainer.epoch(files, 1, name)
    return {
        **asdict(stats),
        "sent_bytes": workers.communication_bytes - sent,
        "parameters": parameter_count(trainer.model),
    }


def pinned() -> HorovodWorkers:
    """Pin this worker, and all threads that it starts from now on, to one core."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["HOROVOD_LOCAL_RANK"]) % len(cores)]})
    torch.set_num_threads(1)
    return HorovodWorkers(STALL_SECONDS)


def _train_on_worker(task: dict[str, Any]) -> dict[str, Any]:
    workers: Workers = pinned() if task["workers"] > 1 else SingleWorker()
    torch.set_num_threads(1)
    settings = Settings(**task["settings"])
    splits = Splits.published(settings)
    trainer = trainer_of(workers, settings, splits, task["model"], task.get("sharded", False))
    return measured(trainer, splits, task["model"])


def _serve(task: dict[str, Any]) -> dict[str, Any]:
    if task["workers"] == 1:
        return _train_on_worker(task)
    of_workers = horovod.run(_train_on_worker, (task,), num_proc=task["workers"], use_gloo=True)
    first: dict[str, Any] = of_workers[0]
    return first


if __name__ == "__main__":
    measure.serve(_serve)
