"""Print how well two probes and the oracle do on the simulated shop and on its control.

    python scripts/probe_shop.py --date 2026-03-08 [--simulate.users 4000 …]

The probes know the true attributes of items, colour and material, and the user's history in the
logs: the last behaviours before the test day.

- *average* of the history: how far its mean has the candidate's attributes, each attribute by
  itself;
- *closest* interest: the most that any one behaviour has in common with the candidate: nothing,
  one attribute, or both together.

In the shop "closest" must be ahead of "average" by 0.02 or more: otherwise nothing in the logs
needs several interests, and comparing models by how they extract them proves nothing. In the
control, where no click needs both attributes of one interest, "closest" must not be ahead. The
*oracle* is the true probability.

Two shuffles: behaviours by user, and candidates by user to meet them.
"""

from __future__ import annotations

import datetime
import logging
import sys
import tempfile

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn import spark as sessions
from mfn.errors import BadSettings
from mfn.evaluation.aggregate import ALL, Slice, aggregate
from mfn.job import BAD_SETTINGS, parse, refuse
from mfn.logs import raw
from mfn.schema import RAW_ITEM
from mfn.settings import Settings
from mfn.simulator.simulate import simulate_logs

SEEDS = (7, 8, 9)
PROBES = ("average", "closest", "oracle")
LAST_TIME = "23:30"
"""Clicks on later requests may lie in the next day's log."""


def probe(spark: SparkSession, settings: Settings) -> dict[str, float]:
    """AUC of each of PROBES on the run date's candidates in the raw logs of `simulate_logs`."""
    areas_of_all = aggregate(score(spark, settings), [Slice(ALL, ALL, "true")])
    found = {row["model"]: float(row["auc"]) for row in areas_of_all.collect()}
    return {name: found[name] for name in PROBES}


def score(spark: SparkSession, settings: Settings) -> DataFrame:
    """Scores of each probe for the run date's candidates: model, label, score."""
    days = [
        settings.date - datetime.timedelta(days=back)
        for back in reversed(range(settings.simulate.days))
    ]
    folder = settings.logs_folder("events")
    rows = raw.read_events(spark, folder, raw.day_folders(folder, days))
    events = rows.where(
        F.col("fault").isNull() & F.col("event_time").startswith(F.col("dt").cast("string"))
    ).join(_attributes(spark, settings, days), "item_id", how="inner")
    scored = (
        _candidates(spark, settings, events)
        .join(_histories(settings, events), "user_id", how="left")
        .select("label", F.col("probability").alias("oracle"), *_probes())
    )
    return scored.select(
        F.inline(
            F.array(*(F.struct(F.lit(p).alias("model"), F.col(p).alias("score")) for p in PROBES))
        ),
        "label",
    ).select("model", "label", "score")


def _attributes(spark: SparkSession, settings: Settings, days: list[datetime.date]) -> DataFrame:
    folders = [f"{settings.logs_folder('items')}/dt={day}" for day in days]
    entities = F.col("entities")
    return (
        spark.read.schema(RAW_ITEM)
        .json(folders)
        .dropDuplicates(["item_id"])
        .select("item_id", entities[0].alias("colour"), entities[1].alias("material"))
    )


def _histories(settings: Settings, events: DataFrame) -> DataFrame:
    """The last behaviours of each user before the test day."""
    behaviour = F.struct("event_time", "event_id", "colour", "material")
    before = events.where(
        (F.col("dt") < F.lit(settings.date))
        & F.col("event_type").isin(*settings.splits.behaviours)
        & F.col("user_id").isNotNull()
    ).dropDuplicates(["event_id"])
    newest_first = F.sort_array(F.collect_list(behaviour), asc=False)
    return before.groupBy("user_id").agg(
        F.slice(newest_first, 1, settings.splits.history_length).alias("history")
    )


def _candidates(spark: SparkSession, settings: Settings, events: DataFrame) -> DataFrame:
    """Candidates of the test day with their labels and true probabilities."""
    end = f"{settings.date}T{LAST_TIME}"
    page = ["user_id", "request_id", "item_id"]
    today = events.where((F.col("dt") == F.lit(settings.date)) & F.col("request_id").isNotNull())
    clicks = today.where(F.col("event_type") == "click").select(*page).distinct()
    shown = today.where((F.col("event_type") == "impression") & (F.col("event_time") < end))
    truth = spark.read.parquet(f"{settings.logs_folder('truth')}/dt={settings.date}")
    return (
        shown.dropDuplicates(page)
        .join(truth, page, how="inner")
        .join(clicks.withColumn("clicked", F.lit(1)), page, how="left")
        .select(
            "user_id",
            "colour",
            "material",
            "probability",
            F.coalesce("clicked", F.lit(0)).alias("label"),
        )
    )


def _probes() -> list[Column]:
    """Both probes, in [0, 1]; 0 without history."""

    def common(behaviour: Column) -> Column:
        """The attributes that the candidate shares with a behaviour, of two."""
        colour = (behaviour["colour"] == F.col("colour")).cast("int")
        return (colour + (behaviour["material"] == F.col("material")).cast("int")) / 2

    shares = F.transform(F.col("history"), common)
    total = F.aggregate(shares, F.lit(0.0), lambda sum_, share: sum_ + share)
    return [
        F.coalesce(total / F.size("history"), F.lit(0.0)).alias("average"),
        F.coalesce(F.array_max(shares), F.lit(0.0)).alias("closest"),
    ]


def main() -> None:
    """One line for each kind of shop and seed."""
    try:
        settings = parse(sys.argv[1:], "Probe the simulated shop.")
    except BadSettings as error:
        sys.exit(refuse("probe_shop", error, BAD_SETTINGS))
    logging.basicConfig(level=logging.WARNING)
    session = sessions.start(settings, "probe_shop")
    print(f"{'shop':10}{'seed':>6}" + "".join(f"{name:>10}" for name in (*PROBES, "gain")))
    for how in ("joint", "additive"):
        for seed in SEEDS:
            shop = settings.simulate.model_copy(update={"interest_match": how, "seed": seed})
            with tempfile.TemporaryDirectory() as root:
                one = settings.model_copy(update={"root": root, "simulate": shop})
                simulate_logs(session, one)
                found = probe(session, one)
            gain = found["closest"] - found["average"]
            numbers = "".join(f"{number:10.4f}" for number in (*found.values(), gain))
            print(f"{how:10}{seed:6}{numbers}", flush=True)
    session.stop()


if __name__ == "__main__":
    main()
