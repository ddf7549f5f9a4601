"""The job `report`: one self-contained HTML page about a day.

The page depends only on the tables, the manifests and the models' model.json, so the same day gives
the same page, and it is made again only if one of them has changed. The only shuffles are those of
`mfn.reporting.day`.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from pyspark.sql import SparkSession

from mfn import storage
from mfn.errors import NotPublished
from mfn.evaluation.aggregate import HISTORY_LENGTH
from mfn.evaluation.comparison import constant_logloss, standard_error
from mfn.evaluation.yardsticks import POPULARITY
from mfn.job import Counts, job, last_fingerprint
from mfn.logs.validate import validated_days
from mfn.metrics import METRICS
from mfn.reporting import charts
from mfn.reporting.day import Day, Outcome, Result, read_day
from mfn.reporting.numbers import NOTHING, decimals, per_cent, percentage, thousands
from mfn.reporting.summary import data_facts, summarize
from mfn.settings import Settings
from mfn.windows import windows

TEMPLATE = "report.html"

WINDOWS = {
    "history": "history only",
    "pretraining": "pretraining",
    "pretraining_validation": "pretraining, validation",
    "train": "training",
    "test": "test",
}
"""Names on the page for the manifest's windows, oldest first."""

REASONS = {
    "clean": "clean",
    "repeat": "repeated event: dropped",
    "blank": "blank line",
}
"""Names on the page for outcomes of validation; any other outcome is quarantined."""


def _reads(spark: SparkSession, settings: Settings) -> Any:
    dates = [
        settings.date - datetime.timedelta(days=back)
        for back in range(settings.evaluate.report_days)
    ]
    evaluated = [
        last_fingerprint(settings.model_copy(update={"date": date}), "evaluate") for date in dates
    ]
    days = windows(settings.date, settings.windows).days
    validated = [validated_days(spark, settings, source) for source in ("events", "items", "users")]
    return [
        evaluated,
        [[of.get(day) for day in days] for of in validated],
        storage.current(settings.layout.splits, "build_splits"),
        [[name, _folder(settings.layout.model(name), "train")] for name in settings.models],
        _folder(settings.layout.embeddings, "pretrain_embeddings"),
        _folder(settings.layout.centers, "train_centers"),
        settings.evaluate.model_dump(),
        settings.windows.model_dump(),
    ]


def _folder(published: str, job: str) -> str | None:
    """The folder that a job has published; None if it is not there: the page shows less then."""
    try:
        return storage.current(published, job)
    except NotPublished:
        return None


def _writes(settings: Settings) -> list[str]:
    return [settings.layout.report, settings.layout.summary]


@job(_reads, _writes, sections=("windows", "evaluate", "models"))
def report(spark: SparkSession, settings: Settings) -> Counts:
    """Write the page of the run date, and the summary that a day ends with on the terminal.

    Raises:
        NotPublished: the day was not evaluated, or its splits do not exist.
    """
    day = read_day(spark, settings)
    page = render(day)
    path = settings.layout.report
    storage.write_whole(path, page)
    storage.replace_json(settings.layout.summary, asdict(summarize(day)))
    return {
        "rows": len(day.results) + len(day.slices) + len(day.past) + len(day.outcomes),
        "models": len(day.models),
        "days": len({one.run_date for one in day.past}),
        "bytes": len(page.encode()),
        "path": path,
    }


def render(day: Day) -> str:
    """The page as HTML; it loads no other files."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        decimals=decimals, thousands=thousands, per_cent=per_cent, percentage=percentage
    )
    source = resources.files("mfn.reporting").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(_content(day))


def _content(day: Day) -> dict[str, Any]:
    ranked = [one for one in day.models if one.metric.auc is not None]
    best = max(ranked, key=lambda one: one.metric.auc or 0.0, default=None)
    whole = day.base.metric
    gain = best.relaimpr if best is not None else None
    return {
        "day": day,
        "metrics": METRICS,
        "rising": [metric.title for metric in METRICS if metric.higher_is_better],
        "falling": [metric.title for metric in METRICS if not metric.higher_is_better],
        "nothing": NOTHING,
        "best": best,
        "gain": gain,
        "whole": whole,
        "click_rate": _ratio(whole.clicks, whole.candidates),
        "constant_logloss": constant_logloss(whole.clicks, whole.candidates),
        "error": standard_error(whole.auc, whole.clicks, whole.candidates - whole.clicks),
        "reached": _reached(best, day.oracle),
        "drawn": (whole.candidates_from or "").startswith("drawn"),
        "popularity_wins": _as_good(day.popularity, best),
        "charts": {
            name: [
                (kind, Markup(svg))
                for kind, width in (("wide", charts.WIDE), ("narrow", charts.NARROW))
                if (svg := draw(day, width)) is not None
            ]
            for name, draw in (
                ("models", charts.auc_by_model),
                ("history", charts.auc_by_history),
                ("days", charts.relaimpr_by_day),
            )
        },
        "colours": {
            **{one.model: charts.colour(position) for position, one in enumerate(day.models)},
            POPULARITY: charts.POPULARITY_COLOUR,
        },
        "history": _history(day),
        "windows": _windows(day),
        "facts": _facts(day),
        "outcomes": [(one, _outcome_name(one)) for one in day.outcomes],
        "trained": [one for one in day.models if one.training.seconds is not None],
    }


def _reached(best: Result | None, oracle: Result | None) -> float | None:
    """The best model's AUC as a share of the distance from chance to the oracle's AUC."""
    if best is None or oracle is None or best.metric.auc is None:
        return None
    if oracle.metric.auc is None or min(oracle.metric.auc, best.metric.auc) <= 0.5:
        return None
    return (best.metric.auc - 0.5) / (oracle.metric.auc - 0.5)


def _as_good(popularity: Result | None, best: Result | None) -> bool:
    """Whether popularity ranks as well as the best model, or better."""
    if popularity is None or best is None or popularity.metric.auc is None:
        return False
    return popularity.metric.auc >= (best.metric.auc or 0.0)


@dataclass(frozen=True)
class _Bucket:
    """A bucket of history length: its counts, and the AUC of each result."""

    name: str
    requests: int
    candidates: int
    clicks: int
    error: float | None
    aucs: dict[str, float | None]


def _history(day: Day) -> list[_Bucket]:
    rows = [one for one in day.slices if one.slice == HISTORY_LENGTH]
    aucs = {(one.model, one.slice_value): one.auc for one in rows}
    return [
        _Bucket(
            one.slice_value,
            one.requests,
            one.candidates,
            one.clicks,
            standard_error(one.auc, one.clicks, one.candidates - one.clicks),
            {result.model: aucs.get((result.model, one.slice_value)) for result in day.results},
        )
        for one in rows
        if one.model == day.base_model
    ]


def _windows(day: Day) -> list[dict[str, Any]]:
    found = []
    for key, name in WINDOWS.items():
        window = day.manifest.get("windows", {}).get(key)
        if not window:
            continue
        split = day.manifest.get("splits", {}).get(key, {})
        first, last = (datetime.date.fromisoformat(one) for one in window)
        found.append(
            {
                "name": name,
                "days": _span(first, last),
                "count": (last - first).days + 1,
                "requests": split.get("requests"),
                "candidates": split.get("candidates"),
                "clicks": split.get("clicks"),
                "click_rate": _ratio(split.get("clicks"), split.get("candidates")),
                "empty": _ratio(split.get("empty_histories"), split.get("rows")),
            }
        )
    return found


def _span(first: datetime.date, last: datetime.date) -> str:
    if first == last:
        return f"{first:%-d %B %Y}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first:%-d} – {last:%-d %B %Y}"
    if first.year == last.year:
        return f"{first:%-d %B} – {last:%-d %B %Y}"
    return f"{first:%-d %B %Y} – {last:%-d %B %Y}"


def _facts(day: Day) -> list[tuple[str, str]]:
    manifest = day.manifest
    facts = list(data_facts(day))
    immature = manifest.get("immature_requests")
    if immature is not None:
        facts.append(
            ("requests excluded because clicks on them may still arrive", thousands(immature))
        )
    for key, name in (
        ("item_fields", "item fields that models use"),
        ("constant_fields", "item fields excluded because they are constant"),
        ("user_fields", "user fields"),
        ("context_fields", "context fields"),
    ):
        if key in manifest:
            facts.append((name, ", ".join(manifest[key]) or "none"))
    return facts


def _outcome_name(outcome: Outcome) -> str:
    reason = outcome.reason.replace("_", " ")
    if outcome.field is not None:
        return f"values of {outcome.field}: {reason}"
    unused = "quarantined" if outcome.source == "events" else "not used"
    return REASONS.get(outcome.reason, f"{unused}: {reason}")


def _ratio(part: int | None, whole: int | None) -> float | None:
    return part / whole if part is not None and whole else None
