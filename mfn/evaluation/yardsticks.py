"""What stands next to the models as a yardstick: popularity, and the oracle of simulated logs.

Both are scored on the same candidates as the models and measured by the same code. `popularity` is
how often the item of a candidate was chosen before the test window: what a model that knows no user
can do. The `oracle` is the probability with which each simulated click was drawn: no model can do
better.

Shuffles: three for popularity, of the behaviours by item, summed on the map side, and of their sums
and the candidates of one model for the join, unless the sums are few enough to broadcast; and two
for the oracle's join, of the candidates of one model and the truth.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn import storage, tables
from mfn.schema import EVENTS, TRUTH
from mfn.settings import Settings
from mfn.windows import days_between, windows

ORACLE = "oracle"
"""Its name among the models in the tables of results."""
POPULARITY = "popularity"
"""Its name among the models in the tables of results."""

BEHAVIOURS = ("click", "cart", "purchase")
"""Types of events that make an item popular."""

SCORED = ("model", "request_id", "item_id", "label", "score", "history_length")
"""The columns of scored candidates."""


def read_truth(spark: SparkSession, settings: Settings) -> DataFrame | None:
    """True click probabilities of the test window's finished days; None where there are none."""
    finished = finished_truth(settings)
    return spark.read.schema(TRUTH).parquet(*finished) if finished else None


def finished_truth(settings: Settings) -> list[str]:
    """Folders of the true probabilities of the test window's finished days."""
    folder = settings.logs_folder("truth")
    test = windows(settings.date, settings.windows).test
    folders = [f"{folder}/dt={day}" for day in days_between(test)]
    return [one for one in folders if storage.exists(f"{one}/_SUCCESS")]


def score_truth(candidates: DataFrame, truth: DataFrame) -> DataFrame:
    """The true probabilities as scores of the model `oracle`.

    Args:
        candidates: one model's predictions, columns SCORED.
        truth: schema.TRUTH. A candidate in it twice counts once, and with two different
            probabilities has none.

    Returns:
        columns SCORED, the candidates whose truth is known.
    """
    probability = F.min("probability")
    once = truth.groupBy("request_id", "item_id").agg(
        F.when(probability == F.max("probability"), probability).alias("true_score")
    )
    return (
        candidates.join(once, ["request_id", "item_id"], how="inner")
        .withColumn("model", F.lit(ORACLE))
        .withColumn("score", F.col("true_score"))
        .select(*SCORED)
    )


def read_popularity(spark: SparkSession, settings: Settings) -> DataFrame:
    """`item_id` and `behaviours`: clean clicks, carts and purchases before the test window.

    They are those of the windows' days. What came in the folder of a day before the test window,
    but happened in it, does not count.
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
    """The number n of earlier behaviours as score n / (n + 1) of the model `popularity`.

    The fraction rises with n and lies in [0, 1), so that scores are checked and ranked like any
    others; doubles tell neighbours apart as far as n = 67 million. It is no probability.

    Args:
        candidates: one model's predictions, columns SCORED.
        popularity: what `read_popularity` gives; an item that is not in it has 0.

    Returns:
        columns SCORED, all candidates.
    """
    behaviours = F.coalesce("behaviours", F.lit(0)).cast("double")
    return (
        candidates.join(popularity, "item_id", how="left")
        .withColumn("model", F.lit(POPULARITY))
        .withColumn("score", behaviours / (behaviours + 1))
        .select(*SCORED)
    )
