"""The day in a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mfn.metrics import AUC, METRICS
from mfn.reporting.day import Day, read_day
from mfn.reporting.numbers import NOTHING, decimals, per_cent, percentage, thousands
from mfn.settings import Settings


@dataclass(frozen=True)
class ModelRow:
    """A model on the whole test window; RelaImpr in per cent.

    Attributes:
        values: each metric by its name.
        seconds: how long its training took.
        is_model: False for popularity and the oracle.
    """

    model: str
    values: Mapping[str, float | None]
    relaimpr: float | None
    seconds: float | None
    is_model: bool = True


@dataclass(frozen=True)
class Summary:
    """A day's models, then popularity and the oracle, and named facts about its data."""

    title: str
    rows: tuple[ModelRow, ...]
    facts: tuple[tuple[str, str], ...]


def summary(spark: SparkSession, settings: Settings) -> Summary:
    """What a terminal shows of the run date.

    Raises:
        NotPublished: the day was not evaluated, or its splits are not there.
    """
    return summarize(read_day(spark, settings))


def summarize(day: Day) -> Summary:
    """The few numbers of a day that a terminal shows."""
    rows = tuple(
        ModelRow(
            one.model,
            one.metric.values,
            one.relaimpr,
            one.training.seconds,
            one.is_model,
        )
        for one in day.results
    )
    whole = day.base.metric
    title = f"{day.date}: {thousands(whole.requests)} requests, {thousands(whole.candidates)} "
    title += f"candidates, {thousands(whole.clicks)} clicks"
    return Summary(title, rows, data_facts(day))


def data_facts(day: Day) -> tuple[tuple[str, str], ...]:
    """Whence the candidates come, and how much was known of the day's users, with their names."""
    manifest = day.manifest
    test = manifest.get("splits", {}).get("test", {})
    known, users = manifest.get("test_users_in_training"), manifest.get("test_users")
    return (
        ("candidates", day.base.metric.candidates_from or NOTHING),
        ("test users known from training", _part_of(known, users)),
        (
            "test rows with an empty history",
            _part_of(test.get("empty_histories"), test.get("rows")),
        ),
    )


def print_summary(found: Summary, console: Console, report_path: str) -> None:
    """Print a day: its models, what stands beside them, its data, and where its report lies."""
    table = Table(title=found.title, title_justify="left")
    table.add_column("model")
    for name in (*(metric.title for metric in METRICS), "RelaImpr", "seconds"):
        table.add_column(name, justify="right")
    aucs = [row.values[AUC.name] or 0.0 for row in found.rows if row.is_model]
    best = max(aucs, default=0.0) or None
    for place, row in enumerate(found.rows):
        if not row.is_model and found.rows[place - 1].is_model:
            table.add_section()
        style = "dim" if not row.is_model else "bold" if row.values[AUC.name] == best else ""
        table.add_row(
            row.model,
            *(decimals(row.values[metric.name], metric.decimals) for metric in METRICS),
            per_cent(row.relaimpr),
            decimals(row.seconds, 1),
            style=style,
        )
    console.print(table)
    for name, fact in found.facts:
        console.print(Text(f"{name}: {fact}"))
    # A path that is broken over two lines can be neither clicked nor copied.
    console.print(Text(f"report: {report_path}"), soft_wrap=True)


def _part_of(part: int | None, whole: int | None) -> str:
    if part is None or whole is None:
        return NOTHING
    share = f" ({percentage(part / whole)})" if whole else ""
    return f"{thousands(part)} of {thousands(whole)}{share}"
