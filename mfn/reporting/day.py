"""All that the report and the terminal say of a day, read in one place.

From `evaluation/metrics` and `evaluation/comparisons`, the manifest of the splits, the models'
model.json and the table `validation`. No shuffle but that of the validation counts; what is
collected are rows of models times slices times days looked back on.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn import errors, storage, tables
from mfn.evaluation.aggregate import ALL
from mfn.evaluation.comparison import Comparison, Measured
from mfn.evaluation.yardsticks import ORACLE, POPULARITY
from mfn.schema import COMPARISONS, METRICS, VALIDATION
from mfn.settings import Settings
from mfn.windows import windows

Number = int | float


@dataclass(frozen=True)
class Training:
    """What training a model cost, from its model.json; None is what that does not say."""

    seconds: Number | None = None
    candidates_per_second: Number | None = None
    wait_share: Number | None = None
    communication_share: Number | None = None
    loss: Number | None = None
    parameters: int | None = None
    extractor: str | None = None


@dataclass(frozen=True)
class Result:
    """One model on one day: the whole test window, and what its training cost."""

    metric: Measured
    relaimpr: float | None
    training: Training

    @property
    def model(self) -> str:
        """The model's name."""
        return self.metric.model

    @property
    def is_oracle(self) -> bool:
        """Whether it is no model, but the true probabilities."""
        return self.model == ORACLE

    @property
    def is_popularity(self) -> bool:
        """Whether it is no model, but the number of earlier behaviours."""
        return self.model == POPULARITY

    @property
    def is_model(self) -> bool:
        """Whether it is a model, and no yardstick beside them."""
        return not (self.is_oracle or self.is_popularity)


@dataclass(frozen=True)
class Outcome:
    """Rows of the raw log with one outcome of validation."""

    reason: str
    rows_of_run_date: int
    rows_of_windows: int


@dataclass(frozen=True)
class Day:
    """What is known of a run date.

    Attributes:
        results: a model each, in the order of the settings, then popularity, the oracle last.
        slices: metrics of every slice but the whole, in the order of models and slice values.
        past: comparisons over the whole test window of this day and of those before it.
        manifest: that of the day's splits.
        outcomes: of validation, most frequent first.
    """

    date: datetime.date
    base_model: str
    results: tuple[Result, ...]
    slices: tuple[Measured, ...]
    past: tuple[Comparison, ...]
    manifest: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]

    @property
    def models(self) -> tuple[Result, ...]:
        """Results but popularity's and the oracle's."""
        return tuple(result for result in self.results if result.is_model)

    @property
    def popularity(self) -> Result | None:
        """Popularity's result; days that were evaluated before it came have none."""
        return next((result for result in self.results if result.is_popularity), None)

    @property
    def oracle(self) -> Result | None:
        """The oracle's result, where the truth is known."""
        return next((result for result in self.results if result.is_oracle), None)

    @property
    def base(self) -> Result:
        """The base model's result."""
        return next(result for result in self.results if result.model == self.base_model)


def read_day(spark: SparkSession, settings: Settings) -> Day:
    """Read what there is of the run date.

    Raises:
        NotPublished: the day was not evaluated, or its splits are not there.
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
    )


def read_training(settings: Settings, model: str) -> Training:
    """What training a model of the run date cost, as far as its model.json says so."""
    try:
        folder = storage.current(settings.layout.model(model), "train")
        described = storage.read_json(f"{folder}/{storage.MODEL}")
    except FileNotFoundError:
        return Training()
    train = described.get("train") or {}
    return Training(
        seconds=train.get("seconds"),
        candidates_per_second=train.get("candidates_per_second"),
        wait_share=train.get("wait_share"),
        communication_share=train.get("communication_share"),
        loss=train.get("loss"),
        parameters=described.get("parameters"),
        extractor=(described.get("settings") or {}).get("extractor"),
    )


def _order(settings: Settings, models: Iterable[str]) -> dict[str, int]:
    """Place of each model: as configured, then others by name, popularity and the oracle last."""
    last = (POPULARITY, ORACLE)
    others = sorted(set(models) - set(settings.models) - set(last))
    return {name: place for place, name in enumerate([*settings.models, *others, *last])}


def _first_number(value: str) -> int:
    """What a bucket such as 10-49 or 50+ begins with; 0 where it is no bucket of numbers."""
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
        .groupBy("reason")
        .agg(F.sum(of_run_date).alias("of_run_date"), F.sum("rows").alias("of_windows"))
        .select("reason", "of_run_date", "of_windows")
        .collect()
    )
    outcomes = [Outcome(*row) for row in rows]
    return tuple(sorted(outcomes, key=lambda one: (-one.rows_of_windows, one.reason)))
