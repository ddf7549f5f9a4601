"""Raw logs in day folders dt=YYYY-MM-DD: finding, reading and writing them.

A folder holds JSON lines (gzipped or not), Parquet, or both; names that begin with _ or . are no
data. `_SUCCESS` marks a folder as finished, which is how a day without events is told from one
that did not come.

Reading believes nothing: every row of every file comes out, with what could be read of it and, if
it could not be read, the fault. No shuffle.
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
from mfn.schema import DATE, RAW_EVENT, STRING, STRING_MAP

DAY = "dt"
JSON_LINES = (".json", ".json.gz")
PARQUET = ".parquet"
SUCCESS = "_SUCCESS"

BLANK = "blank"
WRONG_ENCODING, TRUNCATED = "wrong_encoding", "truncated_line"
NOT_JSON, BAD_CONTEXT = "not_json", "bad_context"
UNREADABLE = (WRONG_ENCODING, TRUNCATED, NOT_JSON, BAD_CONTEXT)
"""Faults of a row as such, in the order in which they are looked for."""

RAW_ROWS = StructType(
    [
        StructField(DAY, DATE),
        StructField("source_file", STRING),
        StructField("raw", STRING),
        StructField("fault", STRING),
        *RAW_EVENT.fields,
    ]
)
"""What `read_events` gives: `raw` is the row as text, a row of Parquet as JSON; `fault` is one of
UNREADABLE, or blank, or null where the row could be read."""

_WHITE = r"' \t\r\n\f\u000b'"
_TRIMMED = f"btrim(value, {_WHITE})"
_CUT = f"startswith({_TRIMMED}, '{{') and not endswith({_TRIMMED}, '}}')"
_STRICT = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}


@dataclass(frozen=True)
class DayFolder:
    """A day's folder, its files of data, and what tells these files from others."""

    day: datetime.date
    path: str
    json_lines: tuple[str, ...]
    parquet: tuple[str, ...]
    finished: bool
    fingerprint: str


def day_folders(folder: str, days: Sequence[datetime.date]) -> list[DayFolder]:
    """What lies in the folders of these days, now: files that come later are not read.

    Raises:
        DataRefused: a day has no folder, one that is empty without being marked as finished, or
            files of a kind that is not known; the message names every such day.
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
    """What is wrong with an empty folder."""
    return (
        f"{folder.path} holds no rows; a day that had none needs the file {SUCCESS} there, which "
        "says that nothing is still to come"
    )


def read_events(spark: SparkSession, folder: str, days: Sequence[DayFolder]) -> DataFrame:
    """Every row of these days' files: RAW_ROWS."""
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
    # Spark's parser stops after the first value of a line, so that whatever follows it, such as
    # the next event after a lost line break, would be dropped unseen. Inside of a list it is seen.
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
    # A context that is no object comes out as null, like one that is not there.
    bad_context = (
        F.col("event.context").isNull()
        & F.col("value").contains('"context"')
        & F.get_json_object("value", "$.context").isNotNull()
    )
    encoded = F.expr("is_valid_utf8(value)")
    return events.select(
        DAY,
        "source_file",
        # Latin-1 has a character for every byte, so that a wrongly encoded line can be kept as
        # text and turned back into its bytes.
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
    """A column of Parquet as JSON would have it."""
    column, kind = F.col(field.name), field.dataType
    if isinstance(kind, TimestampType):
        return F.concat(column.cast(STRING), F.lit("Z"))  # the session's zone is UTC
    if isinstance(kind, FloatType | DoubleType):  # what becomes of whole numbers beside nulls
        return F.when(
            column == F.floor(column), column.cast("decimal(20,0)").cast(STRING)
        ).otherwise(column.cast(STRING))
    if isinstance(kind, ArrayType | MapType | StructType):
        return F.to_json(column)
    return column.cast(STRING)


def _as_map(field: StructField | None) -> tuple[Column, Column]:
    """A column of Parquet as a map of strings, and whether it cannot be one."""
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
"""By form the compression, and how the files' names end."""


def write_days(
    rows: DataFrame, folder: str, days: Sequence[datetime.date], form: Form = "json"
) -> None:
    """Write rows into the folders of their days, replacing what is there.

    rows: any columns and `dt`, which names the folder and does not enter the lines. They keep
    their order if all of a day's are in one partition. A day of `days` without rows gets a folder
    that holds nothing but _SUCCESS.
    form: JSON lines made of the columns; lines given as text, which may be no JSON at all; or
    Parquet.

    Rows are written beside their place and moved there when all of them are written. Each day is
    marked as finished last, and unmarked first. A finished day that holds the same already is left
    as it is, so that nobody takes it for another.
    """
    files, path = fsspec.url_to_fs(folder)
    staged = f".staged-{uuid.uuid4().hex[:12]}"
    compression, ending = _WRITTEN[form]
    try:
        writer = rows.write.partitionBy(DAY).option("compression", compression)
        writer.format(form).save(f"{folder}/{staged}")
        for day in days:
            inner = f"{DAY}={day}"
            made, kept = f"{path}/{staged}/{inner}", f"{path}/{inner}"
            written = sorted(files.ls(made, detail=False)) if files.exists(made) else []
            data = [name for name in written if name.rpartition("/")[2].startswith("part-")]
            names = [f"{kept}/part-{place:05d}{ending}" for place in range(len(data))]
            if _holds(files, kept, names, data):
                continue
            for old in (f"{kept}/{SUCCESS}", kept):
                if files.exists(old):
                    files.rm(old, recursive=True)
            files.makedirs(kept)
            for source, name in zip(data, names, strict=True):
                files.mv(source, name)
            files.touch(f"{kept}/{SUCCESS}")
    finally:
        if files.exists(f"{path}/{staged}"):
            files.rm(f"{path}/{staged}", recursive=True)


def _holds(files: Any, folder: str, names: Sequence[str], like: Sequence[str]) -> bool:
    """Whether a finished day's folder holds these files, with the bytes of those others."""
    marked = f"{folder}/{SUCCESS}"
    if not files.exists(marked) or sorted(files.find(folder)) != sorted([*names, marked]):
        return False
    return all(
        files.size(here) == files.size(there) and files.cat_file(here) == files.cat_file(there)
        for here, there in zip(names, like, strict=True)
    )
