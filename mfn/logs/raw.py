"""Raw logs in day folders dt=YYYY-MM-DD: find, read and write them.

A folder holds JSON lines (gzipped or not), Parquet, or both; files whose names begin with _ or .
are not data. `_SUCCESS` marks a folder as finished. It distinguishes a day without events from a
day whose data have not arrived.

Reading drops no row: every row of every file is returned, with the fields that could be read and,
if the row could not be read, its fault. No shuffle.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructField, StructType

from mfn.errors import DataRefused
from mfn.fingerprint import of_values
from mfn.layout import STAGED
from mfn.locations import files_at, for_spark
from mfn.logs import parquet, values
from mfn.schema import DATE, RAW_EVENT, STRING, STRING_MAP

DAY = "dt"
JSON_LINES = (".json", ".json.gz")
PARQUET = ".parquet"
SUCCESS = "_SUCCESS"

BLANK = "blank"
WRONG_ENCODING, TRUNCATED = "wrong_encoding", "truncated_line"
NOT_JSON, BAD_CONTEXT, NESTED_ID = "not_json", "bad_context", "nested_id"
UNREADABLE_LINE = (WRONG_ENCODING, TRUNCATED, NOT_JSON)
"""Faults of a row of any source, in the order in which they are checked."""
UNREADABLE = (*UNREADABLE_LINE, BAD_CONTEXT, NESTED_ID)
"""Faults that make an event unreadable, in the order in which they are checked."""

IDS = ("event_id", "user_id", "item_id", "request_id")
"""Fields of an event that are ids."""

_OF_ROW = (
    StructField(DAY, DATE),
    StructField("source_file", STRING),
    StructField("raw", STRING),
    StructField("fault", STRING),
    StructField("twice", ArrayType(STRING)),
)
RAW_ROWS = StructType([*_OF_ROW, *RAW_EVENT.fields])
"""Columns of `read_events`: `raw` is the row as text (a Parquet row as JSON); `fault` is one of
UNREADABLE, or blank, or null if the row could be read; `twice` are the fields that have a key
twice, or are one, of which the last value counts; null if there are none."""

_WHITE = r"' \t\r\n\f\u000b'"
_TRIMMED = f"btrim(value, {_WHITE})"
_CUT = f"startswith({_TRIMMED}, '{{') and not endswith({_TRIMMED}, '}}')"


@dataclass(frozen=True)
class DayFolder:
    """A day's folder, its data files, and a fingerprint of its files.

    Attributes:
        finished: whether the folder has the file _SUCCESS.
        fingerprint: of names and versions of its data files and of _SUCCESS.
    """

    day: datetime.date
    path: str
    json_lines: tuple[str, ...]
    parquet: tuple[str, ...]
    finished: bool
    fingerprint: str


def day_folders(folder: str, days: Sequence[datetime.date]) -> list[DayFolder]:
    """List the folders of these days. `read_events` reads these files only, no later ones.

    Raises:
        DataRefused: a day has no folder, an empty folder without _SUCCESS, or a file that is of an
            unknown format or cannot be read by its name; the message names every such day.
    """
    files, path = files_at(folder)
    found, problems = [], []
    for day in days:
        inner = f"{DAY}={day}"
        if not files.isdir(f"{path}/{inner}"):
            problems.append(f"{day}: there is no folder {folder}/{inner}")
            continue
        listed = files.ls(f"{path}/{inner}", detail=False)
        names = sorted(name.rstrip("/").rpartition("/")[2] for name in listed)
        data = [name for name in names if not name.startswith(("_", "."))]
        urls = [f"{folder}/{inner}/{name}" for name in data]
        counted = [name for name in names if name == SUCCESS or not name.startswith(("_", "."))]
        fault = next(filter(None, (_fault(files, f"{path}/{inner}", name) for name in data)), None)
        if fault:
            problems.append(f"{day}: {fault}")
            continue
        one = DayFolder(
            day,
            f"{folder}/{inner}",
            tuple(url for url in urls if url.endswith(JSON_LINES)),
            tuple(url for url in urls if url.endswith(PARQUET)),
            SUCCESS in names,
            of_values([[name, files.ukey(f"{path}/{inner}/{name}")] for name in counted]),
        )
        if not data and not one.finished:
            problems.append(f"{day}: {empty(one)}")
        found.append(one)
    if problems:
        raise DataRefused(
            "\n".join(
                [
                    f"{folder}: expected a folder of raw logs for each day from {days[0]} to "
                    f"{days[-1]}, which the windows need:",
                    *problems,
                    "deliver these days, or choose another date or shorter windows",
                ]
            )
        )
    return found


def _fault(files: Any, folder: str, name: str) -> str | None:
    """What is wrong with a data file, as far as its name and kind say; None if nothing is."""
    shown = f"{folder}/{name}".encode(errors="backslashreplace").decode()
    expected = None
    if not name.endswith((*JSON_LINES, PARQUET)):
        expected = f"files that end with {', '.join((*JSON_LINES, PARQUET))}"
    elif not shown.endswith(name):
        expected = "file names in UTF-8"
    elif ":" in name:
        expected = "file names without a colon, after which Hadoop takes a name for a URL"
    else:
        try:
            kind = files.info(f"{folder}/{name}")["type"]
        except OSError as error:  # a symbolic link to nowhere or to itself
            return f"{shown} cannot be read: {error.strerror or error}"
        if kind != "file":
            expected = f"files, not a {kind}"
    return expected and f"expected {expected}, got {shown}"


def empty(folder: DayFolder) -> str:
    """Message about a folder without rows and without _SUCCESS."""
    return (
        f"{folder.path} holds no rows; if the day has none, put the file {SUCCESS} there: it marks "
        "the folder as complete"
    )


def read_events(spark: SparkSession, folder: str, days: Sequence[DayFolder]) -> DataFrame:
    """Read every row of these days' files of events: columns RAW_ROWS."""
    rows = read_rows(spark, folder, days, RAW_EVENT.names).withColumn(
        "map", values.parsed_map(F.col("context"))
    )
    nested = reduce(Column.__or__, (values.nested(F.col(name)) for name in IDS))
    bad_context = values.given(F.col("context")) & F.col("map").isNull()
    none = F.array().cast("array<string>")
    twice_in_context = values.keys_twice(F.col("map"))
    return rows.select(
        DAY,
        "source_file",
        "raw",
        F.coalesce("fault", F.when(bad_context, BAD_CONTEXT), F.when(nested, NESTED_ID)).alias(
            "fault"
        ),
        F.when(twice_in_context, F.concat(F.coalesce("twice", none), F.array(F.lit("context"))))
        .otherwise(F.col("twice"))
        .alias("twice"),
        *(values.of_type(one).alias(one.name) for one in RAW_EVENT if one.name != "context"),
        values.name_map(F.col("map")).alias("context"),
    )


def read_rows(
    spark: SparkSession, folder: str, days: Sequence[DayFolder], names: Sequence[str]
) -> DataFrame:
    """Read every row of these days' files.

    Args:
        names: the fields to read; all others are ignored.

    Returns:
        dt, source_file, raw, fault, twice as in RAW_ROWS, and each field as text, as
        `mfn.logs.values` takes it.

    Raises:
        DataRefused: a Parquet file cannot be read, or a column has a type without a text.
    """
    lines = [path for day in days for path in day.json_lines]
    tables = [path for day in days for path in day.parquet]
    parts = []
    if lines:
        parts.append(_read_lines(spark, folder, lines, names))
    for columns, paths in parquet.columns_of(tables, names).items():
        parts.append(_read_table(spark, folder, paths, columns, names))
    if not parts:
        texts = [StructField(name, STRING) for name in names]
        return spark.createDataFrame([], StructType([*_OF_ROW, *texts]))
    return reduce(DataFrame.unionAll, parts)


def _read_lines(
    spark: SparkSession, folder: str, paths: Sequence[str], names: Sequence[str]
) -> DataFrame:
    lines = (
        spark.read.schema(f"value string, {DAY} date")
        .option("basePath", folder)
        .text([*map(for_spark, paths)])
    )
    # Spark's parser stops after the first value of a line. It would silently drop whatever follows,
    # such as the next event after a lost line break. Inside a list it parses all values.
    in_list = F.concat(F.lit("["), F.col("value"), F.lit(",null]"))
    parsed = lines.select(
        DAY,
        F.col("_metadata.file_path").alias("source_file"),
        "value",
        F.from_json(in_list, ArrayType(STRING_MAP), values.JSON).alias("parsed"),
    )
    one_value = (F.size("parsed") == 2) & F.get("parsed", F.lit(1)).isNull()
    rows = parsed.select(
        DAY, "source_file", "value", F.when(one_value, F.get("parsed", F.lit(0))).alias("row")
    )
    keys = F.map_keys("row")
    repeated = F.filter(
        F.array(*map(F.lit, names)),
        lambda name: F.size(F.filter(keys, lambda key: key == name)) > 1,
    )
    encoded = F.expr("is_valid_utf8(value)")
    return rows.select(
        DAY,
        "source_file",
        # Latin-1 has a character for every byte: a wrongly encoded line can be kept as text and
        # converted back into its bytes.
        F.when(encoded, F.col("value"))
        .otherwise(F.decode(F.col("value").cast("binary"), "ISO-8859-1"))
        .alias("raw"),
        F.when(~encoded, WRONG_ENCODING)
        .when(
            F.col("row").isNull(),
            F.when(F.expr(f"{_TRIMMED} = ''"), BLANK)
            .when(F.expr(_CUT), TRUNCATED)
            .otherwise(NOT_JSON),
        )
        .alias("fault"),
        F.when(values.keys_twice(F.col("row")), repeated).alias("repeated"),
        values.with_keys_once(F.col("row")).alias("row"),
    ).select(
        DAY,
        "source_file",
        "raw",
        "fault",
        F.when(F.size("repeated") > 0, F.col("repeated")).alias("twice"),
        *(values.trim(F.col("row")[name]).alias(name) for name in names),
    )


def _read_table(
    spark: SparkSession,
    folder: str,
    paths: Sequence[str],
    columns: parquet.Columns,
    names: Sequence[str],
) -> DataFrame:
    """Rows of Parquet files that all have these columns."""
    schema = StructType([*(one.field for one in columns), StructField(DAY, DATE)])
    table = spark.read.schema(schema).option("basePath", folder).parquet(*map(for_spark, paths))
    texts = {name: F.lit(None).cast(STRING) for name in names}
    texts |= {one.name: one.text() for one in columns}
    encoded = F.call_function("is_valid_utf8", F.concat_ws("\n", *texts.values()))
    return table.select(
        DAY,
        F.col("_metadata.file_path").alias("source_file"),
        F.to_json(F.struct(*(texts[name].alias(name) for name in names))).alias("raw"),
        F.when(~encoded, WRONG_ENCODING).alias("fault"),
        F.lit(None).cast("array<string>").alias("twice"),
        *(values.trim(texts[name]).alias(name) for name in names),
    )


Form = Literal["json", "text", "parquet"]
_WRITTEN: dict[Form, tuple[str, str]] = {
    "json": ("gzip", ".json.gz"),
    "text": ("gzip", ".json.gz"),
    "parquet": ("snappy", PARQUET),
}
"""Compression and file name ending of each form."""


def write_days(
    rows: DataFrame, folder: str, days: Sequence[datetime.date], form: Form = "json"
) -> None:
    """Write rows into the folders of their days, and replace what is there.

    All rows are first written to a temporary folder and then moved. For each day, _SUCCESS is
    removed first and written last. A finished day with the same content is not touched, so that
    its fingerprint stays the same.

    Args:
        rows: any columns and `dt`, which names the folder and is not written. Rows keep their
            order if each day is in one partition.
        days: days to replace; one without rows gets a folder with nothing but _SUCCESS.
        form: json (JSON lines of the columns), text (lines as they are, possibly invalid JSON), or
            parquet.
    """
    files, path = files_at(folder)
    staged = f"{STAGED}{uuid.uuid4().hex[:12]}"
    compression, ending = _WRITTEN[form]
    try:
        writer = rows.write.partitionBy(DAY).option("compression", compression)
        writer.format(form).save(f"{folder}/{staged}")
        for day in days:
            inner = f"{DAY}={day}"
            new, target = f"{path}/{staged}/{inner}", f"{path}/{inner}"
            written = sorted(files.ls(new, detail=False)) if files.exists(new) else []
            data = [name for name in written if name.rpartition("/")[2].startswith("part-")]
            names = [f"{target}/part-{place:05d}{ending}" for place in range(len(data))]
            if _same_content(files, target, names, data):
                continue
            for old in (f"{target}/{SUCCESS}", target):
                if files.exists(old):
                    files.rm(old, recursive=True)
            files.makedirs(target)
            for source, name in zip(data, names, strict=True):
                files.mv(source, name)
            files.touch(f"{target}/{SUCCESS}")
    finally:
        if files.exists(f"{path}/{staged}"):
            files.rm(f"{path}/{staged}", recursive=True)


def _same_content(files: Any, folder: str, names: Sequence[str], new: Sequence[str]) -> bool:
    """Whether a finished folder holds exactly the files `names`, byte-equal to the files `new`."""
    marked = f"{folder}/{SUCCESS}"
    if not files.exists(marked) or sorted(files.find(folder)) != sorted([*names, marked]):
        return False
    return all(
        files.size(here) == files.size(there) and files.cat_file(here) == files.cat_file(there)
        for here, there in zip(names, new, strict=True)
    )
