"""A small published day of splits, written without Spark, for tests of code that reads splits."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from mfn import storage, tables
from mfn.indices import FIRST_INDEX, ITEM_FIELDS
from mfn.schema import VOCABULARIES
from mfn.settings import Settings
from mfn.splits.vocabulary import fingerprint_of

SIZES = {"item_id": 40, "category": 12, "shop": 8, "brand": 9, "price": 7, "entity": 20}
USER_FIELDS, CONTEXT_FIELDS = {"age": 6}, {"device": 5}
ITEMS, N, M, X = 43, 6, 4, 3


def publish_splits(
    settings: Settings,
    rows_of_files: dict[str, list[int]],
    seeds: Mapping[str, int] | None = None,
    longest_history: int = N,
    more: Mapping[str, int] | None = None,
) -> str:
    """Publish random splits; return their folder.

    Clicks depend on the candidate's category, so that a model can learn something.

    Args:
        settings: root and date of the splits.
        rows_of_files: number of rows of each file, by split.
        seeds: seed of the rows, by split; 1 for a split that is not in it.
        longest_history: maximum length of a history.
        more: number of additional entries, by vocabulary. The vocabularies have the sizes SIZES
            plus these entries, which no row uses.
    """
    items = _items(np.random.default_rng(1))
    with storage.publish(settings.layout.splits) as folder:
        Path(folder, "items").mkdir()
        pq.write_table(pa.table(items), f"{folder}/items/part-00000.parquet")
        splits = {}
        for split in ("pretraining", "pretraining_validation", "train", "test"):
            Path(folder, split).mkdir()
            files = []
            random = np.random.default_rng((seeds or {}).get(split, 1))
            for place, rows in enumerate(rows_of_files.get(split, [])):
                name = f"part-{place:05d}.parquet"
                table = _rows(random, rows, items["category"], f"{split}-{place}", longest_history)
                pq.write_table(table, f"{folder}/{split}/{name}", row_group_size=max(rows, 1))
                files.append({"name": name, "rows": rows, "counts": table["candidate_count"]})
            splits[split] = {
                "rows": sum(file["rows"] for file in files),
                "candidates": sum(sum(file.pop("counts").to_pylist()) for file in files),
                "files": files,
            }
        storage.write_json(f"{folder}/{storage.MANIFEST}", _manifest(settings, splits, more or {}))
    return folder


def publish_vocabularies(
    spark: SparkSession, settings: Settings, more: Mapping[str, int] | None = None
) -> None:
    """Write the vocabularies of the splits: all fields except the price.

    Their keys are category3, category4, … for the field category, and so on.
    """
    day = settings.date - datetime.timedelta(days=3)
    keys = [
        (field, _key(field, n), n, day)
        for field, size in _sizes(more or {}).items()
        if field != "price"
        for n in range(FIRST_INDEX, size)
    ]
    tables.append(spark.createDataFrame(keys, VOCABULARIES.columns), settings.root, VOCABULARIES)


def _sizes(more: Mapping[str, int]) -> dict[str, int]:
    sizes = {**SIZES}
    sizes |= {f"user.{name}": size for name, size in USER_FIELDS.items()}
    sizes |= {f"context.{name}": size for name, size in CONTEXT_FIELDS.items()}
    return {field: size + more.get(field, 0) for field, size in sizes.items()}


def _key(field: str, index: int) -> str:
    return f"{field}{index}"


def _items(random: np.random.Generator) -> dict[str, Any]:
    columns: dict[str, Any] = {"item": np.arange(ITEMS, dtype=np.int32)}
    columns["key"] = [None] * FIRST_INDEX + [f"item {i}" for i in range(FIRST_INDEX, ITEMS)]
    for name in ITEM_FIELDS:
        values = random.integers(FIRST_INDEX, SIZES[name], ITEMS).astype(np.int32)
        values[:FIRST_INDEX] = range(FIRST_INDEX)
        columns[name] = values
    entities = random.integers(FIRST_INDEX, SIZES["entity"], (ITEMS, X)).astype(np.int32)
    entities[:, -1] = 0
    entities[:FIRST_INDEX] = 0
    columns["entities"] = list(entities)
    return columns


def _rows(
    random: np.random.Generator,
    rows: int,
    category_of: np.ndarray,
    name: str,
    longest_history: int,
) -> pa.Table:
    history_length = random.integers(0, longest_history + 1, rows).astype(np.int32)
    count = random.integers(1, M + 1, rows).astype(np.int32)
    history = random.integers(FIRST_INDEX, ITEMS, (rows, N)).astype(np.int32)
    history[np.arange(N) >= history_length[:, None]] = 0
    candidates = random.integers(FIRST_INDEX, ITEMS, (rows, M)).astype(np.int32)
    candidates[np.arange(M) >= count[:, None]] = 0
    chance = np.where(category_of[candidates] % 2 == 0, 0.8, 0.1)
    labels = ((random.random((rows, M)) < chance) & (candidates > 0)).astype(np.int32)
    midnight = datetime.datetime(2026, 3, 5, tzinfo=datetime.UTC)
    return pa.table(
        {
            "request_id": [f"{name}-{row}" for row in range(rows)],
            "user_id": [f"user {row % 7}" for row in range(rows)],
            "request_time": pa.array([midnight] * rows, pa.timestamp("us", tz="UTC")),
            "user_fields": _lists(random.integers(1, USER_FIELDS["age"], (rows, 1))),
            "context_fields": _lists(random.integers(1, CONTEXT_FIELDS["device"], (rows, 1))),
            "history": _lists(history),
            "history_length": pa.array(history_length),
            "candidates": _lists(candidates),
            "labels": _lists(labels),
            "candidate_count": pa.array(count),
            "candidate_ids": [
                [f"item {item}" for item in row[:real]]
                for row, real in zip(candidates, count, strict=True)
            ],
        }
    )


def _lists(values: np.ndarray) -> pa.Array:
    return pa.array(list(values.astype(np.int32)), pa.list_(pa.int32()))


def _manifest(
    settings: Settings, splits: dict[str, Any], more: Mapping[str, int]
) -> dict[str, Any]:
    window = [settings.date.isoformat()] * 2
    return {
        "date": settings.date.isoformat(),
        "windows": dict.fromkeys(splits, window),
        "splits": splits,
        "vocabularies": {
            field: {
                "size": size,
                "fingerprint": fingerprint_of([_key(field, n) for n in range(FIRST_INDEX, size)]),
            }
            for field, size in _sizes(more).items()
        },
        "item_fields": [*ITEM_FIELDS, "entity"],
        "constant_fields": [],
        "user_fields": list(USER_FIELDS),
        "context_fields": list(CONTEXT_FIELDS),
        "history_length": N,
        "candidates": M,
        "entities": X,
        "negative_sampling_rate": settings.splits.negative_sampling_rate,
    }
