"""The report's charts as inline SVG.

Colours are CSS variables of the page, so charts follow its dark mode. Each chart is drawn twice,
for a wide and for a narrow screen, because its text would be too small if it were scaled down to a
phone. The page's font is not known here, so the layout does not depend on the width of a name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

from mfn.evaluation.aggregate import HISTORY_LENGTH
from mfn.evaluation.yardsticks import ORACLE, POPULARITY
from mfn.reporting.day import Day
from mfn.reporting.numbers import decimals

WIDE, NARROW = 780, 290
"""Widths in pixels of the plotting area, without the axis labels."""

COLOURS = 8
"""Number of colours for models: --model-1, --model-2 and so on; they repeat after the last."""

TEXT, QUIET, GRID = "var(--text)", "var(--quiet)", "var(--grid)"
ORACLE_COLOUR, POPULARITY_COLOUR = "var(--oracle)", "var(--popularity)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CHANCE = 0.5
ROW = 46
"""Height in pixels of a model's name and its bar."""


def colour(position: int) -> str:
    """The colour of the model at this position."""
    return f"var(--model-{position % COLOURS + 1})"


def auc_by_model(day: Day, width: int) -> str | None:
    """Bars from chance to AUC, one per model and one for popularity; the oracle is a line.

    None if no AUC is defined.
    """
    shown = [one for one in day.results if not one.is_oracle]
    by_model = {one.model: one.metric.auc for one in shown if one.metric.auc is not None}
    if not by_model:
        return None
    rows = [
        {"model": model, "auc": auc, "end": max(auc, CHANCE), "label": decimals(auc, 4)}
        for model, auc in by_model.items()
    ]
    oracle = day.oracle.metric.auc if day.oracle is not None else None
    aucs = [CHANCE, *by_model.values(), *([] if oracle is None else [oracle])]
    low, high = min(aucs), max(aucs)
    # Space for the numbers at the ends of the bars: about 60 pixels, converted to AUC.
    room = 60 / (width - 60) * (high - low or 0.1)
    x = alt.X(
        "auc:Q",
        scale=alt.Scale(domain=[low, high + room], nice=False, zero=False),
        axis=alt.Axis(title="AUC; 0.5 is chance", format=_format(aucs), tickCount=width // 90),
    )
    y = alt.Y("model:N", sort=None, scale=alt.Scale(padding=0), axis=None)
    color = _colours([one.model for one in shown])
    bars = _chart(rows).mark_bar(size=16, yOffset=8, cornerRadiusEnd=3)
    names = _chart(rows).mark_text(align="left", dy=-11, fontSize=13, color=TEXT)
    numbers = _chart(rows).mark_text(
        align="left", dx=6, dy=9, fontSize=13, color=TEXT, fontWeight=600
    )
    layers = [
        bars.encode(x=x, x2=alt.X2Datum(CHANCE), y=y, color=color),
        names.encode(x=alt.XValue(0), y=y, text="model:N"),
        numbers.encode(x="end:Q", y=y, text="label:N"),
    ]
    if oracle is not None:
        chart = _chart([{"auc": oracle, "label": f"oracle {decimals(oracle, 4)}"}])
        line = chart.mark_rule(strokeDash=[5, 4], strokeWidth=2, color=ORACLE_COLOUR)
        align = "right" if oracle > (low + high) / 2 else "left"
        name = chart.mark_text(align=align, y=-8, fontSize=13, color=ORACLE_COLOUR)
        layers += [line.encode(x=x), name.encode(x=x, text="label:N")]
    return _svg(alt.layer(*layers), width, height=ROW * len(rows), name=f"auc-{width}")


def auc_by_history(day: Day, width: int) -> str | None:
    """AUC by bucket of history length, one line per model; None if fewer than two have an AUC."""
    rows = [
        {"model": one.model, "bucket": one.slice_value, "auc": one.auc}
        for one in day.slices
        if one.slice == HISTORY_LENGTH and one.auc is not None
    ]
    if len({row["bucket"] for row in rows}) < 2:
        return None
    aucs = [one.auc for one in day.slices if one.auc is not None]
    buckets = list(dict.fromkeys(one.slice_value for one in day.slices))
    x = alt.X("bucket:O", sort=buckets, title="behaviours in the history")
    names = [result.model for result in day.results]
    return _lines(rows, names, x, "auc:Q", _format(aucs), width, f"history-{width}")


def relaimpr_by_day(day: Day, width: int) -> str | None:
    """RelaImpr by day, one line per model of the run date; None for fewer than two days.

    Popularity and the oracle are not drawn: next to the oracle's gain, the lines of the models
    would all look flat.
    """
    names = [result.model for result in day.models]
    rows = [
        {"model": one.model, "day": one.run_date.isoformat(), "relaimpr": one.relaimpr}
        for one in day.past
        if one.relaimpr is not None and one.model in names
    ]
    days = sorted({str(row["day"]) for row in rows})
    if len(days) < 2:
        return None
    every = math.ceil(len(days) * 50 / width)  # 50 pixels per label, so that labels do not overlap
    axis = alt.Axis(title=None, values=days[::-every], labelExpr="slice(datum.label, 5)")
    x = alt.X("day:O", axis=axis)
    return _lines(rows, names, x, "relaimpr:Q", "+~f", width, f"days-{width}")


def _lines(
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    x: alt.X,
    value: str,
    number: str,
    width: int,
    name: str,
) -> str:
    y = alt.Y(
        value,
        title=None,
        scale=alt.Scale(zero=False, padding=12),
        axis=alt.Axis(format=number, tickCount=6),
    )
    dashes = alt.condition(alt.datum.model == ORACLE, alt.value([5, 4]), alt.value([1, 0]))
    chart = _chart(rows)
    lines = chart.mark_line(strokeWidth=2.5).encode(
        x=x, y=y, color=_colours(names), strokeDash=dashes
    )
    crowded = len(rows) > width / 6
    points = chart.mark_point(filled=True, size=30 if crowded else 70, opacity=1)
    points = points.encode(x=x, y=y, color=_colours(names))
    return _svg(alt.layer(lines, points), width, height=260, name=name)


def _colours(names: Sequence[str]) -> alt.Color:
    """The models' colours, without a legend: the page has a legend with the same colours."""
    fixed = {ORACLE: ORACLE_COLOUR, POPULARITY: POPULARITY_COLOUR}
    colours = [fixed.get(name) or colour(position) for position, name in enumerate(names)]
    return alt.Color("model:N", scale=alt.Scale(domain=list(names), range=colours), legend=None)


def _format(aucs: Sequence[float]) -> str:
    """Number format with enough decimals that the axis labels differ."""
    return ".2f" if max(aucs) - min(aucs) > 0.06 else ".3f"


def _chart(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.Data(values=list(rows)))


def _svg(chart: alt.LayerChart, width: int, height: int, name: str) -> str:
    """Draw a chart; ids are prefixed with `name`, so that they are unique on the page."""
    specification = (
        chart.properties(width=width, height=height, background="transparent")
        .configure(font=FONT)
        .configure_axis(
            labelColor=QUIET,
            titleColor=QUIET,
            gridColor=GRID,
            domainColor=GRID,
            tickColor=GRID,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=10,
            labelPadding=6,
        )
        .configure_axisX(labelAngle=0)
        .configure_axisY(labelColor=TEXT, labelFontSize=13)
        .configure_view(stroke=None)
        .to_dict()
    )
    svg = str(vl_convert.vegalite_to_svg(specification, vl_version=_version()))
    svg = re.sub(r'(\bid="|url\(#)', rf"\g<1>{name}-", svg)
    # Inline SVG needs no namespaces. max-width instead of a fixed size, so that it can shrink.
    svg = re.sub(r'^<svg xmlns="[^"]*" xmlns:xlink="[^"]*" version="1.1"', "<svg", svg)
    return re.sub(r'^(<svg [^>]*?) width="(\d+)" height="\d+"', r'\1 style="max-width:\2px"', svg)


def _version() -> str:
    """altair's version of Vega-Lite in the renderer's form: v5.20 for v5.20.1."""
    return ".".join(alt.SCHEMA_VERSION.split(".")[:2])
