"""The histories that pretraining learns from.

Legend: U users, N history steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import Tensor

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


def sample(histories: DataFrame, users: int, seed: int) -> DataFrame:
    """At most so many of the users of `latest_histories`, drawn at random by the seed."""
    return histories.orderBy(F.xxhash64("user_id", F.lit(seed)), "user_id").limit(users)


def matrix(histories: Iterable[np.ndarray], steps: int) -> Tensor:
    """Histories as item rows, [U, N], 0 where they are shorter."""
    rows = list(histories)
    matrix_UN = np.zeros((len(rows), steps), dtype=np.int64)
    for row, history in zip(matrix_UN, rows, strict=True):
        row[: len(history)] = history
    return torch.from_numpy(matrix_UN)
