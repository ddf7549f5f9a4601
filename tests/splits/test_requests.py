"""Requests, slates and labels against plain loops, on drawn logs, without Spark."""

from __future__ import annotations

import datetime
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql.pandas.types import to_arrow_schema

from mfn.settings import WindowSettings
from mfn.splits.history import NO_SPLIT, ToRows
from mfn.splits.requests import (
    CLICK,
    DROP_COUNTS,
    EVENTS_BY_USER,
    IMPRESSION,
    OTHER,
    SPLITS,
    TIMELINE,
    RequestRules,
    ToTimeline,
)
from mfn.windows import days_between, windows
from tests.naive_requests import UNKNOWN, Event, Key, Rules, key_of, naive_rows, nearest

LAST = datetime.date(2026, 3, 8)
WINDOWS = windows(
    LAST, WindowSettings(history_days=1, pretraining_days=2, training_days=2, test_days=1)
)
RULES = Rules(WINDOWS)
ITEMS = [f"i{n}" for n in range(3, 7)]  # i9 is not in the catalogue
LISTED_FROM = 3


def row_of(item: str, day: datetime.date) -> int:
    """i5 gets a new version every day; the others have one."""
    number = int(item[1:])
    if item not in ITEMS:
        return UNKNOWN
    return 100 + day.day if item == "i5" else number


MICROSECOND = datetime.timedelta(microseconds=1)
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def micros(time: datetime.datetime) -> int:
    return (time - EPOCH) // MICROSECOND


def at(day: int, minutes: float) -> datetime.datetime:
    """A time, in minutes after the start of a day of March 2026."""
    start = datetime.datetime(2026, 3, day, tzinfo=datetime.UTC)
    return start + datetime.timedelta(minutes=minutes)


def event(
    kind: str, time: datetime.datetime, item: str, request: str | None = None, **more: Any
) -> Event:
    """An event of the user u, in the folder of its day."""
    name = f"{kind}-{time:%d%H%M%S%f}-{item}-{request}"
    common = {"dt": time.date(), "event_id": name, "user": "u", "time": time}
    return {**common, "type": kind, "item": item, "request": request, **more}


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Events of a few users and request ids, close to midnights.

    Minutes are multiples of 10, so that events lie exactly on the ends of attribution windows and
    days.
    """
    steps = st.tuples(st.integers(3, 9), st.sampled_from(range(-60, 70, 10)))
    times = steps.map(lambda step: at(step[0], step[1]))
    times = times.map(lambda time: min(time, at(9, 20)))
    kinds = st.sampled_from(["impression"] * 4 + ["click"] * 3 + ["cart"])
    drawn = draw(
        st.lists(
            st.tuples(
                kinds,
                times,
                st.sampled_from([*ITEMS, "i9"]),
                st.sampled_from(["r1", "r2", "r3", "r4", None]),
                st.sampled_from(["u", "v"]),
                st.sampled_from([None, 0, 1, 2]),
                st.sampled_from([True, True, False]),
            ),
            max_size=40,
        )
    )
    return [
        {
            **event(kind, time, item, request),
            "event_id": f"e{number:03d}",
            "user": user,
            "position": position if kind == "impression" else None,
            "spared": spared,
        }
        for number, (kind, time, item, request, user, position, spared) in enumerate(drawn)
    ]


def build_rows(
    events: Sequence[Event], rules: Rules = RULES, batch_rows: int = 1000
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows and counts from the two real steps; Python sorts between them instead of Spark."""
    starts = tuple(micros(rules.midnight(getattr(rules.windows, split)[0])) for split in SPLITS)
    end = micros(rules.midnight(rules.last + datetime.timedelta(days=1)))
    later = [micros(one["time"]) for one in events if one["dt"] > rules.last]
    attribution = rules.attribution // MICROSECOND
    days = days_between((rules.windows.pretraining[0], rules.last))
    limits = RequestRules(
        attribution,
        rules.candidates,
        (*starts, end),
        tuple(micros(rules.midnight(day)) for day in days),
        LISTED_FROM,
        max([end - 1, *later]),
        context_fields=1,
    )
    batches = table(
        sorted(_events_by_user(events, rules), key=lambda row: _nulls_first(row, _BY_REQUEST)),
        to_arrow_schema(EVENTS_BY_USER),
    ).to_batches(max_chunksize=batch_rows)
    timeline = pa.Table.from_batches(
        ToTimeline(limits, batch_rows)(batches), to_arrow_schema(TIMELINE)
    )
    by_time = sorted(timeline.to_pylist(), key=lambda row: _nulls_first(row, _BY_TIME))
    sorted_batches = table(by_time, timeline.schema).to_batches(max_chunksize=batch_rows)
    to_rows = ToRows(rules.history, 0, LISTED_FROM, batch_rows)
    rows = [row for batch in to_rows(sorted_batches) for row in batch.to_pylist()]
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(dict(zip(DROP_COUNTS, row["tally"], strict=False)))
        counts["test_users"] += row["test_user"] > 0
        counts["test_users_in_training"] += row["test_user"] == 2
    return [row for row in rows if row["split"] != NO_SPLIT], +counts


_BY_REQUEST = (
    "user_id", "request", "named", "item_id", "time", "kind", "position", "event_id",
)  # fmt: skip
_BY_TIME = ("user_id", "time", "kind", "event_id", "request_id", "slate")


def table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema)


def _nulls_first(row: dict[str, Any], names: Sequence[str]) -> list[Any]:
    last = {"position": (1, 0)}
    return [last.get(n, (-1, 0)) if row[n] is None else (0, row[n]) for n in names]


def _events_by_user(events: Sequence[Event], rules: Rules) -> list[dict[str, Any]]:
    """EVENTS_BY_USER; a click without request id gets the one that `nearest` finds."""
    impressions = [
        one
        for one in events
        if one["type"] == "impression"
        and one["dt"] <= rules.last
        and one["time"] >= rules.needed_from
    ]
    rows = []
    for one in events:
        in_windows = rules.windows.days[0] <= rules.day(one) <= rules.last
        behaviour = one["type"] != "impression" and one["dt"] <= rules.last and in_windows
        labels = one["type"] == "click" and one["time"] >= rules.needed_from
        if not (one in impressions or behaviour or labels):
            continue
        key: Key | None = key_of(one)
        if key is None and labels:
            key = nearest(one, impressions, rules)
        earlier = one["time"] - rules.attribution
        rows.append(
            {
                "user_id": one["user"],
                "time": micros(one["time"]),
                "kind": {"impression": IMPRESSION, "click": CLICK}.get(one["type"], OTHER),
                "behaviour": behaviour,
                "named": bool(key and key[1]),
                "request": key[2] if key else None,
                "item_id": one["item"] if one["type"] in ("impression", "click") else None,
                "item": row_of(one["item"], rules.day(one)),
                "item_before": row_of(one["item"], rules.day({"time": earlier}))
                if one["type"] == "impression"
                else None,
                "position": one.get("position"),
                "event_id": one["event_id"],
                "spared": one.get("spared", True),
                "fields": [one.get("context", 1)],
            }
        )
    return rows


def comparable(rows: list[dict[str, Any]]) -> list[Any]:
    """Rows of `build_rows` or `naive_rows` in the same form and order."""
    form = []
    for row in rows:
        split, time = row["split"], row.get("time", row.get("request_time"))
        form.append(
            (
                SPLITS[split] if isinstance(split, int) else split,
                row["request_id"],
                row["user_id"],
                time,
                *(tuple(row[name]) for name in ("history", "candidates", "labels")),
                row["history_length"],
                tuple(row["candidate_ids"]),
            )
        )
    return sorted(form)


COUNTED = (*DROP_COUNTS, "test_users", "test_users_in_training")


@settings(max_examples=300, deadline=None)
@given(logs(), st.sampled_from([1, 3, 7, 1000]))
def test_rows_and_counts_equal_those_of_plain_loops_for_any_batch_size(
    events: list[Event], batch_rows: int
) -> None:
    expected, counts = naive_rows(events, row_of, RULES)
    rows, counted = build_rows(events, batch_rows=batch_rows)
    assert comparable(rows) == comparable(expected)
    assert counted == +Counter({name: counts[name] for name in COUNTED})


@settings(max_examples=150, deadline=None)
@given(logs(), logs(), st.integers(4, 8), st.sampled_from(range(-60, 70, 10)))
def test_events_after_a_time_do_not_change_rows_that_were_complete_before_it(
    events: list[Event], others: list[Event], day: int, minutes: int
) -> None:
    """Histories of requests up to t; slates and labels if the attribution window ends before t."""
    cut = at(day, minutes)
    before = [one for one in events if one["time"] <= cut]
    changed = before + [
        {**one, "event_id": f"x{one['event_id']}"} for one in others if one["time"] > cut
    ]
    # A last event after all others: no request is immature, since this depends on the data's end.
    end = event("cart", at(9, 100), "i3", user="nobody")
    sides: list[dict[Any, list[Any]]] = [{}, {}]
    for side, log in zip(sides, ([*before, end], [*changed, end]), strict=True):
        for row in build_rows(log)[0]:
            time, window = row["request_time"], RULES.attribution
            if time <= cut:
                key = (row["user_id"], row["request_id"], row["slate"])
                slate = (row["candidate_ids"], row["candidates"], row["labels"])
                side[key, time] = [row["history"], slate if time + window <= cut else None]
    known = {key for key, (_, slate) in sides[0].items() if slate is not None}
    for key in known:
        assert sides[1][key] == sides[0][key]
    for (user, request, _), time in set(sides[0]) - known:
        there = {key[:2]: found[0] for (key, when), found in sides[1].items() if when == time}
        first = next(v[0] for (k, w), v in sides[0].items() if k[:2] == (user, request))
        assert there[user, request] == first


def test_the_property_above_can_fail() -> None:
    """Its control: an event before the request does change the history."""
    shown = event("impression", at(6, 20), "i3", "r1")
    (without,), (with_it,) = (
        build_rows(log)[0] for log in ([shown], [event("click", at(6, 10), "i4"), shown])
    )
    assert without["history"] == [0, 0, 0, 0, 0]
    assert with_it["history"] == [4, 0, 0, 0, 0]


def labels(*clicks: Event) -> list[int]:
    """Labels of a request with the items i3 and i4 at 12:00, and these clicks."""
    shown = [event("impression", at(6, 720), item, "r1") for item in ("i3", "i4")]
    (row,) = build_rows([*shown, *clicks])[0]
    found: list[int] = row["labels"][: row["candidate_count"]]
    return found


@pytest.mark.parametrize(
    ("click", "expected"),
    [
        (event("click", at(6, 720), "i3", "r1"), [1, 0]),
        (event("click", at(6, 750), "i3", "r1"), [1, 0]),
        (event("click", at(6, 750) + MICROSECOND, "i3", "r1"), [0, 0]),
        (event("click", at(6, 720) - MICROSECOND, "i3", "r1"), [0, 0]),
        (event("click", at(6, 730), "i3", "r2"), [0, 0]),
        (event("click", at(6, 730), "i3", "r1", user="v"), [0, 0]),
        (event("click", at(6, 730), "i5", "r1"), [0, 0]),
        (event("click", at(6, 730), "i4"), [0, 1]),
        (event("cart", at(6, 730), "i3", "r1"), [0, 0]),
        (event("purchase", at(6, 730), "i3", "r1"), [0, 0]),
    ],
)
def test_only_a_click_in_the_window_on_a_shown_item_sets_a_label(
    click: Event, expected: list[int]
) -> None:
    assert labels(click) == expected


def test_several_clicks_on_an_item_set_one_label() -> None:
    clicks = [event("click", at(6, 721 + n), "i3", "r1") for n in range(3)]
    assert labels(*clicks) == [1, 0]


def test_a_click_without_request_id_belongs_to_the_nearest_earlier_impression() -> None:
    early, late = (event("impression", at(6, m), "i3", f"r{m}") for m in (700, 710))
    rows = build_rows([early, late, event("click", at(6, 715), "i3")])[0]
    assert {row["request_id"]: row["labels"] for row in rows} == {
        "r700": [0, 0, 0],
        "r710": [1, 0, 0],
    }


def test_a_click_after_midnight_counts_for_the_request_before_it() -> None:
    shown = event("impression", at(7, 24 * 60 - 1), "i3", "r1")
    rows = build_rows([shown, event("click", at(8, 5), "i3", "r1")])[0]
    assert [(SPLITS[row["split"]], row["labels"]) for row in rows] == [("train", [1, 0, 0])]


def test_a_request_belongs_to_the_day_of_its_first_impression() -> None:
    shown = [event("impression", at(8, minutes), f"i{3 + minutes}", "r1") for minutes in (0, 1)]
    before = event("impression", at(8, 0) - MICROSECOND, "i5", "r1")
    assert [SPLITS[row["split"]] for row in build_rows(shown)[0]] == ["test"]
    assert [SPLITS[row["split"]] for row in build_rows([*shown, before])[0]] == ["train"]


def test_a_candidate_shown_after_midnight_has_the_version_of_the_requests_day() -> None:
    shown = [
        event("impression", at(8, minutes), item, "r1")
        for minutes, item in ((-10, "i3"), (10, "i5"))
    ]
    (row,) = build_rows(shown)[0]
    assert row["candidates"] == [3, 107, 0]
    (control,) = build_rows(shown[1:])[0]
    assert control["candidates"] == [108, 0, 0]


def test_a_behaviour_has_the_version_of_its_own_day() -> None:
    clicks = [event("click", at(day, 600), "i5") for day in (6, 7, 8)]
    (row,) = build_rows([*clicks, event("impression", at(8, 700), "i5", "r1")])[0]
    assert row["history"] == [106, 107, 108, 0, 0]
    assert row["candidates"] == [108, 0, 0]


def test_a_slate_that_is_too_long_becomes_several_rows_of_one_request_by_position() -> None:
    shown = [
        event("impression", at(6, 1), item, "r1", position=position)
        for item, position in zip(["i3", "i4", "i5", "i6", "i9"], [4, 3, 2, 1, None], strict=True)
    ]
    rows = sorted(build_rows(shown)[0], key=lambda row: row["slate"])
    assert [row["candidate_ids"] for row in rows] == [["i6", "i5", "i4"], ["i3", "i9"]]
    assert [row["candidates"] for row in rows] == [[6, 106, 4], [3, UNKNOWN, 0]]
    assert [(row["unknown"], row["unlisted"]) for row in rows] == [(0, 0), (1, 1)]
    assert {row["request_id"] for row in rows} == {"r1"}
    assert [row["slate"] for row in rows] == [0, 1]


def test_a_slate_ends_with_the_attribution_window_and_a_later_impression_starts_a_request() -> None:
    late = {minutes: event("impression", at(6, minutes), "i4", "r1") for minutes in (30, 31)}
    for minutes, expected in ((30, [["i3", "i4"]]), (31, [["i3"], ["i4"]])):
        rows, counts = build_rows([event("impression", at(6, 0), "i3", "r1"), late[minutes]])
        assert [row["candidate_ids"] for row in rows] == expected
        assert counts["repeated_request_ids"] == len(expected) - 1


def test_request_ids_that_begin_anew_each_day_give_the_rows_of_distinct_ids() -> None:
    """For two users who share the ids. Yesterday's clicks are in today's history."""

    def log(name: Callable[[str, int], str]) -> list[Event]:
        return [
            {**event(kind, at(day, minutes), item, name(user, day), user=user), "event_id": number}
            for number, (user, day, kind, minutes, item) in enumerate(
                (user, day, kind, minutes, item)
                for user in "uv"
                for day in (4, 5, 6, 7, 8)
                for kind, minutes, item in (
                    ("impression", 600, f"i{day % 4 + 3}"),
                    ("impression", 601, "i6" if user == "u" else "i3"),
                    ("click", 605, f"i{day % 4 + 3}"),
                    ("purchase", 606, "i6"),
                )
            )
        ]

    def numbered(events: list[Event]) -> list[Event]:
        return [{**one, "event_id": f"e{one['event_id']:03d}"} for one in events]

    same, counts = build_rows(numbered(log(lambda user, day: "1")))
    distinct, control = build_rows(numbered(log(lambda user, day: f"{user}{day}")))

    def without_id(rows: list[dict[str, Any]]) -> list[Any]:
        return sorted(row[:1] + row[2:] for row in comparable(rows))

    assert without_id(same) == without_id(distinct)
    assert len(same) == 10
    assert {row["history_length"] for row in same} == {0, 2, 4, 5}
    assert (counts["repeated_request_ids"], control["repeated_request_ids"]) == (8, 0)


def test_a_request_is_mature_when_its_attribution_window_is_over() -> None:
    shown = [event("impression", at(9, -minutes), "i3", "r1") for minutes in (40, 20)]
    assert len(build_rows(shown)[0]) == 1
    assert build_rows(shown[1:]) == ([], {"immature_requests": 1})


def test_the_attribution_window_starts_with_the_request_even_for_later_candidates() -> None:
    """Otherwise labels could depend on events up to two attribution windows after the request."""
    shown = [
        event("impression", at(6, minutes), item, "r1") for minutes, item in ((0, "i3"), (20, "i4"))
    ]
    for minutes, expected in ((30, [0, 1, 0]), (31, [0, 0, 0])):
        rows, counts = build_rows([*shown, event("click", at(6, minutes), "i4", "r1")])
        assert [row["labels"] for row in rows] == [expected]
        assert counts["clicks_without_impression"] == 1 - sum(expected)


def test_the_same_request_id_of_two_users_means_two_requests() -> None:
    shown = [event("impression", at(6, 1), "i3", "r1", user=user) for user in ("u", "v")]
    assert sorted(row["user_id"] for row in build_rows(shown)[0]) == ["u", "v"]


def test_an_impression_without_request_id_is_a_request_by_itself() -> None:
    """Even if its event id equals the id of another request."""
    unnamed = event("impression", at(6, 1), "i3") | {"event_id": "r1"}
    named = event("impression", at(6, 1), "i4", "r1")
    rows = build_rows([unnamed, named])[0]
    assert sorted(row["candidate_ids"] for row in rows) == [["i3"], ["i4"]]
    assert {row["request_id"] for row in rows} == {"r1"}


@pytest.mark.parametrize(
    ("minutes_before_end", "later", "immature"),
    [(30, None, 1), (31, None, 0), (30, 0, 0), (10, 19, 1), (10, 20, 0)],
)
def test_a_request_whose_labels_are_not_known_yet_is_dropped_and_counted(
    minutes_before_end: int, later: int | None, immature: int
) -> None:
    """`later` is the minute of the last event, on the next day."""
    log = [event("impression", at(9, -minutes_before_end), "i3", "r1")]
    if later is not None:
        log.append(event("cart", at(9, later), "i3", user="v"))
    rows, counts = build_rows(log)
    assert len(rows) == 1 - immature
    assert counts["immature_requests"] == immature


def test_the_context_is_that_of_the_earliest_impression() -> None:
    shown = [
        event("impression", at(6, 2), "i3", "r1", position=0, context=7),
        event("impression", at(6, 1), "i4", "r1", position=5, context=8),
    ]
    (row,) = build_rows(shown)[0]
    assert row["context_fields"] == [8]


def test_the_order_of_the_log_does_not_change_the_rows() -> None:
    log = [event("impression", at(6, 1), item, "r1") for item in ITEMS]
    log += [event("click", at(5, n), f"i{3 + n % 4}") for n in range(20)]
    expected = build_rows(log)[0]
    random.Random(1).shuffle(log)
    assert build_rows(log)[0] == expected
