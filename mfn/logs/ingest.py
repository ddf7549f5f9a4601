"""The job `ingest`: a public data set's own files to raw logs. A file a source."""

from __future__ import annotations

from pyspark.sql import SparkSession

from mfn.job import Counts
from mfn.logs.movielens import movielens
from mfn.settings import Settings

SOURCES = {"movielens": movielens}


def ingest(spark: SparkSession, settings: Settings) -> Counts:
    """Write raw logs made of the files of the data set that `ingest.source` names."""
    folders = {kind: settings.logs_folder(kind) for kind in ("events", "items", "users")}
    return SOURCES[settings.ingest.source](spark, settings.ingest, folders)
