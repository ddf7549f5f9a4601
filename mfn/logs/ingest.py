"""The job `ingest`: a public data set's own files to raw logs. A file a source."""

from __future__ import annotations

from pyspark.sql import SparkSession

from mfn.job import Counts
from mfn.logs.movielens import movielens
from mfn.logs.online_retail import online_retail
from mfn.settings import Settings

SOURCES = {"movielens": movielens, "online_retail": online_retail}


def ingest(spark: SparkSession, settings: Settings) -> Counts:
    """Write raw logs made of the files of the data set that `ingest.source` names.

    Raises:
        NotPublished: `ingest.path` is not given, or lacks a file.
        DataRefused: the files are not what they should be.
    """
    return SOURCES[settings.ingest.source](spark, settings)
