"""Write request rows in random order, as files of one row group, and count them in the same pass.

A hash of what identifies a row decides its file and its place in it. The same rows therefore make
the same files, however Spark partitions them. Within one JVM the files are equal byte for byte.
Between two JVMs only the order of a column's encodings in the Parquet footer can differ.
One shuffle, by split and file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, Observation, SparkSession, Window
from pyspark.sql import functions as F

from mfn.locations import files_at
from mfn.schema import REQUEST_ROWS
from mfn.splits.history import KNOWN_TEST_USER, NO_SPLIT
from mfn.splits.requests import DROP_COUNTS, SPLITS

Files = list[dict[str, str | int]]
"""Name and number of rows of each file of a split, sorted by name."""

COUNTS_OF_SPLIT = (
    "requests", "candidates", "clicks", "empty_histories", "unknown_candidates",
    "unlisted_candidates", "behaviours", "unlisted_behaviours",
)  # fmt: skip
COUNTS = ("test_users", "test_users_in_training", *DROP_COUNTS)
"""Names of the counts: of each split, and of all splits together."""

_AS_SPARK_NAMES_THEM = "by_split_and_file"
_ONE_ROW_GROUP = 1 << 40
"""In bytes, more than any file has: Parquet never starts a second row group."""


def write_rows(
    rows: DataFrame, folder: str, files: int, workers: int, seed: int, partitions: int
) -> tuple[dict[str, Files], dict[str, int]]:
    """Write COUNTED_ROWS, each split to its own folder.

    Args:
        rows: COUNTED_ROWS.
        folder: the folders of the splits are created in it.
        files: maximum number of files of a split, unless `workers` is larger.
        workers: minimum number of files of a split that has at least this many rows.
        seed: of the hash.
        partitions: number of partitions of the shuffle.

    Returns:
        The files of each split; the counts COUNTS, and those of each split, which `counts_of`
        reads.
    """
    files = max(files, workers)
    observed = Observation()
    placed = (
        rows.withColumn("order", _order(seed))
        .withColumn("file", F.pmod(F.col("order"), F.lit(files)))
        .repartition(partitions, "split", "file")
        .sortWithinPartitions("split", "file", "order", "request_time")
        .observe(observed, *_counted())
        .where(F.col("split") != NO_SPLIT)
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
            found[name] = _rewrite_evenly(rows.sparkSession, f"{folder}/{name}", files, seed)
    return found, {name: count or 0 for name, count in observed.get.items()}


def write_one_file(frame: DataFrame, folder: str) -> None:
    """Write a frame of one partition as one file, part-00000.parquet."""
    written = f"{folder}-{_AS_SPARK_NAMES_THEM}"
    _write(frame, written)
    _collect_files(written, folder)
    _remove(written)


def rows_of(files: Files) -> int:
    """Number of rows of all files."""
    return sum(int(file["rows"]) for file in files)


def counts_of(split: str, counts: Mapping[str, int]) -> dict[str, int]:
    """The counts of one split from those of `write_rows`, by the names in COUNTS_OF_SPLIT."""
    return {name: counts[f"{split}_{name}"] for name in COUNTS_OF_SPLIT}


def _counted() -> list[Column]:
    """One aggregate column per count; `get` gives null if `tally` is empty."""
    columns = []
    for place, split in enumerate(SPLITS):
        inside = F.col("split") == place
        counted = {
            "requests": F.when(inside & (F.col("slate") == 0), 1),
            "candidates": F.when(inside, F.col("candidate_count")),
            "clicks": F.when(inside, F.col("clicks")),
            "empty_histories": F.when(inside & (F.col("history_length") == 0), 1),
            "unknown_candidates": F.when(inside, F.col("unknown")),
            "unlisted_candidates": F.when(inside, F.col("unlisted")),
            "behaviours": F.when(inside, F.col("history_length")),
            "unlisted_behaviours": F.when(inside, F.col("unlisted_behaviours")),
        }
        columns += [F.sum(counted[name]).alias(f"{split}_{name}") for name in COUNTS_OF_SPLIT]
    columns.append(F.count_if(F.col("test_user") > 0).alias("test_users"))
    in_training = F.col("test_user") == KNOWN_TEST_USER
    columns.append(F.count_if(in_training).alias("test_users_in_training"))
    columns += [F.sum(F.get("tally", F.lit(i))).alias(name) for i, name in enumerate(DROP_COUNTS)]
    return columns


def _order(seed: int) -> Column:
    return F.xxhash64(F.lit(seed), "request_id", "user_id", "candidate_ids")


def _write(placed: DataFrame, folder: str, *by: str) -> None:
    writer = placed.write.partitionBy(*by).option("parquet.block.size", _ONE_ROW_GROUP)
    with _times_in_utc(placed.sparkSession):
        writer.parquet(folder)


@contextlib.contextmanager
def _times_in_utc(spark: SparkSession) -> Iterator[None]:
    """Write times as microseconds in UTC; Spark's default format has no time zone.

    Spark offers only a setting of the session for this, no option of the writer.
    """
    name = "spark.sql.parquet.outputTimestampType"
    before = spark.conf.get(name)
    spark.conf.set(name, "TIMESTAMP_MICROS")
    try:
        yield
    finally:
        spark.conf.set(name, before or "INT96")


def _collect_files(written: str, folder: str) -> Files:
    """Move the files file=n/part-… to part-n.parquet, numbered without gaps; read the footers."""
    files, source = files_at(written)
    _, target = files_at(folder)
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
                "increase splits.files, so that the files get smaller"
            )
        listed.append({"name": name, "rows": footer.num_rows})
    return listed


def _rewrite_evenly(spark: SparkSession, folder: str, files: int, seed: int) -> Files:
    """Rewrite a split of very few rows: row i goes to file i modulo `files`.

    With a hash, some files may get no row. This happens only if there are hardly more rows than
    files, so that numbering the rows in one task is cheap.
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
    files, path = files_at(folder)
    files.rm(path, recursive=True)
