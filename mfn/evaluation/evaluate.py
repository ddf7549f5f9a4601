"""The job `evaluate`: from predictions to `evaluation/metrics` and `evaluation/comparisons`.

Models can be compared only on the same candidates, so that is checked before anything is
measured. Two more are scored on the same candidates, by the same code. `popularity` is how often
each candidate's item was chosen before the test window: what a model that knows no user can do.
Where the logs are simulated, `oracle` is the probability with which each click was drawn: nobody
can do better. Every metric says whether the candidates were logged or drawn.

Shuffles: those of `mfn.evaluation.auc`, for all models and slices at once; three for popularity,
of the behaviours by item, summed on the map side, and of their sums and the candidates of one model
for the join, unless the sums are few enough to broadcast; and two for the oracle's join, the
candidates of one model and the truth. What comes out of the joins is kept, since it is needed
twice. What is collected are rows of models times slices.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from mfn import fingerprint, storage, tables
from mfn.errors import DataRefused
from mfn.evaluation.auc import ALL, areas, count_requests, slices
from mfn.evaluation.comparison import ORACLE, POPULARITY, Metric, compare
from mfn.job import Counts, job, last_fingerprint
from mfn.schema import COMPARISONS, EVENTS, METRICS, PREDICTIONS, TRUTH
from mfn.settings import Settings
from mfn.windows import days_between, windows

BEHAVIOURS = ("click", "cart", "purchase")
"""Types of events that make an item popular."""

SCORED = ("model", "request_id", "item_id", "label", "score", "history_length")

Part = tuple[str, str]
"""A slice and its value."""


def _reads(spark: SparkSession, settings: Settings) -> Any:
    truth = [fingerprint.of_files(folder) for folder in _finished_truth(settings)]
    own, models = settings.evaluate.model_dump(), sorted(settings.models)
    return [last_fingerprint(settings, "predict"), truth, own, models, settings.candidates_from]


@job(
    _reads,
    lambda settings: [tables.path_of(settings.root, METRICS)],
    sections=("logs", "windows", "evaluate", "models"),
)
def evaluate(spark: SparkSession, settings: Settings) -> Counts:
    """Measure each model on the test window and compare it with the base model.

    Raises:
        NotPublished: nothing was ever predicted, or no events are there.
        DataRefused: a configured model has no predictions, was scored on other candidates than
            the base model, or has scores that are no probabilities. Then no table is changed.
    """
    predictions, left_out = _predictions(spark, settings)
    base = predictions.where(F.col("model") == settings.evaluate.base_model)
    truth = read_truth(spark, settings)
    parts = slices(settings.evaluate.history_edges)
    beside = [score_popularity(base, read_popularity(spark, settings)).persist()]
    if truth is not None:
        beside.append(score_truth(base, truth).persist())
    try:
        scored = reduce(DataFrame.unionByName, beside, predictions)
        counted = _by_model(count_requests(scored, parts).collect())
        _check(counted, settings)
        measured = areas(scored, parts).collect()
    finally:
        for frame in beside:
            frame.unpersist()
    metrics = sorted(
        Metric(
            settings.date,
            one.model,
            one.slice,
            one.slice_value,
            counted[one.model][one.slice, one.slice_value].requests,
            one.candidates,
            one.clicks,
            one.auc,
            # Of what is no probability it would say nothing.
            None if one.model == POPULARITY else one.logloss,
            settings.candidates_from,
        )
        for one in measured
    )
    _replace(spark, settings, metrics)
    whole = {one.model: one for one in metrics if one.slice == ALL}
    of_base = whole[settings.evaluate.base_model]
    counts: dict[str, int | float | str] = {
        "rows": sum(one.candidates for one in whole.values()),
        "models": len(settings.models),
        "requests": of_base.requests,
        "candidates": of_base.candidates,
        "clicks": of_base.clicks,
    }
    if left_out:
        counts["models_not_configured"] = ",".join(left_out)
    if truth is not None:
        known = whole[ORACLE].candidates if ORACLE in whole else 0
        counts["candidates_without_truth"] = of_base.candidates - known
    for name, one in whole.items():
        counts[f"auc_{name}"] = "undefined" if one.auc is None else one.auc
    return counts


def read_truth(spark: SparkSession, settings: Settings) -> DataFrame | None:
    """True click probabilities of the test window's finished days; None where there are none."""
    finished = _finished_truth(settings)
    return spark.read.schema(TRUTH).parquet(*finished) if finished else None


def _finished_truth(settings: Settings) -> list[str]:
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


def _predictions(spark: SparkSession, settings: Settings) -> tuple[DataFrame, list[str]]:
    """Predictions of the configured models; names of others that are there for this date."""
    of_day = tables.read(spark, settings.root, PREDICTIONS, "predict").where(
        F.col("run_date") == F.lit(settings.date)
    )
    there = {row.model for row in of_day.select("model").distinct().collect()}
    missing = [name for name in settings.models if name not in there]
    if missing:
        raise DataRefused(
            f"{tables.path_of(settings.root, PREDICTIONS)}: expected predictions of every "
            f"configured model for {settings.date}, got none of {', '.join(missing)}; run "
            "jobs/predict.py for this date (after jobs/train.py, if they are new), or leave them "
            "out of the setting models"
        )
    configured = of_day.where(F.col("model").isin(*settings.models)).select(*SCORED)
    return configured, sorted(there - set(settings.models))


def _by_model(rows: Sequence[Row]) -> dict[str, dict[Part, Row]]:
    by_model: dict[str, dict[Part, Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.slice, row.slice_value] = row
    return by_model


def _check(counted: Mapping[str, Mapping[Part, Row]], settings: Settings) -> None:
    """Refuse what cannot be measured or compared."""
    problems = []
    for model, of_model in counted.items():
        whole = of_model[ALL, ALL]
        source, repair = f"predictions of {model}", "jobs/train.py and jobs/predict.py"
        if model == ORACLE:
            source, repair = settings.logs_folder("truth"), "jobs/simulate_logs.py"
        for bad, what, expected in (
            (whole.bad_scores, "scores", "probabilities from 0 to 1, one a candidate"),
            (whole.bad_labels, "labels", "0 or 1"),
        ):
            if bad:
                problems.append(
                    f"{source} for {settings.date}: expected {what} to be {expected}, but {bad} "
                    f"of {whole.candidates} are not; run {repair} again"
                )
    base_model = settings.evaluate.base_model
    base = {part: _candidates(row) for part, row in counted[base_model].items()}
    for model in settings.models:
        own = {part: _candidates(row) for part, row in counted[model].items()}
        differing = [part for part in base | own if base.get(part) != own.get(part)]
        if differing:
            at = (ALL, ALL) if (ALL, ALL) in differing else differing[0]
            expected_count, got = (one.get(at, (0, None))[0] for one in (base, own))
            problems.append(
                f"predictions of {model} for {settings.date}: expected the same candidates, labels "
                f"and history lengths as those of {base_model}, but they differ in slice "
                f"{'='.join(at)} ({got} candidates beside {expected_count}); run jobs/predict.py "
                "for both on the same splits"
            )
    if problems:
        raise DataRefused("\n".join(problems))


def _candidates(row: Row) -> tuple[int, object]:
    return row.candidates, row.fingerprint


def _replace(spark: SparkSession, settings: Settings, metrics: Sequence[Metric]) -> None:
    where: dict[str, list[datetime.date | str]] = {"run_date": [settings.date]}
    comparisons = compare(metrics, settings.evaluate.base_model)
    for table, rows in ((METRICS, metrics), (COMPARISONS, comparisons)):
        # One file a day: there are as many rows as models times slices.
        frame = spark.createDataFrame(rows, table.columns).coalesce(1)
        tables.replace(frame, settings.root, table, where)
