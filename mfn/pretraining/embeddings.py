"""The job `pretrain_embeddings`: the frozen embedding E, and the start of the trainable one.

All are learnt from the pretraining rows, which are before the training window:

- The trainable embedding of all models starts at the vectors of a plain click model
  (`mfn.pretraining.click_model`): it says what is clicked.
- E says what is alike. Its vectors come from co-occurrence in users' histories
  (`mfn.pretraining.cooccurrence`), from what the click model has learnt, or from both. Entity
  vectors may come from text instead (`mfn.pretraining.word_vectors`).

An item id that pretraining has not met gets the mean of the items that share its category or its
entities (`mfn.pretraining.frozen`); other values get the average of their field. They count as not
known. What E is worth is measured, without labels (`mfn.pretraining.measures`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial, reduce
from typing import Any

import fsspec
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from torch import Tensor

from mfn import storage
from mfn.engine.horovod_workers import launch
from mfn.engine.stats import total
from mfn.errors import DataRefused
from mfn.fingerprint import of_files
from mfn.indices import PADDING
from mfn.job import Counts, job
from mfn.models import artifact
from mfn.models.batch import ENTITY
from mfn.models.embedding import ItemTable, Pretrained, offsets_of
from mfn.pretraining.click_model import train_click_model
from mfn.pretraining.cooccurrence import from_histories
from mfn.pretraining.frozen import FieldVectors, beside, frozen_of, known
from mfn.pretraining.measures import (
    coverage,
    next_behaviour_auc,
    next_behaviours,
    start_correlation,
    warnings,
)
from mfn.pretraining.word_vectors import from_file, from_titles
from mfn.schema import REQUEST_ROWS
from mfn.settings import WORDS_WITHOUT_FILE, Settings
from mfn.splits.published import Splits
from mfn.splits.vocabulary import usable

log = logging.getLogger("mfn")

COOCCURRENCE, CTR, BOTH, WORD2VEC = "cooccurrence", "ctr", "both", "word2vec"


def _reads(spark: SparkSession, settings: Settings) -> Any:
    own = settings.embeddings
    of_words = None if own.words in WORDS_WITHOUT_FILE else of_files(own.words)
    return [Splits.published(settings).folder, own.model_dump(), of_words]


@job(
    _reads,
    lambda settings: [f"{settings.layout.embeddings}/{storage.POINTER}"],
    sections=("embeddings",),
)
def pretrain_embeddings(spark: SparkSession, settings: Settings) -> Counts:
    """Learn and publish the frozen embedding E and the start of the trainable embedding.

    Raises:
        DataRefused: there are no rows for training or for validation, or one of their files is
            damaged; or embeddings.words is a file that does not exist or has no usable word
            vectors.
    """
    splits, own = Splits.published(settings), settings.embeddings
    for split in ("pretraining", "pretraining_validation"):
        if not splits.files(split):
            first, last = splits.manifest["windows"][split]
            raise DataRefused(
                f"{split}: expected rows from {first} to {last}, got none; give logs of these "
                "days, or change windows.pretraining_days"
            )
    splits.check_files("pretraining", "pretraining_validation")
    features, indices = splits.features, splits.item_indices()
    table = ItemTable(features, indices, offsets_of(features.sizes))
    # What Spark computes, and may refuse, comes before the training.
    text = _from_text(spark, settings, splits)
    sources = _sources(settings, features.item_fields)
    counted = {
        name: indices[name] for name in features.item_fields if COOCCURRENCE in sources[name]
    }
    together = from_histories(spark, splits, counted, own)
    users = next_behaviours(spark, splits, own.seed)
    behaviours_I = behaviours_of(spark, splits)
    click = launch(partial(train_click_model, settings=settings, splits=splits), 1)
    vectors = {
        COOCCURRENCE: together,
        CTR: {name: click.learnt(name) for name in features.item_fields},
        **({own.words: text} if text else {}),
    }
    parts = [
        {name: vectors[of_field[part]][name] for name, of_field in sources.items()}
        for part in range(2 if own.ids == BOTH else 1)
    ]
    frozen = reduce(beside, (frozen_of(features, table, part) for part in parts))
    known_by_field = known(parts)
    measures: dict[str, Any] = {
        "start_correlation": start_correlation(
            click, [name for name in features.item_fields if CTR in sources[name]]
        ),
        "covered": coverage(
            table, features, torch.cat(list(known_by_field.values())), behaviours_I
        ),
        "next_behaviour_auc": next_behaviour_auc(features, table, frozen, users),
        "next_behaviour_users": len(users.next_U),
    }
    for warning in warnings(measures):
        log.warning("%s", warning)
    stats = total(click.epochs)
    manifest: dict[str, Any] = {
        **asdict(stats),
        "validation_log_losses": click.log_losses,
        "known": {name: int(of_field.sum()) for name, of_field in known_by_field.items()},
        "measures": measures,
        "vocabularies": splits.manifest["vocabularies"],
        "splits": splits.folder,
        "settings": own.model_dump(mode="json"),
    }
    with storage.publish(settings.layout.embeddings) as folder:
        artifact.write_pretrained(folder, Pretrained(frozen, click.start))
        storage.write_json(f"{folder}/{storage.MANIFEST}", manifest)
    return {
        "rows": sum(one.requests for one in click.epochs),
        "epochs": len(click.epochs),
        "validation_log_loss": min(click.log_losses),
        "candidates_per_second": round(stats.candidates_per_second),
        **{f"known_{name}": count for name, count in manifest["known"].items()},
        **{f"covered_{name}": share for name, share in measures["covered"].items()},
        **{
            f"next_behaviour_auc_{level}": auc
            for level, auc in measures["next_behaviour_auc"].items()
            if auc is not None
        },
    }


def _sources(settings: Settings, item_fields: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """By item field, where its vectors in E come from: one source, or two beside each other."""
    own = settings.embeddings
    first = dict.fromkeys(item_fields, CTR if own.ids == CTR else COOCCURRENCE)
    if ENTITY in first:
        first[ENTITY] = own.words
    return {name: (one, CTR) if own.ids == BOTH else (one,) for name, one in first.items()}


def _from_text(spark: SparkSession, settings: Settings, splits: Splits) -> dict[str, FieldVectors]:
    """Entity vectors from text by the name of their field; none if they come from elsewhere."""
    source = settings.embeddings.words
    if source in (COOCCURRENCE, CTR) or ENTITY not in splits.features.item_fields:
        return {}
    size = splits.features.sizes[ENTITY]
    if source == WORD2VEC:
        items = spark.read.parquet(f"{splits.folder}/items")
        return {ENTITY: from_titles(items, size, settings.embeddings)}
    files, path = fsspec.url_to_fs(source)
    if not files.exists(path):
        raise DataRefused(
            f"embeddings.words: expected {', '.join(WORDS_WITHOUT_FILE)} or a file of word "
            f"vectors, got {source}, which does not exist"
        )
    entries = usable(spark, settings.root, settings.date, [])
    entities = entries.where((F.col("field") == ENTITY) & (F.col("index") < size))
    vectors = from_file(spark, source, entities.select("key", "index"), size, settings.embeddings)
    return {ENTITY: vectors}


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
