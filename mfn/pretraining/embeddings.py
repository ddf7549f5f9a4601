"""The frozen embedding E, from a vanilla CTR model on rows before the training window.

The vanilla model is Base. It is trained on the pretraining rows and stopped on the last of their
days: the epoch with the lowest log loss there is kept. The main task's rows are never read.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from pyspark.sql import SparkSession

from mfn import storage
from mfn.job import Counts, DataRefused, job
from mfn.models import artifact
from mfn.models.embedding import freeze
from mfn.models.ranker import Ranker
from mfn.models.settings import BaseSettings
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.training.loop import Schedule, Trainer, total
from mfn.training.workers import Workers, launch

log = logging.getLogger("mfn")


def _reads(spark: SparkSession, settings: Settings) -> Any:
    return [Splits.published(settings).folder, settings.embeddings.model_dump()]


@job(_reads, lambda settings: [f"{settings.embeddings_folder}/{storage.POINTER}"])
def pretrain_embeddings(spark: SparkSession, settings: Settings) -> Counts:
    """Learn the frozen embedding E on the pretraining rows; publish it with its account."""
    splits = Splits.published(settings)
    for split in ("pretraining", "pretraining_validation"):
        if not splits.files(split):
            first, last = splits.manifest["windows"][split]
            raise DataRefused(
                f"{split}: expected rows from {first} to {last}, got none; give logs of these "
                "days, or other windows.pretraining_days"
            )
    return launch(partial(_pretrain, settings=settings, splits=splits), 1)


def _pretrain(workers: Workers, settings: Settings, splits: Splits) -> Counts:
    torch.set_num_threads(settings.embeddings.threads)
    own = settings.embeddings
    features, item_indices = splits.features, splits.item_indices()
    model = Ranker(
        BaseSettings(start_at_frozen=False),
        features,
        item_indices,
        own.dimension,
        own.initial_std,
        own.seed,
    )
    start_VD = model.embedding.weight.detach().clone()
    schedule = Schedule(own.learning_rate, own.batch_requests, own.seed, str(settings.date))
    trainer = Trainer(model, schedule, workers)
    accounts, losses = [], []
    best_VD = start_VD
    for epoch in range(own.epochs):
        accounts.append(trainer.epoch(splits.files("pretraining"), epoch, "vanilla CTR model"))
        losses.append(trainer.log_loss(splits.files("pretraining_validation")))
        log.info("vanilla CTR model: epoch %d, validation log loss %.4f", epoch + 1, losses[-1])
        if losses[-1] > min(losses):
            break
        best_VD = model.embedding.weight.detach().clone()
    frozen = freeze(features, model.encoder.items, best_VD, (best_VD != start_VD).any(dim=1))
    account = {
        **asdict(total(accounts)),
        "validation_log_losses": losses,
        "learnt": {name: int(met.sum()) for name, met in frozen.learnt.items()},
        "vocabularies": splits.manifest["vocabularies"],
        "splits": splits.folder,
        "settings": own.model_dump(mode="json"),
    }
    if workers.rank == 0:
        with storage.publish(settings.embeddings_folder) as folder:
            artifact.write_frozen(folder, frozen)
            storage.write_json(f"{folder}/{storage.MANIFEST}", account)
    return {
        "rows": sum(one.requests for one in accounts),
        "epochs": len(accounts),
        "validation_log_loss": min(losses),
        "candidates_per_second": round(account["candidates_per_second"]),
        **{f"learnt_{name}": count for name, count in account["learnt"].items()},
    }


def current_frozen(settings: Settings, splits: Splits) -> str:
    """The folder of the run date's E.

    Raises:
        NotPublished: `pretrain_embeddings` has not run for this date.
        WrongArtifact: E was learnt on splits with other vocabularies.
    """
    folder = storage.current(settings.embeddings_folder, "pretrain_embeddings")
    account = storage.read_json(f"{folder}/{storage.MANIFEST}")
    artifact.check_vocabularies(account["vocabularies"], splits.manifest["vocabularies"], folder)
    return folder
