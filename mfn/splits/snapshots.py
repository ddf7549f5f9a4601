"""Raw snapshots of the catalogue and of the users' profiles, a folder a day."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

import fsspec
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from mfn import storage
from mfn.schema import DATE

DAY = "dt"
JSON_LINES = (".json", ".json.gz")
PARQUET = ".parquet"


def days_of(folder: str, last: datetime.date) -> list[datetime.date]:
    """Days that have a snapshot in `folder`, up to and including `last`, oldest first."""
    files, path = fsspec.url_to_fs(folder)
    if not files.exists(path):
        return []
    found = (re.search(r"/dt=(\d{4}-\d\d-\d\d)/?$", name) for name in files.ls(path, detail=False))
    days = (datetime.date.fromisoformat(match[1]) for match in found if match)
    return sorted(day for day in days if day <= last)


def read(
    spark: SparkSession, folder: str, days: Sequence[datetime.date], schema: StructType
) -> DataFrame:
    """Snapshots of these days as they are, JSON lines or Parquet, and the column `dt`.

    Columns that a file lacks are null, and so is every column of a line that is no JSON.
    """
    with_day = StructType([*schema.fields, StructField(DAY, DATE)])
    lines, tables = [], []
    for day in days:
        one = f"{folder}/{DAY}={day}"
        if any(storage.list_files(one, suffix) for suffix in JSON_LINES):
            lines.append(one)
        if storage.list_files(one, PARQUET):
            tables.append(one)
    frame = spark.createDataFrame([], with_day)
    if lines:
        reader = spark.read.schema(with_day).option("basePath", folder)
        read_lines = reader.option("pathGlobFilter", "*{.json,.json.gz}").json(lines)
        frame = read_lines if not tables else read_lines.select(*with_day.names)
    if tables:
        reader = spark.read.option("basePath", folder).option("mergeSchema", "true")
        raw = reader.option("pathGlobFilter", f"*{PARQUET}").parquet(*tables)
        columns = [
            (F.col(field.name) if field.name in raw.columns else F.lit(None))
            .cast(field.dataType)
            .alias(field.name)
            for field in with_day
        ]
        frame = frame.unionByName(raw.select(*columns)) if lines else raw.select(*columns)
    return frame.select(*with_day.names)
