"""Writing request rows as files of one row group, and the account of them in the manifest."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import fsspec
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from mfn.schema import REQUEST_ROWS
from mfn.splits.history import KNOWN_TEST_USER, LEFT_OUT
from mfn.splits.requests import SPLITS, TALLIES
from mfn.splits.windows import Window

Files = list[dict[str, str | int]]
"""Name and rows of each file of a split, in the order of the names."""

_UNNAMED = "by_split_and_file"
_ONE_ROW_GROUP = 1 << 40
"""More bytes than any file: Parquet then never ends a row group early."""
_COUNTS_OF_SPLIT = ("requests", "candidates", "clicks", "empty_histories", "unknown_candidates")


def write_rows(
    rows: DataFrame, folder: str, files: int, workers: int, seed: int, partitions: int
) -> tuple[dict[str, Files], dict[str, int]]:
    """Write COUNTED_ROWS to a folder a split, shuffled, and count them on the way.

    A row's file and its place there follow from a hash of what identifies it, so that the same
    rows make the same files whatever Spark's partitions were. One shuffle.

    Args:
        rows: COUNTED_ROWS.
        folder: where the splits' folders go.
        files: most files of a split.
        workers: a split has no fewer files than this if it has as many rows.
        seed: of the hash.
        partitions: of the shuffle.

    Returns:
        each split's files; the counts, named as `counts_of` says.
    """
    observed = Observation()
    files = max(files, workers)
    order = _order(seed)
    placed = (
        rows.withColumn("order", order)
        .withColumn("file", F.pmod(F.col("order"), F.lit(files)))
        .repartition(partitions, "split", "file")
        .sortWithinPartitions("split", "file", "order", "request_time")
        .observe(observed, *_counted())
        .where(F.col("split") != LEFT_OUT)
        .select(*REQUEST_ROWS.names, "split", "file")
    )
    _write(placed, f"{folder}/{_UNNAMED}")
    written = {
        name: _collect_files(f"{folder}/{_UNNAMED}/split={place}", f"{folder}/{name}")
        for place, name in enumerate(SPLITS)
    }
    _remove(f"{folder}/{_UNNAMED}")
    for name, found in written.items():
        if len(found) < min(workers, sum(int(file["rows"]) for file in found)):
            written[name] = _spread_evenly(rows.sparkSession, f"{folder}/{name}", files, seed)
    return written, {name: count or 0 for name, count in observed.get.items()}


def counts_of(split: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Those of `write_rows`' counts that belong to one split, by their own names."""
    return {name: counts[f"{split}_{name}"] for name in _COUNTS_OF_SPLIT}


def as_window(window: Window | None) -> list[str] | None:
    """First and last day as the manifest has them."""
    return None if window is None else [day.isoformat() for day in window]


def _counted() -> list[Column]:
    columns = []
    for place, split in enumerate(SPLITS):
        inside = F.col("split") == place
        counted = {
            "requests": F.when(inside & (F.col("slate") == 0), 1),
            "candidates": F.when(inside, F.col("candidate_count")),
            "clicks": F.when(inside, F.col("clicks")),
            "empty_histories": F.when(inside & (F.col("history_length") == 0), 1),
            "unknown_candidates": F.when(inside, F.col("unknown")),
        }
        columns += [F.sum(value).alias(f"{split}_{name}") for name, value in counted.items()]
    users = F.col("test_user")
    columns.append(F.count_if(users > 0).alias("test_users"))
    columns.append(F.count_if(users == KNOWN_TEST_USER).alias("test_users_in_training"))
    columns += [F.sum(F.get("tally", F.lit(i))).alias(name) for i, name in enumerate(TALLIES)]
    return columns


def _order(seed: int) -> Column:
    return F.xxhash64(F.lit(seed), "request_id", "user_id", "candidate_ids")


def _write(placed: DataFrame, folder: str) -> None:
    (
        placed.write.partitionBy(*(name for name in ("split", "file") if name in placed.columns))
        .option("parquet.block.size", _ONE_ROW_GROUP)
        .parquet(folder)
    )


def _collect_files(written: str, folder: str) -> Files:
    """Move what Spark wrote as file=n/part-… to part-n.parquet without gaps; read the footers."""
    files, source = fsspec.url_to_fs(written)
    _, target = fsspec.url_to_fs(folder)
    files.makedirs(target, exist_ok=True)
    found: list[tuple[int, str]] = []
    if files.exists(source):
        for path in files.find(source):
            if path.endswith(".parquet"):
                found.append((int(path.split("/file=")[1].split("/")[0]), path))
    listed: Files = []
    for place, (_, path) in enumerate(sorted(found)):
        name = f"part-{place:05d}.parquet"
        files.mv(path, f"{target}/{name}")
        with files.open(f"{target}/{name}", "rb") as file:
            footer = pq.ParquetFile(file).metadata
        if footer.num_row_groups != 1:
            raise RuntimeError(
                f"{folder}/{name}: expected one row group, got {footer.num_row_groups}; "
                "take more splits.files"
            )
        listed.append({"name": name, "rows": footer.num_rows})
    return listed


def _spread_evenly(spark: SparkSession, folder: str, files: int, seed: int) -> Files:
    """Write a split of very few rows again, one row a file in turn.

    By chance, hashing may leave too few files only where there are hardly more rows than files,
    so that numbering the rows in one task costs nothing.
    """
    number = F.row_number().over(Over.orderBy(_order(seed), "request_time")) - 1
    placed = (
        spark.read.schema(REQUEST_ROWS)
        .parquet(folder)
        .withColumn("file", F.pmod(number, F.lit(files)))
        .repartition(1)
        .sortWithinPartitions("file", _order(seed), "request_time")
    )
    again = f"{folder}-{_UNNAMED}"
    _write(placed, again)
    _remove(folder)
    listed = _collect_files(again, folder)
    _remove(again)
    return listed


def _remove(folder: str) -> None:
    files, path = fsspec.url_to_fs(folder)
    files.rm(path, recursive=True)


def describe(
    date: datetime.date,
    windows: Mapping[str, Window | None],
    files: Mapping[str, Files],
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """The parts of the manifest that tell of windows and rows."""
    return {
        "date": date.isoformat(),
        "windows": {name: as_window(window) for name, window in windows.items()},
        "splits": {
            name: {
                "rows": sum(int(file["rows"]) for file in files[name]),
                **counts_of(name, counts),
                "files": files[name],
            }
            for name in SPLITS
        },
    }
