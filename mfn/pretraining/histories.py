"""The histories that pretraining learns from."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.schema import REQUEST_ROWS
from mfn.splits.published import Splits


def latest_histories(spark: SparkSession, splits: Splits, split: str) -> DataFrame:
    """`user_id` and `history` of the latest row of a split, for every user with a history in it.

    One shuffle, by user; each task sends at most one history of a user.
    """
    return (
        spark.read.schema(REQUEST_ROWS)
        .parquet(f"{splits.folder}/{split}")
        .where(F.col("history_length") > 0)
        .groupBy("user_id")
        .agg(F.max_by("history", F.struct("request_time", "request_id")).alias("history"))
    )
