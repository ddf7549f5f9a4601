"""Yardsticks for the models: popularity, and the oracle of simulated logs.

Both are scored on the same candidates as the models and measured by the same code. `popularity` is
how often a candidate's item was clicked, put into a cart or bought before the test window: a
ranking that knows no user. The `oracle` is the probability from which each simulated click was
drawn: no model can be better.

Shuffles: three for popularity: the behaviours by item, summed on the map side, and for the join
those sums and the candidates of one model (none for the join if the sums are small enough to
broadcast). Two for the oracle's join: the candidates of one model, and the truth.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn import storage, tables
from mfn.schema import EVENTS, TRUTH
from mfn.settings import Settings
from mfn.windows import days_between, windows

ORACLE = "oracle"
"""Model name of this yardstick in the result tables."""
POPULARITY = "popularity"
"""Model name of this yardstick in the result tables."""

BEHAVIOURS = ("click", "cart", "purchase")
"""Event types that popularity counts."""

SCORED = (
    "model", "request_id", "user_id", "request_time", "item_id", "label", "score",
    "history_length",
)  # fmt: skip
"""Columns of scored candidates. User, request id and time identify a request."""


def read_truth(spark: SparkSession, settings: Settings) -> DataFrame | None:
    """True click probabilities of the test window's finished days; None without such days."""
    finished = finished_truth(settings)
    return spark.read.schema(TRUTH).parquet(*finished) if finished else None


def finished_truth(settings: Settings) -> list[str]:
    """Folders with the true click probabilities of the test window's finished days."""
    folder = settings.logs_folder("truth")
    test = windows(settings.date, settings.windows).test
    folders = [f"{folder}/dt={day}" for day in days_between(test)]
    return [one for one in folders if storage.exists(f"{one}/_SUCCESS")]


def score_truth(candidates: DataFrame, truth: DataFrame) -> DataFrame:
    """Use the true probabilities as scores of the model `oracle`.

    Args:
        candidates: one model's predictions, columns SCORED.
        truth: schema.TRUTH. Repeated rows of a candidate count once. If their probabilities
            differ, the candidate's score is null.

    Returns:
        columns SCORED; only candidates with a row in truth.
    """
    probability = F.min("probability")
    once = truth.groupBy("user_id", "request_id", "item_id").agg(
        F.when(probability == F.max("probability"), probability).alias("true_score")
    )
    return (
        candidates.join(once, ["user_id", "request_id", "item_id"], how="inner")
        .withColumn("model", F.lit(ORACLE))
        .withColumn("score", F.col("true_score"))
        .select(*SCORED)
    )


def read_popularity(spark: SparkSession, settings: Settings) -> DataFrame:
    """Count clean clicks, carts and purchases by item, on the windows' days before the test window.

    An event that happened in the test window does not count, even if it is in the folder of an
    earlier day.

    Returns:
        item_id, behaviours.
    """
    span = windows(settings.date, settings.windows)
    first, test = F.lit(span.days[0]), F.lit(span.test[0])
    day = F.to_date(F.from_utc_timestamp("event_time", settings.logs.day_time_zone))
    return (
        tables.read(spark, settings.root, EVENTS, "validate_logs")
        .where((F.col("dt") >= first) & (F.col("dt") < test) & (day < test))
        .where(F.col("event_type").isin(*BEHAVIOURS))
        .groupBy("item_id")
        .agg(F.count("*").alias("behaviours"))
        .select("item_id", "behaviours")
    )


def score_popularity(candidates: DataFrame, popularity: DataFrame) -> DataFrame:
    """Score candidates as the model `popularity`: n / (n + 1), n being the earlier behaviours.

    The score rises with n and is in [0, 1), so it is checked and ranked like other scores. As
    doubles, the scores of n and n + 1 differ up to n = 67 million. The score is not a probability.

    Args:
        candidates: one model's predictions, columns SCORED.
        popularity: result of `read_popularity`; items that are missing in it have n = 0.

    Returns:
        columns SCORED; all candidates.
    """
    behaviours = F.coalesce("behaviours", F.lit(0)).cast("double")
    return (
        candidates.join(popularity, "item_id", how="left")
        .withColumn("model", F.lit(POPULARITY))
        .withColumn("score", behaviours / (behaviours + 1))
        .select(*SCORED)
    )
