"""Gates: limits that a day's log must keep before other jobs use it, and its drift over days.

Of the events three measures are taken each day: the share of quarantined rows, the number of clean
events, and the share of requests with a click. Of a snapshot of the catalogue or of the profiles:
the number of its rows, the share of rows that cannot be used, and the shares of items that have a
category, a price and a title. Each is compared with the limits of the settings and with the median
of the days before. The table `validation_measures` holds all measures, also those of refused days.
"""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mfn.settings import ValidateSettings

MIN_DAYS_BEFORE = 3
"""A day with fewer measured days before it is not compared with them."""
MIN_MEDIAN_SHARE = 0.001
"""Lower bound of the median share of bad rows: below it, ten times as many may be chance."""


OF_EVENTS = ("quarantined_share", "events", "clicked_share")
"""The measures of a day's events."""
SNAPSHOTS = {"items": "catalogue", "users": "profiles"}
"""What the snapshots of each kind are called in messages."""
ITEM_FIELDS_MEASURED = ("category", "price", "title")
"""Fields of the catalogue whose share of items is measured."""


@dataclass(frozen=True)
class Limit:
    """A limit of a measure, and the setting of `validation` that defines it."""

    value: float
    setting: str


NO_MINIMUM, NO_MAXIMUM = Limit(0.0, ""), Limit(math.inf, "")


@dataclass(frozen=True)
class Gate:
    """A measure and its limits.

    Attributes:
        meaning: of the measure, for messages.
        least, most: its limits.
        ratio: by how many times it may differ from the median of the days before.
        limited: which values `ratio` limits: those above the median, those below it, or both.
    """

    measure: str
    meaning: str
    least: Limit
    most: Limit
    ratio: Limit
    limited: Literal["above", "below", "both"] = "both"


@dataclass(frozen=True)
class Measured:
    """One measure of one day: a row of the table `validation_measures`.

    Attributes:
        median_before: of the days before; None if there are too few.
        least, most: its range, from the limits of the settings and the days before.
    """

    run_date: datetime.date
    measure: str
    value: float
    median_before: float | None
    least: float
    most: float

    @property
    def passed(self) -> bool:
        """Whether the value is in its range."""
        return self.least <= self.value <= self.most


Values = Mapping[str, float]
"""A day's values by measure."""


def gates(settings: ValidateSettings) -> tuple[Gate, ...]:
    """The gates that these settings describe."""

    def limit(setting: str) -> Limit:
        return Limit(float(getattr(settings, setting)), f"validation.{setting}")

    return (
        Gate(
            "quarantined_share",
            "the share of rows that go to quarantine",
            NO_MINIMUM,
            limit("max_quarantined_share"),
            limit("max_quarantined_share_ratio"),
            limited="above",
        ),
        Gate(
            "events",
            "the number of clean events",
            limit("min_events"),
            NO_MAXIMUM,
            limit("max_events_ratio"),
        ),
        Gate(
            "clicked_share",
            "the share of requests with a click",
            limit("min_clicked_share"),
            limit("max_clicked_share"),
            limit("max_clicked_share_ratio"),
        ),
        *(
            Gate(
                f"{kind}_rows",
                f"the number of rows of the {whose}",
                NO_MINIMUM,
                NO_MAXIMUM,
                limit("max_snapshot_ratio"),
            )
            for kind, whose in SNAPSHOTS.items()
        ),
        *(
            Gate(
                f"{kind}_unusable_share",
                f"the share of rows of the {whose} that cannot be read or have no id",
                NO_MINIMUM,
                limit("max_unusable_share"),
                limit("max_quarantined_share_ratio"),
                limited="above",
            )
            for kind, whose in SNAPSHOTS.items()
        ),
        *(
            Gate(
                f"items_with_{field}_share",
                f"the share of items of the catalogue that have a {field}",
                NO_MINIMUM,
                NO_MAXIMUM,
                limit("max_field_share_ratio"),
                limited="below",
            )
            for field in ITEM_FIELDS_MEASURED
        ),
    )


def measure(
    values: Mapping[datetime.date, Values],
    before: Mapping[datetime.date, Values],
    settings: ValidateSettings,
) -> list[Measured]:
    """Compare each day's values with the limits and with the days before it.

    Args:
        values: of the days to check; each is also compared with the earlier ones among them.
        before: of other days that passed.
        settings: the limits, and with how many days before it a day is compared.
    """
    known = {**before, **values}
    found = []
    for day in sorted(values):
        first = day - datetime.timedelta(days=settings.reference_days)
        earlier = [known[one] for one in sorted(known) if first <= one < day]
        for gate in gates(settings):
            # A day without requests has no share of clicks, and not every day has a snapshot.
            if gate.measure in values[day]:
                value = values[day][gate.measure]
                past = [of[gate.measure] for of in earlier if gate.measure in of]
                found.append(_compare(gate, day, value, past))
    return found


def _compare(gate: Gate, day: datetime.date, value: float, past: Sequence[float]) -> Measured:
    median = statistics.median(past) if len(past) >= MIN_DAYS_BEFORE else None
    least, most = gate.least.value, gate.most.value
    if median is not None and gate.limited == "above":
        most = min(most, max(median, MIN_MEDIAN_SHARE) * gate.ratio.value)
    elif median:  # a median of 0 gives no ratio
        least = max(least, median / gate.ratio.value)
        if gate.limited == "both":
            most = min(most, median * gate.ratio.value)
    return Measured(day, gate.measure, value, median, least, most)


def problems(measured: Iterable[Measured], settings: ValidateSettings) -> list[str]:
    """A line for each failed gate, with the expected limit and the measured value."""
    by_name = {gate.measure: gate for gate in gates(settings)}
    return [_line(one, by_name[one.measure]) for one in measured if not one.passed]


def _line(one: Measured, gate: Gate) -> str:
    def text(value: float) -> str:
        return f"{value:.4%}" if one.measure.endswith("_share") else f"{value:,.0f}"

    too_high = one.value > one.most
    limit, bound = (gate.most, one.most) if too_high else (gate.least, one.least)
    if bound == limit.value:
        source = limit.setting
    else:
        assert one.median_before is not None
        source = (
            f"the median of the days before is {text(one.median_before)}, and "
            f"{gate.ratio.setting} is {gate.ratio.value:g}"
        )
    return (
        f"{one.run_date}: {gate.meaning}: expected at {'most' if too_high else 'least'} "
        f"{text(bound)} ({source}), got {text(one.value)}"
    )
