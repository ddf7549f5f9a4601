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

import fsspec
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DoubleType,
    FloatType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from mfn.errors import DataRefused
from mfn.fingerprint import of_values
from mfn.layout import STAGED
from mfn.schema import DATE, RAW_EVENT, STRING, STRING_MAP

DAY = "dt"
JSON_LINES = (".json", ".json.gz")
PARQUET = ".parquet"
SUCCESS = "_SUCCESS"

BLANK = "blank"
WRONG_ENCODING, TRUNCATED = "wrong_encoding", "truncated_line"
NOT_JSON, BAD_CONTEXT = "not_json", "bad_context"
UNREADABLE = (WRONG_ENCODING, TRUNCATED, NOT_JSON, BAD_CONTEXT)
"""Faults that make a row unreadable, in the order in which they are checked."""

RAW_ROWS = StructType(
    [
        StructField(DAY, DATE),
        StructField("source_file", STRING),
        StructField("raw", STRING),
        StructField("fault", STRING),
        *RAW_EVENT.fields,
    ]
)
"""Columns of `read_events`: `raw` is the row as text (a Parquet row as JSON); `fault` is one of
UNREADABLE, or blank, or null if the row could be read."""

_WHITE = r"' \t\r\n\f\u000b'"
_TRIMMED = f"btrim(value, {_WHITE})"
_CUT = f"startswith({_TRIMMED}, '{{') and not endswith({_TRIMMED}, '}}')"
_STRICT = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}


@dataclass(frozen=True)
class DayFolder:
    """A day's folder, its data files, and a fingerprint of its files.

    Attributes:
        finished: whether the folder has the file _SUCCESS.
        fingerprint: of names and versions of all its files.
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
        DataRefused: a day has no folder, an empty folder without _SUCCESS, or files of an unknown
            format; the message names every such day.
    """
    files, path = fsspec.url_to_fs(folder)
    files.invalidate_cache()
    found, problems = [], []
    for day in days:
        inner = f"{DAY}={day}"
        try:
            listed = files.ls(f"{path}/{inner}", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            problems.append(f"{day}: there is no folder {folder}/{inner}")
            continue
        names = sorted(name.rstrip("/").rpartition("/")[2] for name in listed)
        data = [f"{folder}/{inner}/{name}" for name in names if not name.startswith(("_", "."))]
        unknown = [name for name in data if not name.endswith((*JSON_LINES, PARQUET))]
        one = DayFolder(
            day,
            f"{folder}/{inner}",
            tuple(name for name in data if name.endswith(JSON_LINES)),
            tuple(name for name in data if name.endswith(PARQUET)),
            SUCCESS in names,
            of_values([[name, files.ukey(f"{path}/{inner}/{name}")] for name in names]),
        )
        if unknown:
            problems.append(
                f"{day}: expected files that end with {', '.join((*JSON_LINES, PARQUET))}, "
                f"got {unknown[0]}"
            )
        elif not data and not one.finished:
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


def empty(folder: DayFolder) -> str:
    """Message about a folder without rows and without _SUCCESS."""
    return (
        f"{folder.path} holds no rows; if the day has none, put the file {SUCCESS} there: it marks "
        "the folder as complete"
    )


def read_events(spark: SparkSession, folder: str, days: Sequence[DayFolder]) -> DataFrame:
    """Read every row of these days' files: columns RAW_ROWS."""
    lines = [path for day in days for path in day.json_lines]
    tables = [path for day in days for path in day.parquet]
    parts = []
    if lines:
        parts.append(_read_lines(spark, folder, lines))
    if tables:
        parts.append(_read_tables(spark, folder, tables))
    if not parts:
        return spark.createDataFrame([], RAW_ROWS)
    return reduce(DataFrame.unionAll, parts)


def _read_lines(spark: SparkSession, folder: str, paths: Sequence[str]) -> DataFrame:
    lines = spark.read.schema(f"value string, {DAY} date").option("basePath", folder).text([*paths])
    # Spark's parser stops after the first value of a line. It would silently drop whatever follows,
    # such as the next event after a lost line break. Inside a list it parses all values.
    in_list = F.concat(F.lit("["), F.col("value"), F.lit(",null]"))
    parsed = lines.select(
        DAY,
        F.col("_metadata.file_path").alias("source_file"),
        "value",
        F.from_json(in_list, ArrayType(RAW_EVENT), _STRICT).alias("parsed"),
    )
    one_value = (F.size("parsed") == 2) & F.get("parsed", F.lit(1)).isNull()
    events = parsed.select(
        DAY, "source_file", "value", F.when(one_value, F.get("parsed", F.lit(0))).alias("event")
    )
    # A context that is not an object is parsed as null, like an absent one.
    bad_context = (
        F.col("event.context").isNull()
        & F.col("value").contains('"context"')
        & F.get_json_object("value", "$.context").isNotNull()
    )
    encoded = F.expr("is_valid_utf8(value)")
    return events.select(
        DAY,
        "source_file",
        # Latin-1 has a character for every byte: a wrongly encoded line can be kept as text and
        # converted back into its bytes.
        F.when(encoded, F.col("value"))
        .otherwise(F.decode(F.col("value").cast("binary"), "ISO-8859-1"))
        .alias("raw"),
        F.when(F.expr(f"{_TRIMMED} = ''"), BLANK)
        .when(~encoded, WRONG_ENCODING)
        .when(F.col("event").isNull() & F.expr(_CUT), TRUNCATED)
        .when(F.col("event").isNull(), NOT_JSON)
        .when(bad_context, BAD_CONTEXT)
        .alias("fault"),
        *(F.col(f"event.{name}") for name in RAW_EVENT.names),
    )


def _read_tables(spark: SparkSession, folder: str, paths: Sequence[str]) -> DataFrame:
    reader = spark.read.option("basePath", folder).option("mergeSchema", "true")
    table = reader.parquet(*paths)
    fields = {field.name: field for field in table.schema if field.name != DAY}
    texts = {
        name: _as_text(fields[name]) if name in fields else F.lit(None).cast(STRING)
        for name in RAW_EVENT.names
        if name != "context"
    }
    context, bad_context = _as_map(fields.get("context"))
    encoded = F.call_function("is_valid_utf8", F.concat_ws("\n", *texts.values()))
    return table.select(
        F.col(DAY).cast(DATE).alias(DAY),
        F.col("_metadata.file_path").alias("source_file"),
        F.to_json(F.struct(*(F.col(f"`{name}`") for name in fields))).alias("raw"),
        F.when(~encoded, WRONG_ENCODING).when(bad_context, BAD_CONTEXT).alias("fault"),
        *(texts[name].alias(name) for name in RAW_EVENT.names if name in texts),
        context.alias("context"),
    )


def _as_text(field: StructField) -> Column:
    """A Parquet column as the text that JSON would have."""
    column, kind = F.col(field.name), field.dataType
    if isinstance(kind, TimestampType):
        return F.concat(column.cast(STRING), F.lit("Z"))  # the session's zone is UTC
    if isinstance(kind, FloatType | DoubleType):  # integers with nulls often come as floats
        return F.when(
            column == F.floor(column), column.cast("decimal(20,0)").cast(STRING)
        ).otherwise(column.cast(STRING))
    if isinstance(kind, ArrayType | MapType | StructType):
        return F.to_json(column)
    return column.cast(STRING)


def _as_map(field: StructField | None) -> tuple[Column, Column]:
    """A Parquet column as a map of strings, and whether its value cannot be such a map."""
    if field is None:
        return F.lit(None).cast(STRING_MAP), F.lit(False)
    column, kind = F.col(field.name), field.dataType
    if isinstance(kind, MapType):
        return column.cast(STRING_MAP), F.lit(False)
    if isinstance(kind, StructType):
        return F.from_json(F.to_json(column), STRING_MAP.simpleString()), F.lit(False)
    if isinstance(kind, StringType):
        as_map = F.from_json(column, STRING_MAP.simpleString(), _STRICT)
        return as_map, column.isNotNull() & as_map.isNull()
    return F.lit(None).cast(STRING_MAP), column.isNotNull()


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
    files, path = fsspec.url_to_fs(folder)
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
