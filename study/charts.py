"""The study's charts as SVG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt

from mfn.models.settings import NAMED_MODELS
from mfn.trials.results import Results
from mfn.trials.trial import Point

WIDTH = 560


def gains(found: Results, path: Path) -> None:
    """Write a chart of the named models' RelaImpr with intervals, the best model on top."""
    rows = [
        {
            "model": name,
            "RelaImpr": one.relaimpr.value,
            "low": one.relaimpr.low,
            "high": one.relaimpr.high,
        }
        for name, one in found.of_models.items()
        if name != found.base and name in NAMED_MODELS
    ]
    y = alt.Y("model:N", sort="-x", title=None)
    title = f"RelaImpr over {found.base}, per cent"
    data = alt.Chart(alt.Data(values=rows))
    intervals = data.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", y=y
    )
    points = data.mark_point(filled=True, size=70).encode(x=alt.X("RelaImpr:Q", title=title), y=y)
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(strokeDash=[4, 4]).encode(x="x:Q")
    _save(alt.layer(zero, intervals, points).properties(width=WIDTH), path)


def curves(points: Mapping[str, Mapping[float, list[Point]]], path: Path) -> None:
    """Write a chart of AUC on the earlier test window by epoch.

    There is one panel per model and one line per learning rate.
    """
    rows = [
        {"model": name, "learning rate": f"{rate:g}", "epochs": one.epochs, "AUC": one.auc}
        for name, of_rates in points.items()
        for rate, curve in of_rates.items()
        for one in curve
    ]
    lines = _auc(rows, alt.X("epochs:O", title="epochs"), alt.Color("learning rate:N"))
    lines = lines.encode(facet=alt.Facet("model:N", columns=4, title=None))
    lines = lines.properties(width=WIDTH // 4, height=110)
    _save(lines, path)


def steps(points: Mapping[str, list[Point]], path: Path) -> None:
    """Write a chart of AUC on the earlier test window over the training, a line per model."""
    rows = [
        {"model": name, "epochs": one.epochs, "AUC": one.auc}
        for name, curve in points.items()
        for one in curve
    ]
    lines = _auc(
        rows,
        alt.X("epochs:Q", title="passes over the training rows"),
        alt.Color("model:N", sort=list(points), title=None),
    ).properties(width=WIDTH, height=260)
    _save(lines, path)


def _auc(rows: list[dict[str, Any]], x: alt.X, color: alt.Color) -> alt.Chart:
    """Lines of AUC with a point for each row."""
    y = alt.Y("AUC:Q", scale=alt.Scale(zero=False))
    lines = alt.Chart(alt.Data(values=rows)).mark_line(point=True)
    encoded: alt.Chart = lines.encode(x=x, y=y, color=color)
    return encoded


def _save(chart: alt.TopLevelMixin, path: Path) -> None:
    # A white background, because the file is shown on light and dark pages.
    chart.properties(background="white").save(str(path), format="svg")
