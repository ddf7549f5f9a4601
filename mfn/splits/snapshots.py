"""Raw snapshots of the catalogue and of the users' profiles, one folder per day."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import MapType, StructField, StructType

from mfn.locations import files_at, for_spark
from mfn.logs import raw
from mfn.logs.raw import DAY
from mfn.schema import DATE


def days_of(folder: str, last: datetime.date) -> list[datetime.date]:
    """Days up to and including `last` that have a snapshot in `folder`, oldest first.

    Other folders and files there are ignored, such as dt=2026-02-30, which is no day.
    """
    files, path = files_at(folder)
    if not files.exists(path):
        return []
    days = set()
    for name in files.ls(path, detail=False):
        if found := re.search(rf"/{DAY}=([\d-]{{10}})/?$", name):
            with contextlib.suppress(ValueError):
                days.add(datetime.date.fromisoformat(found[1]))
    return sorted(day for day in days if day <= last)


def read(
    spark: SparkSession, folder: str, days: Sequence[datetime.date], schema: StructType
) -> DataFrame:
    """Snapshots of these days, from JSON lines or Parquet, with the column `dt`.

    A column that a file does not have is null. A value that cannot be read as the schema's type is
    null. In a line that is not JSON every column is null.

    Raises:
        DataRefused: the folder of a day is empty or has files of another format.
    """
    with_day = StructType([*schema.fields, StructField(DAY, DATE)])
    folders = raw.day_folders(folder, days)
    lines = [path for day in folders for path in day.json_lines]
    tables = [path for day in folders for path in day.parquet]
    frames = []
    if lines:
        read_lines = (
            spark.read.schema(with_day).option("basePath", folder).json([*map(for_spark, lines)])
        )
        frames.append(read_lines.select(*with_day.names))
    if tables:
        reader = spark.read.option("basePath", folder).option("mergeSchema", "true")
        table = reader.parquet(*map(for_spark, tables))
        found = {field.name: field for field in table.schema}
        columns = [_as(field, found.get(field.name)) for field in with_day]
        frames.append(table.select(*columns))
    if not frames:
        return spark.createDataFrame([], with_day)
    return frames[0] if len(frames) == 1 else frames[0].unionByName(frames[1])


def _as(wanted: StructField, found: StructField | None) -> Column:
    """A Parquet column in the schema's type; null if it is missing or cannot be cast."""
    if found is None:
        return F.lit(None).cast(wanted.dataType).alias(wanted.name)
    column = F.col(wanted.name)
    if isinstance(wanted.dataType, MapType) and isinstance(found.dataType, StructType):
        return F.from_json(F.to_json(column), wanted.dataType.simpleString()).alias(wanted.name)
    return column.try_cast(wanted.dataType).alias(wanted.name)
