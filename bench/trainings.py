"""One model trained on published request rows, on workers that are pinned to a core each.

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
    """A model as it is drawn, without what pretraining would give it: speed needs none of it."""
    own = settings.train
    model = Ranker(
        settings.models[name],
        splits.features,
        splits.item_indices(),
        settings.embeddings.dimension,
        settings.embeddings.initial_std,
        own.seed,
        workers if sharded else None,
    )
    schedule = Schedule(own.learning_rate, own.batch_requests, own.seed, str(settings.date))
    return Trainer(model, schedule, workers)


def measured(trainer: Trainer, splits: Splits, name: str) -> dict[str, Any]:
    """An epoch's account, its files on disk, after some steps whose first touch memory is."""
    files = splits.files("train")
    workers = trainer.workers
    trainer.epoch(files[: workers.size], 0, name)
    sent = workers.communication_bytes
    account = trainer.epoch(files, 1, name)
    return {
        **asdict(account),
        "sent_bytes": workers.communication_bytes - sent,
        "parameters": parameter_count(trainer.model),
    }


def pinned() -> HorovodWorkers:
    """This worker, on a core of its own, and with it all threads that it starts from now on."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["HOROVOD_LOCAL_RANK"]) % len(cores)]})
    torch.set_num_threads(1)
    return HorovodWorkers(STALL_SECONDS)


def _of_one(task: dict[str, Any]) -> dict[str, Any]:
    workers: Workers = pinned() if task["workers"] > 1 else SingleWorker()
    torch.set_num_threads(1)
    settings = Settings(**task["settings"])
    splits = Splits.published(settings)
    trainer = trainer_of(workers, settings, splits, task["model"], task.get("sharded", False))
    return measured(trainer, splits, task["model"])


def _serve(task: dict[str, Any]) -> dict[str, Any]:
    if task["workers"] == 1:
        return _of_one(task)
    of_workers = horovod.run(_of_one, (task,), num_proc=task["workers"], use_gloo=True)
    first: dict[str, Any] = of_workers[0]
    return first


if __name__ == "__main__":
    measure.serve(_serve)
