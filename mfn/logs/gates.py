"""What must hold of a day's log before anything is made of it, and how it drifts over the days.

Three numbers are measured a day: the share of rows that went to quarantine, the number of clean
events, and the share of requests with a click. Each is held against the limits of the settings and
against the median of the days before. All of it is in the table `validation_measures`, of days
that were refused as well.
"""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mfn.settings import ValidateSettings

ENOUGH_DAYS = 3
"""With fewer days before it, a day is not compared with them."""
SMALLEST_SHARE = 0.001
"""A median share of bad rows below this counts as this: ten times so few may be chance."""


@dataclass(frozen=True)
class Limit:
    """What a setting of `validation` says a measure may be."""

    value: float
    setting: str


NONE_LEAST, NONE_MOST = Limit(0.0, ""), Limit(math.inf, "")


@dataclass(frozen=True)
class Gate:
    """A measure and what it may be.

    change: how many times more, or fewer, than the median of the days before; `only_more` if
    less is never bad.
    """

    measure: str
    meaning: str
    least: Limit
    most: Limit
    change: Limit
    only_more: bool = False


@dataclass(frozen=True)
class Measured:
    """One measure of one day: a row of the table `validation_measures`.

    Attributes:
        median_before: of the days before; None where they are too few.
        least, most: what it may be, by the limits and by the days before.
    """

    run_date: datetime.date
    measure: str
    value: float
    median_before: float | None
    least: float
    most: float

    @property
    def passed(self) -> bool:
        """Whether it is what it may be."""
        return self.least <= self.value <= self.most


Values = Mapping[str, float]
"""Of a day, by measure."""


def gates(settings: ValidateSettings) -> tuple[Gate, ...]:
    """The gates that these settings describe."""

    def limit(setting: str) -> Limit:
        return Limit(float(getattr(settings, setting)), f"validation.{setting}")

    return (
        Gate(
            "quarantined_share",
            "the share of rows that go to quarantine",
            NONE_LEAST,
            limit("max_quarantined_share"),
            limit("max_quarantined_share_ratio"),
            only_more=True,
        ),
        Gate(
            "events",
            "the number of clean events",
            limit("min_events"),
            NONE_MOST,
            limit("max_events_ratio"),
        ),
        Gate(
            "clicked_share",
            "the share of requests with a click",
            limit("min_clicked_share"),
            limit("max_clicked_share"),
            limit("max_clicked_share_ratio"),
        ),
    )


def measure(
    values: Mapping[datetime.date, Values],
    before: Mapping[datetime.date, Values],
    settings: ValidateSettings,
) -> list[Measured]:
    """Hold each day's values against the limits and the days before it.

    Args:
        values: of the days at hand, which are also days before one another.
        before: of other days that passed.
        settings: the limits, and how many days are looked back on.
    """
    known = {**before, **values}
    found = []
    for day in sorted(values):
        first = day - datetime.timedelta(days=settings.reference_days)
        earlier = [known[one] for one in sorted(known) if first <= one < day]
        for gate in gates(settings):
            # A day that nobody could click on says nothing of clicks.
            if gate.measure in values[day]:
                value = values[day][gate.measure]
                past = [of[gate.measure] for of in earlier if gate.measure in of]
                found.append(_held_against(gate, day, value, past))
    return found


def _held_against(gate: Gate, day: datetime.date, value: float, past: Sequence[float]) -> Measured:
    median = statistics.median(past) if len(past) >= ENOUGH_DAYS else None
    least, most = gate.least.value, gate.most.value
    if median is not None and gate.only_more:
        most = min(most, max(median, SMALLEST_SHARE) * gate.change.value)
    elif median:  # of nothing, anything is many times more
        least = max(least, median / gate.change.value)
        most = min(most, median * gate.change.value)
    return Measured(day, gate.measure, value, median, least, most)


def account(measured: Iterable[Measured], settings: ValidateSettings) -> list[str]:
    """A line for each gate that was not passed, which says what was expected and what was found."""
    by_name = {gate.measure: gate for gate in gates(settings)}
    return [_line(one, by_name[one.measure]) for one in measured if not one.passed]


def _line(one: Measured, gate: Gate) -> str:
    def text(value: float) -> str:
        return f"{value:.4%}" if one.measure.endswith("_share") else f"{value:,.0f}"

    too_much = one.value > one.most
    limit, may_be = (gate.most, one.most) if too_much else (gate.least, one.least)
    if may_be == limit.value:
        said_by = limit.setting
    else:
        assert one.median_before is not None
        said_by = (
            f"the median of the days before is {text(one.median_before)}, and "
            f"{gate.change.setting} {gate.change.value:g}"
        )
    return (
        f"{one.run_date}: {gate.meaning}: expected at {'most' if too_much else 'least'} "
        f"{text(may_be)} ({said_by}), got {text(one.value)}"
    )
