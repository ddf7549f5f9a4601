"""Files of a split: one row group each, enough for all workers, and a function of the rows."""

from __future__ import annotations

import datetime
import hashlib
import itertools
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from mfn.schema import REQUEST_ROWS
from mfn.splits.history import COUNTED_ROWS, NO_SPLIT
from mfn.splits.requests import DROP_COUNTS
from mfn.splits.writing import Files, counts_of, write_rows

NOON = datetime.datetime(2026, 3, 8, 12)


def row(split: int, number: int, **changes: Any) -> tuple[Any, ...]:
    """A row of COUNTED_ROWS with two candidates, the first one clicked."""
    values: dict[str, Any] = {
        "request_id": f"r{number}",
        "user_id": "u",
        "request_time": NOON,
        "user_fields": [],
        "context_fields": [],
        "history": [3, 0],
        "history_length": 1,
        "candidates": [3, 2],
        "labels": [1, 0],
        "candidate_count": 2,
        "candidate_ids": [f"i{number}", "j"],
        "split": split,
        "slate": 0,
        "clicks": 1,
        "unknown": 1,
        "unlisted": 1,
        "unlisted_behaviours": 0,
        "test_user": 0,
        "tally": [],
        **changes,
    }
    return tuple(values[name] for name in COUNTED_ROWS.names)


def frame(spark: SparkSession, rows: list[tuple[Any, ...]], partitions: int = 2) -> DataFrame:
    return spark.createDataFrame(rows, COUNTED_ROWS).repartition(partitions)


def write(
    rows: DataFrame, folder: Path, files: int = 4, workers: int = 1, partitions: int = 2
) -> tuple[dict[str, Files], dict[str, int]]:
    return write_rows(rows, str(folder), files, workers, seed=5, partitions=partitions)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.parquet"))
    }


def test_files_depend_only_on_rows_and_seed_and_rows_are_in_random_order(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [row(split, number) for split in (0, 2, 3) for number in range(200)]
    files, _ = write(frame(spark, rows), tmp_path / "one")
    write(frame(spark, rows[::-1], partitions=5), tmp_path / "other", partitions=7)
    assert digests(tmp_path / "one") == digests(tmp_path / "other")
    write_rows(frame(spark, rows), str(tmp_path / "seed"), 4, 1, seed=6, partitions=2)
    assert digests(tmp_path / "seed") != digests(tmp_path / "one")
    ids = []
    assert [file["name"] for file in files["train"]] == [f"part-0000{n}.parquet" for n in range(4)]
    for file in files["train"]:
        path = tmp_path / "one" / "train" / str(file["name"])
        footer = pq.ParquetFile(path).metadata
        assert (footer.num_row_groups, footer.num_rows) == (1, file["rows"])
        ids += pq.read_table(path)["request_id"].to_pylist()
        assert pq.read_schema(path).names == REQUEST_ROWS.names
    assert sorted(ids) == sorted(f"r{number}" for number in range(200))
    # Rows are in random order within a file too: the shuffle buffers of the workers need this.
    numbers = [int(name[1:]) for name in ids[: int(files["train"][0]["rows"])]]
    assert numbers != sorted(numbers)
    assert sum(a < b for a, b in itertools.pairwise(numbers)) < 0.7 * len(numbers)
    assert files["pretraining_validation"] == []
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(files)


@pytest.mark.parametrize(("rows", "files", "workers", "expected"), [(5, 2, 4, 4), (3, 16, 8, 3)])
def test_every_worker_gets_a_file_if_there_are_enough_rows(
    spark: SparkSession, tmp_path: Path, rows: int, files: int, workers: int, expected: int
) -> None:
    """The worst case: all rows have the same hash, since request and candidates are the same."""
    several = [row(2, 7, history=[number, 0]) for number in range(rows)]
    found, _ = write(frame(spark, several), tmp_path / "out", files=files, workers=workers)
    assert len(found["train"]) == expected
    assert sum(int(file["rows"]) for file in found["train"]) == rows
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(found)
    kept = pq.read_table(tmp_path / "out" / "train").to_pylist()
    assert sorted(one["history"][0] for one in kept) == list(range(rows))


def test_rows_are_counted_and_rows_without_split_are_counted_but_not_written(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [
        row(2, 1),
        row(2, 1, slate=1, clicks=0, candidate_count=1, unknown=0),
        row(2, 2, history_length=0),
        row(3, 3, test_user=2),
        row(3, 4, test_user=1),
        row(3, 5),
        row(NO_SPLIT, 6, tally=[1, 2, 3, 4, 5, 6]),
        row(NO_SPLIT, 7, tally=[10, 20, 30, 40, 50, 60]),
    ]
    files, counts = write(frame(spark, rows), tmp_path)
    assert counts_of("train", counts) == {
        "requests": 2,
        "candidates": 5,
        "clicks": 2,
        "empty_histories": 1,
        "unknown_candidates": 2,
        "unlisted_candidates": 3,
        "behaviours": 2,
        "unlisted_behaviours": 0,
    }
    assert counts_of("pretraining", counts) == dict.fromkeys(counts_of("test", counts), 0)
    assert (counts["test_users"], counts["test_users_in_training"]) == (2, 1)
    assert [counts[name] for name in DROP_COUNTS] == [11, 22, 33, 44, 55, 66]
    assert {name: sum(int(f["rows"]) for f in listed) for name, listed in files.items()} == {
        "pretraining": 0,
        "pretraining_validation": 0,
        "train": 3,
        "test": 3,
    }
