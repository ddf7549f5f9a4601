"""A day fails if a measure is out of its limits or unlike the days before, and only then."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn.logs import gates
from mfn.settings import ValidateSettings

DAYS = [datetime.date(2026, 3, day) for day in range(1, 9)]
LAST = DAYS[-1]
USUAL = {"quarantined_share": 0.004, "events": 1000.0, "clicked_share": 0.3}


def measure(last: gates.Values, usual: gates.Values = USUAL, **other: Any) -> list[str]:
    """The problems of a day that follows seven usual days."""
    chosen = ValidateSettings(**other)
    before = dict.fromkeys(DAYS[:-1], usual)
    return gates.problems(gates.measure({LAST: {**USUAL, **last}}, before, chosen), chosen)


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        (
            {"quarantined_share": 0.04},
            {"quarantined_share": 0.0401},
            "the share of rows that go to quarantine: expected at most 4.0000% (the median of "
            "the days before is 0.4000%, and validation.max_quarantined_share_ratio is 10), "
            "got 4.0100%",
        ),
        (
            {"events": 4000.0},
            {"events": 4001.0},
            "the number of clean events: expected at most 4,000 (the median of the days before is "
            "1,000, and validation.max_events_ratio is 4), got 4,001",
        ),
        (
            {"events": 250.0},
            {"events": 249.0},
            "the number of clean events: expected at least 250 (the median of the days before is "
            "1,000, and validation.max_events_ratio is 4), got 249",
        ),
        (
            {"clicked_share": 0.11},
            {"clicked_share": 0.09},
            "the share of requests with a click: expected at least 10.0000% (the median of the "
            "days before is 30.0000%, and validation.max_clicked_share_ratio is 3), got 9.0000%",
        ),
    ],
)
def test_a_day_unlike_the_days_before_fails_and_a_similar_day_passes(
    inside: dict[str, float], outside: dict[str, float], message: str
) -> None:
    assert measure(inside) == []
    assert measure(outside) == [f"{LAST}: {message}"]
    assert measure(outside, reference_days=0) == []


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "message"),
    [
        (
            {"max_quarantined_share": 0.01},
            {"quarantined_share": 0.01},
            {"quarantined_share": 0.011},
            "at most 1.0000% (validation.max_quarantined_share), got 1.1000%",
        ),
        (
            {"min_events": 900},
            {"events": 900.0},
            {"events": 899.0},
            "at least 900 (validation.min_events), got 899",
        ),
        (
            {"min_clicked_share": 0.2},
            {"clicked_share": 0.2},
            {"clicked_share": 0.19},
            "at least 20.0000% (validation.min_clicked_share), got 19.0000%",
        ),
        (
            {"max_clicked_share": 0.4},
            {"clicked_share": 0.4},
            {"clicked_share": 0.41},
            "at most 40.0000% (validation.max_clicked_share), got 41.0000%",
        ),
    ],
)
def test_a_day_beyond_a_limit_fails_and_the_message_names_the_setting(
    limits: dict[str, Any], inside: gates.Values, outside: gates.Values, message: str
) -> None:
    assert measure(inside, **limits) == []
    (line,) = measure(outside, **limits)
    assert line.startswith(f"{LAST}: ")
    assert line.endswith(f": expected {message}")


def test_few_bad_rows_after_days_without_bad_rows_pass() -> None:
    clean = {**USUAL, "quarantined_share": 0.0}
    assert measure({"quarantined_share": 0.01}, usual=clean) == []
    assert measure({"quarantined_share": 0.011}, usual=clean)


def test_the_first_day_with_events_passes_after_days_without_events() -> None:
    nothing = {**USUAL, "events": 0.0, "clicked_share": 0.0}
    assert measure({}, usual=nothing) == []
    assert measure({}, usual={**USUAL, "events": 1.0}) != []  # control: a median above 0


def test_a_day_is_compared_with_at_least_three_days_and_only_with_recent_ones() -> None:
    chosen = ValidateSettings(reference_days=4)
    before = dict.fromkeys((DAYS[2], DAYS[3], DAYS[5], DAYS[6]), USUAL)
    (_, events, _) = gates.measure({LAST: USUAL}, before, chosen)
    assert events.median_before == 1000.0
    (_, events, _) = gates.measure({LAST: USUAL}, before, ValidateSettings(reference_days=3))
    assert events.median_before is None
    assert (events.least, events.most) == (0.0, math.inf)


def test_days_measured_together_are_compared_with_each_other() -> None:
    numbers = [100.0, 100.0, 100.0, 1.0, 100.0]
    days = dict(zip(DAYS, ({**USUAL, "events": number} for number in numbers), strict=False))
    chosen = ValidateSettings()
    failed = [one.run_date for one in gates.measure(days, {}, chosen) if not one.passed]
    assert failed == [DAYS[3]]


def test_a_day_without_requests_is_not_checked_for_its_share_of_clicks() -> None:
    days = {LAST: {"quarantined_share": 0.0, "events": 0.0}}
    measured = gates.measure(days, {}, ValidateSettings(min_clicked_share=0.1))
    assert [(one.measure, one.passed) for one in measured] == [
        ("quarantined_share", True),
        ("events", True),
    ]


@given(st.lists(st.floats(0, 1), min_size=3, max_size=7), st.floats(0, 1))
def test_the_range_of_a_measure_is_never_wider_than_the_limits(
    past: list[float], value: float
) -> None:
    chosen = ValidateSettings(
        max_quarantined_share=0.2, min_clicked_share=0.1, max_clicked_share=0.9, min_events=1
    )
    names = ("quarantined_share", "events", "clicked_share")
    before = dict(zip(DAYS, (dict.fromkeys(names, one) for one in past), strict=False))
    measured = gates.measure({LAST: dict.fromkeys(names, value)}, before, chosen)
    of_day = {one.measure: one for one in measured}
    assert of_day["quarantined_share"].most <= 0.2
    assert of_day["events"].least >= 1
    assert of_day["clicked_share"].least >= 0.1
    assert of_day["clicked_share"].most <= 0.9
    assert all(one.passed == (not gates.problems([one], chosen)) for one in of_day.values())
