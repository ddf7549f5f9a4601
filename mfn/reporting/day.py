"""The data of a day for the report and the terminal, read in one place.

It is read from `evaluation/metrics`, `evaluation/comparisons`, the manifests of the splits, of E
and of the centers, the models' model.json and the table `validation`. One shuffle, for the
validation counts. The driver collects models times slices rows, and models rows for each of the
previous days.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn import errors, storage, tables
from mfn.evaluation.aggregate import ALL
from mfn.evaluation.comparison import Comparison, Measured
from mfn.evaluation.yardsticks import ORACLE, POPULARITY
from mfn.reporting.pretrained import Pretrained, read_pretrained
from mfn.schema import COMPARISONS, METRICS, VALIDATION
from mfn.settings import Settings
from mfn.windows import windows

Number = int | float


@dataclass(frozen=True)
class Training:
    """Statistics of training a model, from its model.json; None where a value is missing."""

    seconds: Number | None = None
    candidates_per_second: Number | None = None
    wait_share: Number | None = None
    communication_share: Number | None = None
    loss: Number | None = None
    parameters: int | None = None
    extractor: str | None = None


@dataclass(frozen=True)
class Result:
    """One model on one day: metrics over the whole test window, and training statistics."""

    metric: Measured
    relaimpr: float | None
    training: Training

    @property
    def model(self) -> str:
        """The model's name."""
        return self.metric.model

    @property
    def is_oracle(self) -> bool:
        """Whether this is the oracle: the true probabilities, not a model."""
        return self.model == ORACLE

    @property
    def is_popularity(self) -> bool:
        """Whether this is popularity: the number of earlier behaviours, not a model."""
        return self.model == POPULARITY

    @property
    def is_model(self) -> bool:
        """Whether this is a model, not popularity or the oracle."""
        return not (self.is_oracle or self.is_popularity)


@dataclass(frozen=True)
class Outcome:
    """Number of rows of the raw logs with one outcome of validation.

    Attributes:
        source: events, items or users.
        reason: the outcome.
        field: the field that lost a value; None if the count is of whole rows.
    """

    source: str
    reason: str
    field: str | None
    rows_of_run_date: int
    rows_of_windows: int


@dataclass(frozen=True)
class Day:
    """All results of a run date.

    Attributes:
        results: one per model in the order of the settings, then popularity, then the oracle.
        slices: metrics of every slice except `all`, ordered by model and slice value.
        past: comparisons over the whole test window, of this day and of previous days.
        manifest: manifest of the day's splits.
        outcomes: outcomes of validation by source, most frequent first.
        pretrained: what E and the centers are worth.
    """

    date: datetime.date
    base_model: str
    results: tuple[Result, ...]
    slices: tuple[Measured, ...]
    past: tuple[Comparison, ...]
    manifest: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]
    pretrained: Pretrained = field(default_factory=Pretrained)

    @property
    def models(self) -> tuple[Result, ...]:
        """The results of models, without popularity and the oracle."""
        return tuple(result for result in self.results if result.is_model)

    @property
    def popularity(self) -> Result | None:
        """Popularity's result; None for days that an older version without it evaluated."""
        return next((result for result in self.results if result.is_popularity), None)

    @property
    def oracle(self) -> Result | None:
        """The oracle's result; None where the true probabilities are not known."""
        return next((result for result in self.results if result.is_oracle), None)

    @property
    def base(self) -> Result:
        """The base model's result."""
        return next(result for result in self.results if result.model == self.base_model)


def read_day(spark: SparkSession, settings: Settings) -> Day:
    """Read the results of the run date.

    Raises:
        NotPublished: the day was not evaluated, or its splits do not exist.
    """
    date = settings.date
    metrics = [
        Measured.of_row(row.asDict())
        for row in tables.read(spark, settings.root, METRICS, "evaluate")
        .where(F.col("run_date") == F.lit(date))
        .select(*METRICS.columns.names)
        .collect()
    ]
    first = date - datetime.timedelta(days=settings.evaluate.report_days - 1)
    comparisons = [
        Comparison(**row.asDict())
        for row in tables.read(spark, settings.root, COMPARISONS, "evaluate")
        .where(F.col("run_date").between(F.lit(first), F.lit(date)) & (F.col("slice") == ALL))
        .where(F.col("base_model") == settings.evaluate.base_model)
        .select(*COMPARISONS.columns.names)
        .collect()
    ]
    gains = {one.model: one.relaimpr for one in comparisons if one.run_date == date}
    if not metrics or settings.evaluate.base_model not in gains:
        raise errors.NotPublished(
            f"{tables.path_of(settings.root, METRICS)}: no rows for {date} with the base model "
            f"{settings.evaluate.base_model}; run jobs/evaluate.py for this date first"
        )
    order = _order(settings, (one.model for one in metrics))
    whole = sorted((one for one in metrics if one.slice == ALL), key=lambda m: order[m.model])
    parts = sorted(
        (one for one in metrics if one.slice != ALL),
        key=lambda m: (order[m.model], m.slice, _first_number(m.slice_value), m.slice_value),
    )
    splits = storage.current(settings.layout.splits, "build_splits")
    return Day(
        date=date,
        base_model=settings.evaluate.base_model,
        results=tuple(
            Result(one, gains.get(one.model), read_training(settings, one.model)) for one in whole
        ),
        slices=tuple(parts),
        past=tuple(sorted(comparisons, key=lambda c: (c.run_date, order.get(c.model, len(order))))),
        manifest=storage.read_json(f"{splits}/{storage.MANIFEST}"),
        outcomes=_outcomes(spark, settings),
        pretrained=read_pretrained(settings, [one.model for one in whole]),
    )


def read_training(settings: Settings, model: str) -> Training:
    """Statistics of training a model of the run date; all None without its model.json."""
    try:
        folder = storage.current(settings.layout.model(model), "train")
        description = storage.read_json(f"{folder}/{storage.MODEL}")
    except FileNotFoundError:
        return Training()
    train = description.get("train") or {}
    return Training(
        seconds=train.get("seconds"),
        candidates_per_second=train.get("candidates_per_second"),
        wait_share=train.get("wait_share"),
        communication_share=train.get("communication_share"),
        loss=train.get("loss"),
        parameters=description.get("parameters"),
        extractor=(description.get("settings") or {}).get("extractor"),
    )


def _order(settings: Settings, models: Iterable[str]) -> dict[str, int]:
    """Position of each model: as configured, then others by name, then popularity, the oracle."""
    last = (POPULARITY, ORACLE)
    others = sorted(set(models) - set(settings.models) - set(last))
    return {name: position for position, name in enumerate([*settings.models, *others, *last])}


def _first_number(value: str) -> int:
    """Lower end of a bucket such as 10-49 or 50+; 0 for other slice values."""
    digits = value.partition("-")[0].rstrip("+")
    return int(digits) if digits.isdigit() else 0


def _outcomes(spark: SparkSession, settings: Settings) -> tuple[Outcome, ...]:
    if not tables.is_there(spark, settings.root, VALIDATION):
        return ()
    days = windows(settings.date, settings.windows).days
    of_run_date = F.when(F.col("run_date") == F.lit(settings.date), F.col("rows")).otherwise(0)
    rows = (
        tables.read(spark, settings.root, VALIDATION, "validate_logs")
        .where(F.col("run_date").between(F.lit(days[0]), F.lit(days[-1])))
        .groupBy("source", "reason", "field")
        .agg(F.sum(of_run_date).alias("of_run_date"), F.sum("rows").alias("of_windows"))
        .select("source", "reason", "field", "of_run_date", "of_windows")
        .collect()
    )
    outcomes = [Outcome(*row) for row in rows]
    return tuple(sorted(outcomes, key=lambda one: (one.source, -one.rows_of_windows, one.reason)))
