"""Raw snapshots of the catalogue and of the users' profiles, one folder per day."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from mfn.locations import files_at
from mfn.logs import raw, values
from mfn.logs.raw import BLANK, DAY


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


def used(days: Sequence[datetime.date], first: datetime.date) -> list[datetime.date]:
    """Of these days, the newest one up to `first`, and all later ones."""
    before = [day for day in days if day <= first]
    return [*before[-1:], *days[len(before) :]]


def read(
    spark: SparkSession, folder: str, days: Sequence[datetime.date], schema: StructType
) -> DataFrame:
    """Snapshots of these days, from JSON lines or Parquet, with the column `dt`.

    A column that a file does not have is null. A value that cannot be read as the schema's type is
    null. In a row that cannot be read every column is null. `mfn.logs.catalogue` counts both.

    Raises:
        DataRefused: the folder of a day is empty or has files of another format; or as `read_rows`.
    """
    rows = raw.read_rows(spark, folder, raw.day_folders(folder, days), schema.names)
    readable = F.col("fault").isNull()
    return rows.where(readable | (F.col("fault") != BLANK)).select(
        *(F.when(readable, values.of_type(one)).alias(one.name) for one in schema), DAY
    )
