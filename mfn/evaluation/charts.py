"""The report's plots as inline SVG.

Colours are CSS variables of the page, so that a plot follows it into dark mode. A plot is drawn
for the width it is shown at: scaled down to a phone, its words could not be read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

from mfn.evaluation.auc import HISTORY_LENGTH
from mfn.evaluation.comparison import ORACLE, Comparison
from mfn.evaluation.day import Day
from mfn.evaluation.numbers import decimals, per_cent

WIDE, NARROW = 680, 300
"""Widths in pixels of what is drawn, beside the names of the axis."""

COLOURS = 8
"""Colours there are for models: --model-1 and on; after the last comes the first again."""

TEXT, QUIET, GRID, ORACLE_COLOUR = (
    "var(--text)",
    "var(--quiet)",
    "var(--grid)",
    "var(--oracle)",
)
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CHANCE = 0.5


def colour(place: int) -> str:
    """The colour of the model at this place."""
    return f"var(--model-{place % COLOURS + 1})"


def auc_by_model(day: Day, width: int) -> str | None:
    """A bar a model from chance to its AUC, the oracle as a line; None without any AUC."""
    by_model = {one.model: one.metric.auc for one in day.models if one.metric.auc is not None}
    if not by_model:
        return None
    rows = [
        {"model": model, "auc": auc, "label": decimals(auc, 4)} for model, auc in by_model.items()
    ]
    oracle = day.oracle.metric.auc if day.oracle is not None else None
    aucs = [CHANCE, *by_model.values(), *([] if oracle is None else [oracle])]
    space = (max(aucs) - min(aucs)) * (70 / width) or 0.1  # for the numbers at the ends of bars
    low = min(aucs) - (space if min(aucs) < CHANCE else 0)
    scale = alt.Scale(domain=[low, max(aucs) + space], nice=False, zero=False)
    axis = alt.Axis(title="AUC, from chance at 0.5", format=".2f", tickCount=width // 90)
    y = alt.Y("model:N", sort=None, title=None)
    bars = _chart(rows).mark_bar(size=22, cornerRadiusEnd=3)
    bars = bars.encode(
        x=alt.X("auc:Q", scale=scale, axis=axis),
        x2=alt.X2Datum(CHANCE),
        y=y,
        color=_colours([one.model for one in day.models], legend=None),
    )
    labels = _chart(rows).mark_text(align="left", dx=6, fontSize=13, color=TEXT, fontWeight=600)
    layers = [bars, labels.encode(x=alt.X("auc:Q", scale=scale), y=y, text="label:N")]
    if oracle is not None:
        mark = [{"auc": oracle, "label": f"oracle {decimals(oracle, 4)}"}]
        x = alt.X("auc:Q", scale=scale)
        layers += [
            _chart(mark)
            .mark_rule(strokeDash=[5, 4], strokeWidth=2, color=ORACLE_COLOUR)
            .encode(x=x),
            _chart(mark)
            .mark_text(align="right", dx=-6, y=-8, fontSize=12, color=ORACLE_COLOUR)
            .encode(x=x, text="label:N"),
        ]
    return _svg(alt.layer(*layers), width, height=36 * len(rows), name=f"auc-{width}")


def auc_by_history(day: Day, width: int) -> str | None:
    """A line a model over the buckets of history length; None without any AUC."""
    names = [result.model for result in day.results]
    rows = [
        {"model": one.model, "bucket": one.slice_value, "auc": one.auc}
        for one in day.slices
        if one.slice == HISTORY_LENGTH and one.auc is not None
    ]
    if not rows:
        return None
    buckets = list(dict.fromkeys(str(row["bucket"]) for row in rows))
    x = alt.X("bucket:O", sort=sorted(buckets, key=_first), title="behaviours in the history")
    return _lines(rows, names, x, "auc", "AUC", ".2f", width, f"history-{width}")


def relaimpr_by_day(day: Day, width: int) -> str | None:
    """A line a model over the days; None unless there are two days of it at least."""
    known = [one for one in day.past if one.relaimpr is not None]
    # The oracle's gain is far above the models': beside it theirs would be one flat line.
    known = [one for one in known if one.model != ORACLE]
    if len({one.run_date for one in known}) < 2:
        return None
    names = [result.model for result in day.models]
    names += sorted({one.model for one in known} - set(names))
    days = sorted({one.run_date.isoformat() for one in known})
    every = max(1, round(len(days) / (width / 60)))
    axis = alt.Axis(title=None, values=days[::-every][::-1], labelExpr="slice(datum.label, 5)")
    x = alt.X("day:O", axis=axis)
    return _lines(
        _points(known), names, x, "relaimpr", "RelaImpr, %", "+.1f", width, f"days-{width}"
    )


def _points(known: Sequence[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "model": one.model,
            "day": one.run_date.isoformat(),
            "relaimpr": one.relaimpr,
            "label": per_cent(one.relaimpr),
        }
        for one in known
    ]


def _lines(
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    x: alt.X,
    value: str,
    title: str,
    number: str,
    width: int,
    name: str,
) -> str:
    shown = {row["model"] for row in rows}
    color = _colours(
        [one for one in names if one in shown or one == ORACLE],
        legend=alt.Legend(
            title=None,
            orient="top",
            direction="horizontal",
            columns=max(1, width // 130),
            values=[one for one in names if one in shown],
            symbolType="circle",
        ),
        places={one: place for place, one in enumerate(names)},
    )
    y = alt.Y(
        f"{value}:Q",
        title=title,
        scale=alt.Scale(zero=False, padding=12),
        axis=alt.Axis(format=number, tickCount=6),
    )
    dashes = alt.condition(alt.datum.model == ORACLE, alt.value([5, 4]), alt.value([1, 0]))
    chart = _chart(rows)
    lines = chart.mark_line(strokeWidth=2.5).encode(x=x, y=y, color=color, strokeDash=dashes)
    points = chart.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=color)
    return _svg(alt.layer(lines, points), width, height=260, name=name)


def _colours(
    names: Sequence[str], legend: alt.Legend | None, places: dict[str, int] | None = None
) -> alt.Color:
    places = places or {name: place for place, name in enumerate(names)}
    colours = [ORACLE_COLOUR if one == ORACLE else colour(places[one]) for one in names]
    return alt.Color("model:N", scale=alt.Scale(domain=list(names), range=colours), legend=legend)


def _chart(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.Data(values=list(rows)))


def _first(bucket: str) -> int:
    return int(re.split(r"[-+]", bucket)[0])


def _svg(chart: alt.LayerChart, width: int, height: int, name: str) -> str:
    """Draw a chart; `name` keeps its ids apart from those of other charts of the page."""
    described = (
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
            labelLimit=width // 3,
        )
        .configure_axisX(labelAngle=0)
        .configure_axisY(labelColor=TEXT, labelFontSize=13)
        .configure_view(stroke=None)
        .configure_legend(labelColor=TEXT, labelFontSize=13, symbolSize=90, padding=0, offset=16)
        .to_dict()
    )
    svg = str(vl_convert.vegalite_to_svg(described, vl_version=_version()))
    svg = re.sub(r'(\bid="|url\(#)', rf"\g<1>{name}-", svg)
    # What is inside of HTML needs no namespaces, and a fixed size would not give way.
    svg = re.sub(r'^<svg xmlns="[^"]*" xmlns:xlink="[^"]*" version="1.1"', "<svg", svg)
    return re.sub(r'^(<svg [^>]*?) width="(\d+)" height="\d+"', r'\1 style="max-width:\2px"', svg)


def _version() -> str:
    """The Vega-Lite that altair writes, as its renderer names it: v5.20 of v5.20.1."""
    return ".".join(alt.SCHEMA_VERSION.split(".")[:2])
