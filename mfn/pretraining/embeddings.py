"""The job `pretrain_embeddings`: the frozen embedding E, from a vanilla CTR model.

The vanilla model is Base. It is trained on the pretraining rows, which are before the training
window, with early stopping: the epoch with the lowest log loss on the last pretraining day is kept.
E is not learnt from rows of the training window. Entity vectors may come from text instead
(`mfn.pretraining.word_vectors`).

An id or a word that did not occur in pretraining gets the average of its field.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from typing import Any

import fsspec
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from torch import Tensor

from mfn import storage
from mfn.engine.horovod_workers import launch
from mfn.engine.stats import total
from mfn.engine.trainer import Schedule, Trainer
from mfn.engine.workers import Workers
from mfn.errors import DataRefused
from mfn.fingerprint import of_files
from mfn.indices import PADDING
from mfn.job import Counts, job
from mfn.models import artifact
from mfn.models.batch import ENTITY, Features
from mfn.models.embedding import ItemTable, freeze
from mfn.models.ranker import Ranker
from mfn.models.settings import BaseSettings
from mfn.pretraining.word_vectors import EntityVectors, from_file, from_titles
from mfn.schema import REQUEST_ROWS
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.splits.vocabulary import usable

log = logging.getLogger("mfn")

CTR, WORD2VEC = "ctr", "word2vec"
WITHOUT_FILE = (CTR, WORD2VEC)
"""Values of embeddings.words that need no file; any other value is the path of a file."""


def _reads(spark: SparkSession, settings: Settings) -> Any:
    own = settings.embeddings
    of_words = None if own.words in WITHOUT_FILE else of_files(own.words)
    return [Splits.published(settings).folder, own.model_dump(), of_words]


@job(
    _reads,
    lambda settings: [f"{settings.layout.embeddings}/{storage.POINTER}"],
    sections=("embeddings",),
)
def pretrain_embeddings(spark: SparkSession, settings: Settings) -> Counts:
    """Learn and publish the frozen embedding E, from the pretraining rows.

    Raises:
        DataRefused: there are no rows for training or for validation, or one of their files is
            damaged; or embeddings.words is a file that does not exist or has no usable word
            vectors.
    """
    splits = Splits.published(settings)
    for split in ("pretraining", "pretraining_validation"):
        if not splits.files(split):
            first, last = splits.manifest["windows"][split]
            raise DataRefused(
                f"{split}: expected rows from {first} to {last}, got none; give logs of these "
                "days, or change windows.pretraining_days"
            )
    splits.check_files("pretraining", "pretraining_validation")
    behaviours = behaviours_of(spark, splits)
    words = _words(spark, settings, splits)
    work = partial(
        _pretrain, settings=settings, splits=splits, words=words, behaviours_I=behaviours
    )
    return launch(work, 1)


def _words(spark: SparkSession, settings: Settings, splits: Splits) -> EntityVectors | None:
    """Entity vectors from text, or None to use those of the vanilla model."""
    source = settings.embeddings.words
    if source == CTR:
        return None
    size = int(splits.manifest["vocabularies"][ENTITY]["size"])
    if source == WORD2VEC:
        items = spark.read.parquet(f"{splits.folder}/items")
        return from_titles(items, size, settings.embeddings)
    files, path = fsspec.url_to_fs(source)
    if not files.exists(path):
        raise DataRefused(
            f"embeddings.words: expected {CTR}, {WORD2VEC} or a file of word vectors, got "
            f"{source}, which does not exist"
        )
    entries = usable(spark, settings.root, settings.date, [])
    entities = entries.where((F.col("field") == ENTITY) & (F.col("index") < size))
    return from_file(spark, source, entities.select("key", "index"), size, settings.embeddings)


def behaviours_of(spark: SparkSession, splits: Splits) -> Tensor:
    """The number of behaviours of each row of the item table in the training rows' histories, [I].

    One aggregation, shuffled by row; the driver receives at most one number for each.
    """
    history = F.filter("history", lambda item: item != PADDING)
    found = (
        spark.read.schema(REQUEST_ROWS)
        .parquet(f"{splits.folder}/train")
        .select(F.explode(history).alias("item"))
        .groupBy("item")
        .count()
        .toPandas()
    )
    rows = spark.read.parquet(f"{splits.folder}/items").count()
    behaviours_I = torch.zeros(rows, dtype=torch.long)
    behaviours_I[found["item"].to_numpy(dtype=int)] = torch.from_numpy(found["count"].to_numpy())
    return behaviours_I


def _pretrain(
    workers: Workers,
    settings: Settings,
    splits: Splits,
    words: EntityVectors | None,
    behaviours_I: Tensor,
) -> Counts:
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
    # Early stopping: train until the validation log loss rises; keep the best table, [V, D].
    epochs, losses = [], []
    best_VD = start_VD
    for epoch in range(own.max_epochs):
        epochs.append(trainer.epoch(splits.files("pretraining"), epoch, "vanilla CTR model"))
        losses.append(trainer.log_loss(splits.files("pretraining_validation")))
        log.info("vanilla CTR model: epoch %d, validation log loss %.4f", epoch + 1, losses[-1])
        if losses[-1] > min(losses):
            break
        best_VD = model.embedding.weight.detach().clone()
    # A row is learnt if training changed it. Entity rows may be replaced by vectors from text.
    learnt_V = (best_VD != start_VD).any(dim=1)
    if words is not None and ENTITY in features.item_fields:
        first = model.embedding.offsets[ENTITY]
        rows = slice(first, first + len(words.known_V))
        best_VD[rows], learnt_V[rows] = words.vectors_VD, words.known_V
    frozen = freeze(features, model.encoder.items, best_VD, learnt_V)
    covered = coverage(model.encoder.items, features, learnt_V, behaviours_I)
    manifest = {
        **asdict(total(epochs)),
        "validation_log_losses": losses,
        "learnt": {name: int(met.sum()) for name, met in frozen.learnt.items()},
        "covered": covered,
        "vocabularies": splits.manifest["vocabularies"],
        "splits": splits.folder,
        "settings": own.model_dump(mode="json"),
    }
    if workers.rank == 0:
        with storage.publish(settings.layout.embeddings) as folder:
            artifact.write_frozen(folder, frozen)
            storage.write_json(f"{folder}/{storage.MANIFEST}", manifest)
    return {
        "rows": sum(one.requests for one in epochs),
        "epochs": len(epochs),
        "validation_log_loss": min(losses),
        "candidates_per_second": round(manifest["candidates_per_second"]),
        **{f"learnt_{name}": count for name, count in manifest["learnt"].items()},
        **{f"covered_{name}": share for name, share in covered.items()},
    }


def coverage(
    items: ItemTable, features: Features, learnt_V: Tensor, behaviours_I: Tensor
) -> dict[str, float]:
    """For each item field, the share of behaviours whose item has a learnt value in it.

    Args:
        items: the item table.
        features: the fields of the rows.
        learnt_V: mask of the learnt rows of the table of all fields.
        behaviours_I: number of behaviours of each item.
    """
    known_I = {name: learnt_V[items.ids_IF[:, at]] for at, name in enumerate(items.id_fields)}
    if ENTITY in features.item_fields:
        real_IX = items.entities_IX >= 0
        known_I[ENTITY] = (learnt_V[items.entities_IX.clamp(min=0)] & real_IX).any(dim=1)
    total = max(int(behaviours_I.sum()), 1)
    return {name: int(behaviours_I[known_I[name]].sum()) / total for name in features.item_fields}
