"""The Spark session: made in one place, in UTC, with Delta."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import delta

from pyspark.conf import SparkConf
from pyspark.sql import SparkSession

from mfn.settings import Settings

SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""Set by spark-submit for the driver's Python: a JVM with its own options is already there."""


def master(settings: Settings) -> str:
    """The master that a session will have: spark-submit's if it started us, else the setting."""
    if SUBMITTED in os.environ:
        return str(SparkConf().get("spark.master", settings.spark.master))
    return settings.spark.master


def start(settings: Settings, name: str) -> SparkSession:
    """A session for one job, or the one that is already there."""
    builder = (
        SparkSession.builder.appName(name)
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config(
            "spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog"
        )
        .config("spark.sql.shuffle.partitions", settings.spark.shuffle_partitions)
        # The log of a small table is replayed in so many tasks; the default of 50 costs seconds.
        .config("spark.databricks.delta.snapshotPartitions", 2)
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
    )
    if SUBMITTED not in os.environ:
        builder = (
            builder.master(settings.spark.master)
            .config("spark.driver.memory", settings.spark.driver_memory)
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.driver.extraJavaOptions", "-Duser.timezone=UTC")
        )
        builder = _with_delta(builder)
    for key, value in settings.spark.options.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _with_delta(builder: SparkSession.Builder) -> SparkSession.Builder:
    """Delta's jars from the user's cache, where the set-up put them, or else resolved by Spark."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jars = sorted((cache / "mfn" / "jars" / f"delta-{version('delta-spark')}").glob("*.jar"))
    if jars:
        return builder.config("spark.jars", ",".join(str(jar) for jar in jars))
    return delta.configure_spark_with_delta_pip(builder)
