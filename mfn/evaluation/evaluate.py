"""The job `evaluate`: from predictions to `evaluation/metrics` and `evaluation/comparisons`.

Models can be compared only on the same candidates. The job checks that before it computes metrics.
The yardsticks (`mfn.evaluation.yardsticks`) are scored on the same candidates. Every row says
whether the candidates were logged or drawn.

Shuffles: those of `mfn.evaluation.aggregate`, once for all models and slices, and those of the
yardsticks. Yardstick scores are cached because they are read twice. The driver collects models
times slices rows.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from mfn import fingerprint, tables
from mfn import metrics as metrics_table
from mfn.errors import DataRefused
from mfn.evaluation.aggregate import ALL, aggregate, count_requests, slices
from mfn.evaluation.comparison import Measured, compare
from mfn.evaluation.yardsticks import (
    ORACLE,
    POPULARITY,
    SCORED,
    finished_truth,
    read_popularity,
    read_truth,
    score_popularity,
    score_truth,
)
from mfn.job import Counts, job, last_fingerprint
from mfn.schema import COMPARISONS, METRICS, PREDICTIONS
from mfn.settings import Settings

log = logging.getLogger("mfn")

Part = tuple[str, str]
"""slice and slice_value of a row."""


def _reads(spark: SparkSession, settings: Settings) -> Any:
    truth = [fingerprint.of_files(folder) for folder in finished_truth(settings)]
    section, models = settings.evaluate.model_dump(), sorted(settings.models)
    return [last_fingerprint(settings, "predict"), truth, section, models, settings.candidates_from]


@job(
    _reads,
    lambda settings: [tables.path_of(settings.root, METRICS)],
    sections=("logs", "ingest", "windows", "evaluate", "models"),
)
def evaluate(spark: SparkSession, settings: Settings) -> Counts:
    """Measure each model on the test window and compare it with the base model.

    The rows of the date are replaced: those of a model that this run does not measure go, and the
    log says whose.

    Raises:
        NotPublished: the table of predictions or of events does not exist.
        DataRefused: a configured model has no predictions, was scored on different candidates
            than the base model, or has scores that are not probabilities. No table is changed.
    """
    predictions, not_configured = _predictions(spark, settings)
    base = predictions.where(F.col("model") == settings.evaluate.base_model)
    truth = read_truth(spark, settings)
    parts = slices(settings.evaluate.history_edges)
    yardsticks = [score_popularity(base, read_popularity(spark, settings)).persist()]
    if truth is not None:
        yardsticks.append(score_truth(base, truth).persist())
    try:
        scored = reduce(DataFrame.unionByName, yardsticks, predictions)
        counted = _by_model(count_requests(scored, parts).collect())
        _check(counted, settings)
        measured = aggregate(scored, parts).collect()
    finally:
        for frame in yardsticks:
            frame.unpersist()
    metrics = [
        Measured(
            run_date=settings.date,
            model=one.model,
            slice=one.slice,
            slice_value=one.slice_value,
            requests=counted[one.model][one.slice, one.slice_value].requests,
            candidates=one.candidates,
            clicks=one.clicks,
            values=_values(one),
            candidates_from=settings.candidates_from,
        )
        for one in sorted(measured, key=lambda row: (row.model, row.slice, row.slice_value))
    ]
    _tell_what_goes(spark, settings, metrics)
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
    if not_configured:
        counts["models_not_configured"] = ",".join(not_configured)
    if truth is not None:
        known = whole[ORACLE].candidates if ORACLE in whole else 0
        counts["candidates_without_truth"] = of_base.candidates - known
    for name, one in whole.items():
        counts[f"auc_{name}"] = "undefined" if one.auc is None else one.auc
    return counts


def _values(row: Row) -> dict[str, float | None]:
    """Metrics of a row; None for those that need probabilities where scores are none."""
    probabilities = row.model != POPULARITY
    return {
        metric.name: row[metric.name] if probabilities or not metric.needs_probabilities else None
        for metric in metrics_table.METRICS
    }


def _predictions(spark: SparkSession, settings: Settings) -> tuple[DataFrame, list[str]]:
    """Predictions of the configured models, and names of other models predicted for this date."""
    of_day = tables.read(spark, settings.root, PREDICTIONS, "predict").where(
        F.col("run_date") == F.lit(settings.date)
    )
    predicted = {row.model for row in of_day.select("model").distinct().collect()}
    missing = [name for name in settings.models if name not in predicted]
    if missing:
        raise DataRefused(
            f"{tables.path_of(settings.root, PREDICTIONS)}: expected predictions of every "
            f"configured model for {settings.date}, but found none of {', '.join(missing)}; run "
            "jobs/predict.py for this date (for a new model, run jobs/train.py first), or remove "
            "it from the setting models"
        )
    configured = of_day.where(F.col("model").isin(*settings.models)).select(*SCORED)
    return configured, sorted(predicted - set(settings.models))


def _by_model(rows: Sequence[Row]) -> dict[str, dict[Part, Row]]:
    by_model: dict[str, dict[Part, Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.slice, row.slice_value] = row
    return by_model


def _check(counted: Mapping[str, Mapping[Part, Row]], settings: Settings) -> None:
    """Refuse invalid scores and labels, and models that were scored on different candidates."""
    problems = []
    for model, of_model in counted.items():
        whole = of_model[ALL, ALL]
        source, scripts = f"predictions of {model}", "jobs/train.py and jobs/predict.py"
        if model == ORACLE:
            source, scripts = settings.logs_folder("truth"), "jobs/simulate_logs.py"
        for bad, what, expected in (
            (whole.bad_scores, "scores", "probabilities from 0 to 1, one per candidate"),
            (whole.bad_labels, "labels", "0 or 1"),
        ):
            if bad:
                problems.append(
                    f"{source} for {settings.date}: expected {what} to be {expected}, but {bad} "
                    f"of {whole.candidates} are not; run {scripts} again"
                )
    base_model = settings.evaluate.base_model
    base = {part: _candidates(row) for part, row in counted[base_model].items()}
    for model in settings.models:
        found = {part: _candidates(row) for part, row in counted[model].items()}
        differing = [part for part in base | found if base.get(part) != found.get(part)]
        if differing:
            at = (ALL, ALL) if (ALL, ALL) in differing else differing[0]
            expected_count, got = (one.get(at, (0, None))[0] for one in (base, found))
            problems.append(
                f"predictions of {model} for {settings.date}: expected the same candidates, labels "
                f"and history lengths as in those of {base_model}, but they differ in slice "
                f"{'='.join(at)} ({got} candidates instead of {expected_count}); run "
                "jobs/predict.py for both models on the same splits"
            )
    if problems:
        raise DataRefused("\n".join(problems))


def _candidates(row: Row) -> tuple[int, object]:
    return row.candidates, row.fingerprint


def _tell_what_goes(spark: SparkSession, settings: Settings, metrics: Sequence[Measured]) -> None:
    """Warn if an earlier run for this date has measured models that this run does not."""
    if not tables.is_there(spark, settings.root, METRICS):
        return
    found = tables.read(spark, settings.root, METRICS, "evaluate")
    of_date = found.where(F.col("run_date") == F.lit(settings.date)).select("model").distinct()
    gone = {row.model for row in of_date.collect()} - {one.model for one in metrics}
    if gone:
        paths = [tables.path_of(settings.root, table) for table in (METRICS, COMPARISONS)]
        log.warning(
            "evaluate %s: removes the rows of %s from %s and %s for this date, since this run does "
            "not measure them; to keep them, evaluate all models with one configuration, or use "
            "another root for other models",
            settings.date,
            ", ".join(sorted(gone)),
            *paths,
        )


def _replace(spark: SparkSession, settings: Settings, metrics: Sequence[Measured]) -> None:
    where: dict[str, list[datetime.date | str]] = {"run_date": [settings.date]}
    comparisons = compare(metrics, settings.evaluate.base_model)
    for table, rows in (
        (METRICS, [one.as_row() for one in metrics]),
        (COMPARISONS, [asdict(one) for one in comparisons]),
    ):
        # One file per day: there are only models times slices rows.
        frame = spark.createDataFrame(rows, table.columns).coalesce(1)
        tables.replace(frame, settings.root, table, where)
