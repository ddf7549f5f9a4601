"""The job `ingest`: convert a public data set's files to raw logs. One module for each source."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

from mfn import fingerprint
from mfn.job import Counts, job
from mfn.settings import Settings
from mfn.sources.amazon import amazon
from mfn.sources.csv_file import csv_file
from mfn.sources.movielens import movielens
from mfn.sources.online_retail import online_retail
from mfn.sources.taobao import taobao

SOURCES = {
    "csv": csv_file,
    "movielens": movielens,
    "online_retail": online_retail,
    "amazon": amazon,
    "taobao": taobao,
}
"""Functions by the value of the setting `ingest.source`."""


def _reads(spark: SparkSession, settings: Settings) -> Any:
    own, zones = settings.ingest, (settings.logs.time_zone, settings.logs.day_time_zone)
    return [own.model_dump(), zones, fingerprint.of_files(own.path) if own.path else None]


@job(_reads, lambda settings: [settings.logs_folder("events")], sections=("logs", "ingest"))
def ingest(spark: SparkSession, settings: Settings) -> Counts:
    """Convert the files of the data set `ingest.source` to raw logs.

    Raises:
        NotPublished: `ingest.path` is not given, or a file is missing there.
        DataRefused: a file has another format than expected, or no row is of the requested days.
    """
    return SOURCES[settings.ingest.source](spark, settings)
