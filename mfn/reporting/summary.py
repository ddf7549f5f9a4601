"""A short summary of a day for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mfn import storage
from mfn.metrics import AUC, METRICS
from mfn.reporting.day import Day
from mfn.reporting.numbers import NOTHING, decimals, per_cent, percentage, thousands
from mfn.settings import Settings
from mfn.splits.unlisted import KINDS


@dataclass(frozen=True)
class ModelRow:
    """A model's results over the whole test window.

    Attributes:
        values: value of each metric by name.
        relaimpr: in per cent.
        seconds: training time.
        is_model: False for popularity and the oracle.
    """

    model: str
    values: Mapping[str, float | None]
    relaimpr: float | None
    seconds: float | None
    is_model: bool = True


@dataclass(frozen=True)
class Summary:
    """A day's models, then popularity and the oracle, and facts about its data.

    Attributes:
        facts: pairs of name and value.
    """

    title: str
    rows: tuple[ModelRow, ...]
    facts: tuple[tuple[str, str], ...]


def read_summary(settings: Settings) -> Summary:
    """The run date's summary, which the job `report` has written."""
    found = storage.read_json(settings.layout.summary)
    rows = tuple(ModelRow(**row) for row in found["rows"])
    return Summary(found["title"], rows, tuple((name, fact) for name, fact in found["facts"]))


def summarize(day: Day) -> Summary:
    """Select the numbers of a day that the terminal shows."""
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
    """Pairs of name and value: origin of the candidates, known users, histories, catalogue."""
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
        *(
            (
                f"test {kind} whose item the catalogue does not list",
                _part_of(test[f"unlisted_{kind}"], test.get(kind)),
            )
            for kind in KINDS
            if f"unlisted_{kind}" in test
        ),
    )


def print_summary(summary: Summary, console: Console, report_path: str) -> None:
    """Print a day's models, popularity, the oracle, facts about its data, and its report's path."""
    table = Table(title=summary.title, title_justify="left")
    table.add_column("model")
    for name in (*(metric.title for metric in METRICS), "RelaImpr", "seconds"):
        table.add_column(name, justify="right")
    aucs = [row.values[AUC.name] or 0.0 for row in summary.rows if row.is_model]
    best = max(aucs, default=0.0) or None
    for position, row in enumerate(summary.rows):
        if not row.is_model and summary.rows[position - 1].is_model:
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
    for name, fact in summary.facts:
        console.print(Text(f"{name}: {fact}"))
    # soft_wrap keeps the path on one line, so that it can be clicked and copied.
    console.print(Text(f"report: {report_path}"), soft_wrap=True)


def _part_of(part: int | None, whole: int | None) -> str:
    if part is None or whole is None:
        return NOTHING
    share = f" ({percentage(part / whole)})" if whole else ""
    return f"{thousands(part)} of {thousands(whole)}{share}"
