"""Request rows as files of one row group, shuffled once, and counted on the way.

A row's file and its place there follow from a hash of what identifies it, so that the same rows
make the same files whatever Spark's partitions were: the same to the byte within one JVM; between
two, Parquet may list a column's encodings in another order in the footer, and nothing else differs.
One shuffle, by split and file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

import fsspec
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, Observation, SparkSession, Window
from pyspark.sql import functions as F

from mfn.schema import REQUEST_ROWS
from mfn.splits.history import KNOWN_TEST_USER, LEFT_OUT
from mfn.splits.requests import SPLITS, TALLIES

Files = list[dict[str, str | int]]
"""Name and rows of each file of a split, in the order of the names."""

COUNTS_OF_SPLIT = ("requests", "candidates", "clicks", "empty_histories", "unknown_candidates")
COUNTS = ("test_users", "test_users_in_training", *TALLIES)
"""What is counted: of each split, and of all of them."""

_AS_SPARK_NAMES_THEM = "by_split_and_file"
_ONE_ROW_GROUP = 1 << 40
"""More bytes than any file has: Parquet then never ends a row group early."""


def write_rows(
    rows: DataFrame, folder: str, files: int, workers: int, seed: int, partitions: int
) -> tuple[dict[str, Files], dict[str, int]]:
    """Write COUNTED_ROWS to a folder a split.

    Args:
        rows: COUNTED_ROWS.
        folder: where the splits' folders go.
        files: most files of a split, unless `workers` is more.
        workers: a split has no fewer files than this if it has as many rows.
        seed: of the hash.
        partitions: of the shuffle.

    Returns:
        each split's files; the counts, those of a split named as `counts_of` wants them.
    """
    files = max(files, workers)
    observed = Observation()
    placed = (
        rows.withColumn("order", _order(seed))
        .withColumn("file", F.pmod(F.col("order"), F.lit(files)))
        .repartition(partitions, "split", "file")
        .sortWithinPartitions("split", "file", "order", "request_time")
        .observe(observed, *_counted())
        .where(F.col("split") != LEFT_OUT)
        .select(*REQUEST_ROWS.names, "split", "file")
    )
    written = f"{folder}/{_AS_SPARK_NAMES_THEM}"
    _write(placed, written, "split", "file")
    found = {
        name: _collect_files(f"{written}/split={place}", f"{folder}/{name}")
        for place, name in enumerate(SPLITS)
    }
    _remove(written)
    for name, listed in found.items():
        if len(listed) < min(workers, rows_of(listed)):
            found[name] = _deal_rows(rows.sparkSession, f"{folder}/{name}", files, seed)
    return found, {name: count or 0 for name, count in observed.get.items()}


def write_one_file(frame: DataFrame, folder: str) -> None:
    """Write a frame of one partition as one file, part-00000.parquet."""
    written = f"{folder}-{_AS_SPARK_NAMES_THEM}"
    _write(frame, written)
    _collect_files(written, folder)
    _remove(written)


def rows_of(files: Files) -> int:
    """Rows of all files together."""
    return sum(int(file["rows"]) for file in files)


def counts_of(split: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Those of `write_rows`' counts that belong to one split, by COUNTS_OF_SPLIT."""
    return {name: counts[f"{split}_{name}"] for name in COUNTS_OF_SPLIT}


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
        columns += [F.sum(counted[name]).alias(f"{split}_{name}") for name in COUNTS_OF_SPLIT]
    columns.append(F.count_if(F.col("test_user") > 0).alias("test_users"))
    in_training = F.col("test_user") == KNOWN_TEST_USER
    columns.append(F.count_if(in_training).alias("test_users_in_training"))
    columns += [F.sum(F.get("tally", F.lit(i))).alias(name) for i, name in enumerate(TALLIES)]
    return columns


def _order(seed: int) -> Column:
    return F.xxhash64(F.lit(seed), "request_id", "user_id", "candidate_ids")


def _write(placed: DataFrame, folder: str, *by: str) -> None:
    writer = placed.write.partitionBy(*by).option("parquet.block.size", _ONE_ROW_GROUP)
    with _times_in_utc(placed.sparkSession):
        writer.parquet(folder)


@contextlib.contextmanager
def _times_in_utc(spark: SparkSession) -> Iterator[None]:
    """Write times as microseconds in UTC; Spark's default is a form that names no zone.

    There is no option of the writer for it, only one of the session.
    """
    name = "spark.sql.parquet.outputTimestampType"
    before = spark.conf.get(name)
    spark.conf.set(name, "TIMESTAMP_MICROS")
    try:
        yield
    finally:
        spark.conf.set(name, before or "INT96")


def _collect_files(written: str, folder: str) -> Files:
    """Move what Spark wrote as file=n/part-… to part-n.parquet, without gaps; read the footers."""
    files, source = fsspec.url_to_fs(written)
    _, target = fsspec.url_to_fs(folder)
    files.makedirs(target, exist_ok=True)
    paths = files.find(source) if files.exists(source) else []
    numbered = [
        (int(number[1]) if (number := re.search(r"/file=(\d+)/", path)) else 0, path)
        for path in paths
        if path.endswith(".parquet")
    ]
    listed: Files = []
    for place, (_, path) in enumerate(sorted(numbered)):
        name = f"part-{place:05d}.parquet"
        files.mv(path, f"{target}/{name}")
        with files.open(f"{target}/{name}", "rb") as file:
            footer = pq.ParquetFile(file).metadata
        if footer.num_row_groups != 1:
            raise RuntimeError(
                f"{folder}/{name}: expected one row group, got {footer.num_row_groups}; "
                "set splits.files higher, so that files get smaller"
            )
        listed.append({"name": name, "rows": footer.num_rows})
    return listed


def _deal_rows(spark: SparkSession, folder: str, files: int, seed: int) -> Files:
    """Write a split of very few rows again, dealing its rows to the files in turn.

    By chance a hash may leave too few files, but only where there are hardly more rows than
    files, so that numbering them in one task costs nothing.
    """
    number = F.row_number().over(Window.orderBy(_order(seed), "request_time")) - 1
    placed = (
        spark.read.schema(REQUEST_ROWS)
        .parquet(folder)
        .withColumn("file", F.pmod(number, F.lit(files)))
        .repartition(1)
        .sortWithinPartitions("file", _order(seed), "request_time")
    )
    again = f"{folder}-{_AS_SPARK_NAMES_THEM}"
    _write(placed, again, "file")
    _remove(folder)
    listed = _collect_files(again, folder)
    _remove(again)
    return listed


def _remove(folder: str) -> None:
    files, path = fsspec.url_to_fs(folder)
    files.rm(path, recursive=True)
