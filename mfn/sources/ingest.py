"""The job `ingest`: a public data set's own files to raw logs. A file a source."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

from mfn import fingerprint
from mfn.job import Counts, job
from mfn.settings import Settings
from mfn.sources.amazon import amazon
from mfn.sources.movielens import movielens
from mfn.sources.online_retail import online_retail
from mfn.sources.taobao import taobao

SOURCES = {
    "movielens": movielens,
    "online_retail": online_retail,
    "amazon": amazon,
    "taobao": taobao,
}
"""By the setting `ingest.source`."""


def _reads(spark: SparkSession, settings: Settings) -> Any:
    own, zones = settings.ingest, (settings.logs.time_zone, settings.logs.day_time_zone)
    return [own.model_dump(), zones, fingerprint.of_files(own.path) if own.path else None]


@job(_reads, lambda settings: [settings.logs_folder("events")], sections=("logs", "ingest"))
def ingest(spark: SparkSession, settings: Settings) -> Counts:
    """Write raw logs made of the files of the data set that `ingest.source` names.

    Raises:
        NotPublished: `ingest.path` is not given, or lacks a file.
        DataRefused: the files are not what they should be, or have nothing of the days asked for.
    """
    return SOURCES[settings.ingest.source](spark, settings)
