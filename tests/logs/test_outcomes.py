"""Every row gets the right outcome and reason, and no row is lost."""

from __future__ import annotations

import datetime
import json
import zoneinfo
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.logs import outcomes, raw
from mfn.logs.outcomes import REASONS, TOO_MANY_EVENTS
from mfn.schema import EVENTS
from mfn.settings import Settings, ValidateSettings
from tests.raw_logs import DAYS, LAST, Line, MakeSettings, as_bytes, deliver, event


def judged(spark: SparkSession, settings: Settings, days: Sequence[datetime.date]) -> DataFrame:
    folder = settings.logs_folder("events")
    rows = raw.read_events(spark, folder, raw.day_folders(folder, days))
    return outcomes.judge(rows, settings)


# For each reason, a bad line and a clean line that differs only in what is wrong.

PAIRS: dict[str, tuple[Line, Line]] = {
    "wrong_encoding": (
        '{"event_id":"é"}'.encode("latin-1"),
        event("wrong_encoding", user_id="é"),
    ),
    "truncated_line": (
        json.dumps(event("x"))[:-9],
        json.dumps(event("truncated_line")),
    ),
    "truncated_line: at once": ("{ ", event("truncated_line: at once", request_id="{ ")),
    "not_json: two events": (
        json.dumps(event("x")) + json.dumps(event("y")),
        event("not_json: two events"),
    ),
    "not_json: two with a comma": (
        json.dumps(event("x")) + "," + json.dumps(event("y")),
        event("not_json: two with a comma"),
    ),
    "not_json: something behind": (
        json.dumps(event("x")) + "] }",
        " " + json.dumps(event("not_json: something behind")) + " \t",
    ),
    "not_json: a list": (
        json.dumps([event("x")]),
        event("not_json: a list", context={"a": "[]"}),
    ),
    "not_json: null": ("null", event("not_json: null", request_id=None)),
    "not_json: a word": ("hello", event("not_json: a word", request_id="hello")),
    "not_json: Python": (str(event("x")), event("not_json: Python", request_id="'x'")),
    "bad_context": (event("x", context="phone"), event("bad_context", context={"on": "phone"})),
    "nested_id: a list": (
        event("x", item_id=["i1"]),
        event("nested_id: a list", item_id="[i1"),
    ),
    "nested_id: an object": (
        event("x", request_id={"id": 1}),
        event("nested_id: an object", request_id="{id}"),
    ),
    "bad_context: a list": (
        event("x", context=["phone"]),
        event("bad_context: a list", context=None),
    ),
    **{
        f"missing_{name}: {variant}": (
            event("x", **{name: value}),
            event(f"missing_{name}: {variant}"),
        )
        for name in outcomes.REQUIRED
        for variant, value in {"absent": ..., "null": None, "empty": "", "blank": " \u3000"}.items()
    },
    "unknown_event_type": (
        event("x", event_type="Click"),
        event("unknown_event_type", event_type="purchase"),
    ),
    "bad_time: no day": (
        event("x", event_time="2026-02-30T12:00:00Z"),
        event("bad_time: no day", event_time="2026-03-08 12:00:00+00"),
    ),
    "bad_time: only a month": (
        event("x", event_time="2026-03"),
        event("bad_time: only a month", event_time="2026-03-08"),
    ),
    "bad_time: only a time": (
        event("x", event_time="T12:00:00"),
        event("bad_time: only a time", event_time="2026-03-08T12:00:00"),
    ),
    "bad_time: no zone there is": (
        event("x", event_time="2026-03-08T12:00:00+25:00"),
        event("bad_time: no zone there is", event_time="2026-03-08T12:00:00+0930"),
    ),
    "outside_day: before": (
        event("x", event_time="2026-03-07T23:59:59.999Z"),
        event("outside_day: before", event_time="2026-03-08T00:00:00Z"),
    ),
    "future_time": (
        event("x", event_time="2026-03-09T00:00:00Z"),
        event("future_time", event_time="2026-03-08T23:59:59.999Z"),
    ),
    "outside_day: seconds for milliseconds": (
        event("x", event_time=1772971200),
        event("outside_day: seconds for milliseconds", event_time=1772971200000),
    ),
    "bad_position: negative": (
        event("x", position=-1),
        event("bad_position: negative", position=0),
    ),
    "bad_position: a fraction": (
        event("x", position=1.5),
        event("bad_position: a fraction", position=1.0),
    ),
    "bad_position: a word": (
        event("x", position="top"),
        event("bad_position: a word", position="7"),
    ),
    "id_too_long": (event("x", item_id="é" * 51), event("id_too_long", item_id="é" * 50)),
    "id_too_long: request": (
        event("x", request_id="r" * 51),
        event("id_too_long: request", request_id="r" * 50),
    ),
}
"""A bad line and a clean one. A case is named after its reason; a colon separates the variant."""

CASES = {name: (name.split(":")[0], *pair) for name, pair in PAIRS.items()}


@pytest.fixture(scope="module")
def of_cases(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], dict[str, Any]]:
    """One day with all cases: reasons of bad lines by raw text, and good events by id."""
    root = str(tmp_path_factory.mktemp("cases"))
    chosen = Settings(root=root, date=LAST, validation=ValidateSettings(max_id_length=50))
    lines = [line for _, bad, control in CASES.values() for line in (bad, control)]
    deliver(chosen, LAST, lines)
    rows = judged(spark, chosen, [LAST]).collect()
    assert len(rows) == len(lines)
    bad = {row["raw"]: row["reason"] for row in rows if row["reason"]}
    return bad, {row["event_id"]: row for row in rows if not row["reason"]}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_line_gets_its_reason_and_a_similar_good_line_is_clean(
    case: str, of_cases: tuple[dict[str, str], dict[str, Any]]
) -> None:
    bad, clean = of_cases
    reason, line, _ = CASES[case]
    as_text = as_bytes(line).decode("latin-1" if reason == "wrong_encoding" else "utf-8")
    assert bad[as_text] == reason
    assert case in clean


def test_every_reason_has_a_case() -> None:
    """Except too_many_events, which depends on the other lines of the user."""
    assert {*(reason for reason, _, _ in CASES.values()), TOO_MANY_EVENTS} == set(REASONS)


def test_a_wrongly_encoded_line_can_be_converted_back_to_its_bytes(
    of_cases: tuple[dict[str, str], dict[str, Any]],
) -> None:
    bad, _ = of_cases
    (kept,) = (text for text, reason in bad.items() if reason == "wrong_encoding")
    assert kept.encode("latin-1") == as_bytes(CASES["wrong_encoding"][1])


def test_clean_events_keep_their_values(
    of_cases: tuple[dict[str, str], dict[str, Any]],
) -> None:
    _, clean = of_cases
    assert clean["bad_position: a fraction"]["position"] == 1
    assert clean["not_json: null"]["request_id"] is None
    assert clean["bad_context"]["context"] == {"on": "phone"}
    assert clean["wrong_encoding"]["user_id"] == "é"


# Times.


def test_every_notation_of_a_time_is_parsed_to_the_same_moment(spark: SparkSession) -> None:
    zone = zoneinfo.ZoneInfo("America/New_York")
    moment = datetime.datetime(2026, 7, 1, 1, 30, 15, 250000, tzinfo=datetime.UTC)
    same = [
        "2026-07-01T01:30:15.25Z",
        "2026-07-01T03:30:15.250+02:00",
        "2026-07-01 03:30:15.250000+0200",
        "2026-06-30T16:30:15.25-09",
        moment.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S.%f"),
        f" {round(moment.timestamp() * 1000)} ",
    ]
    frame = spark.createDataFrame([(text,) for text in same], "text string")
    times = frame.select(outcomes.parse_time(F.col("text"), "America/New_York").cast("double"))
    assert [row[0] for row in times.collect()] == [moment.timestamp()] * len(same)


def test_days_follow_the_zone_of_the_setting_and_not_of_the_machine(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    midnight = datetime.datetime(2026, 3, 8, tzinfo=zoneinfo.ZoneInfo("Asia/Tokyo"))
    chosen = make_settings(logs={"time_zone": "Asia/Tokyo", "day_time_zone": "Asia/Tokyo"})
    lines = [
        event("first", event_time="2026-03-08T00:00:00"),
        event("first, in ms", event_time=str(round(midnight.timestamp() * 1000))),
        event("last", event_time="2026-03-08T14:59:59Z"),
        event("too late", event_time="2026-03-08T15:00:00Z"),
    ]
    deliver(chosen, LAST, lines)
    rows = judged(spark, chosen, [LAST]).collect()
    assert sorted(row["event_id"] for row in rows if not row["reason"]) == [
        "first",
        "first, in ms",
        "last",
    ]
    assert [row["reason"] for row in rows if row["reason"]] == ["future_time"]


def test_late_and_early_events_are_accepted_up_to_the_settings(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    times = {
        "far too late": "2026-03-07T22:29:59Z",
        "late": "2026-03-07T22:30:00Z",
        "early": "2026-03-09T00:04:59Z",
        "far too early": "2026-03-09T00:05:00Z",
    }
    chosen = make_settings(validation={"late_hours": 1.5, "early_minutes": 5})
    deliver(chosen, LAST, [event(name, event_time=time) for name, time in times.items()])
    rows = judged(spark, chosen, [LAST]).collect()
    assert sorted(row["event_id"] for row in rows if not row["reason"]) == ["early", "late"]
    assert sorted(row["reason"] for row in rows if row["reason"]) == ["future_time", "outside_day"]


# Formats.


def test_each_format_gives_the_same_events(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    lines = [
        event("a", position=0, context={"device": "phone", "page": None}),
        event("b", event_time="2026-03-08T01:02:03.456Z", request_id="r"),
        event("c", user_id=None),
    ]
    chosen = make_settings()
    deliver(chosen, DAYS[0], lines, "a.json")
    deliver(chosen, DAYS[1], lines[:1], "a.json.gz")
    deliver(chosen, DAYS[1], lines[1:], "b.json")
    path = Path(chosen.logs_folder("events"), f"dt={DAYS[2]}", "a.parquet")
    path.parent.mkdir()
    pq.write_table(_table(lines, pa.map_(pa.string(), pa.string())), path)
    path = Path(chosen.logs_folder("events"), f"dt={DAYS[3]}", "a.parquet")
    path.parent.mkdir()
    struct = pa.struct([("device", pa.string())])
    typed = _table([{**line, "event_time": _moment(line)} for line in lines], struct)
    pq.write_table(typed.set_column(6, "position", pa.array([0.0, None, None])), path)

    def of(day: datetime.date) -> list[Any]:
        folder = chosen.logs_folder("events")
        # All as if of the same day's folder, so that only the format can make a difference.
        rows = raw.read_events(spark, folder, raw.day_folders(folder, [day]))
        rows = rows.withColumn("dt", F.lit(LAST))
        judged_rows = outcomes.judge(rows, chosen).drop("source_file", "raw").collect()
        return sorted((row.asDict() for row in judged_rows), key=repr)

    from_lines, from_gzip, from_table, from_typed_table = map(of, DAYS)
    assert {row["event_id"]: row["position"] for row in from_lines} == {
        "a": 0,
        "b": None,
        None: None,
    }
    assert from_gzip == from_lines
    assert from_table == from_lines
    # JSON of a struct has no fields with null, so null values of its context are lost.
    assert from_typed_table == [
        {**row, "context": row["context"] and {"device": "phone"}} for row in from_lines
    ]
    rows = judged(spark, chosen, [DAYS[2]]).collect()
    (kept,) = [row for row in rows if row["reason"] == "missing_user_id"]
    assert json.loads(kept["raw"])["event_id"] == "c"
    assert kept["source_file"].endswith(f"dt={DAYS[2]}/a.parquet")


def _moment(line: dict[str, Any]) -> datetime.datetime:
    return datetime.datetime.fromisoformat(line["event_time"])


def _table(lines: list[dict[str, Any]], context: pa.DataType) -> pa.Table:
    names = ["event_id", "event_time", "user_id", "event_type", "item_id", "request_id", "position"]
    columns = {name: pa.array([line.get(name) for line in lines]) for name in names}
    return pa.table(columns).append_column(
        "context", pa.array([line.get("context") for line in lines], context)
    )


def test_of_a_key_that_is_given_twice_the_last_value_counts_and_the_field_is_named(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    chosen = make_settings()
    once = json.dumps(event("a", context={"device": "phone"}))
    lines: list[Line] = [
        once,
        once.replace('"a"', '"b"').replace('"phone"', '"phone", "device": "tablet"'),
        once.replace('"a"', '"c"').replace('"i1"', '"i0", "item_id": "i2"'),
        once.replace('"a"', '"d"').replace("{", '{"other": 1, "other": 2, ', 1),  # not read
    ]
    deliver(chosen, LAST, lines)
    rows = {row["event_id"]: row for row in judged(spark, chosen, [LAST]).collect()}
    assert [rows[name]["twice"] for name in "abcd"] == [None, ["context"], ["item_id"], None]
    assert rows["b"]["context"] == {"device": "tablet"}
    assert rows["c"]["item_id"] == "i2"
    assert {row["reason"] for row in rows.values()} == {None}


# Repeats, and that no row is lost: against plain Python.


def reference(
    folders: dict[datetime.date, list[bytes]], late_hours: float, user_events: int
) -> tuple[dict[datetime.date, Counter[str]], set[tuple[datetime.date, str, str]]]:
    """Outcomes by day, and clean events as (day, event id, user id), computed row by row."""
    counts, kept = {}, set()
    ids_before: set[str] = set()
    for day, lines in sorted(folders.items()):
        counts[day] = Counter[str]()
        good: dict[str, list[tuple[float, str]]] = {}
        for line in lines:
            reason = naive_reason(line, day, late_hours)
            if reason:
                counts[day][reason] += 1
                continue
            fields = json.loads(line)
            time = naive_time(fields["event_time"])
            assert time is not None
            good.setdefault(str(fields["event_id"]), []).append((time, str(fields["user_id"])))
        ids_today = {name for name in good if not (late_hours and name in ids_before)}
        repeats = sum(map(len, good.values())) - len(ids_today)
        of_user = Counter[str]()
        for _, user, name in sorted((*min(good[name]), name) for name in ids_today):
            of_user[user] += 1
            if of_user[user] <= user_events:
                kept.add((day, name, user))
        too_many = sum(max(0, number - user_events) for number in of_user.values())
        clean = len(ids_today) - too_many
        counts[day] += Counter({"clean": clean, "repeat": repeats, "too_many_events": too_many})
        ids_before = ids_today
    return counts, kept


def naive_reason(line: bytes, day: datetime.date, late_hours: float) -> str | None:
    if not line.strip():
        return "blank"
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "wrong_encoding"
    try:
        fields = json.loads(text)
    except ValueError:
        cut = text.strip().startswith("{") and not text.strip().endswith("}")
        return "truncated_line" if cut else "not_json"
    if not isinstance(fields, dict):
        return "not_json"
    for name in ("event_id", "event_time", "user_id", "event_type", "item_id"):
        if not str(fields.get(name) or "").strip():
            return f"missing_{name}"
    if fields["event_type"] not in ("impression", "click", "cart", "purchase"):
        return "unknown_event_type"
    time = naive_time(fields["event_time"])
    if time is None:
        return "bad_time"
    midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()
    if time < midnight - late_hours * 3600:
        return "outside_day"
    if time >= midnight + 86400:
        return "future_time"
    position = fields.get("position")
    if position is not None and not (isinstance(position, int) and position >= 0):
        return "bad_position"
    return "id_too_long" if len(str(fields["item_id"])) > 256 else None


def naive_time(value: Any) -> float | None:
    if isinstance(value, int):
        return value / 1000
    try:
        time = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    return time.replace(tzinfo=time.tzinfo or datetime.UTC).timestamp()


NOON = datetime.time(12)


def _at_minute(minutes: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(minutes * 60, datetime.UTC)


@st.composite
def logs(draw: st.DrawFn) -> dict[datetime.date, list[bytes]]:
    """Days of lines with few ids, so that there are many repeats, and with many bad lines."""
    folders = {}
    for day in DAYS[:3]:
        minutes = int(datetime.datetime.combine(day, NOON, datetime.UTC).timestamp()) // 60
        moment = st.integers(minutes - 13 * 60, minutes + 13 * 60).map(_at_minute)
        fields = st.fixed_dictionaries(
            {
                "event_id": st.sampled_from(["a", "b", "c", "d", "e", 7, None]),
                "event_time": moment.map(datetime.datetime.isoformat)
                | moment.map(lambda time: round(time.timestamp() * 1000))
                | st.sampled_from(["", "soon"]),
                "user_id": st.sampled_from(["u1", "u2", "ü"]),
                "event_type": st.sampled_from(["impression", "click", "hover"]),
                "item_id": st.sampled_from(["i1", "i" * 300]),
            },
            optional={"position": st.integers(-1, 3), "context": st.just({"a": "b"})},
        )
        line = fields.map(as_bytes)
        cut = st.tuples(line, st.integers(1, 60)).map(lambda pair: pair[0][: -pair[1]])
        noise = st.sampled_from([b"", b" \t", b"\xff", b"[]", b"1"])
        folders[day] = draw(st.lists(line | line | line | cut | noise, min_size=1, max_size=40))
    return folders


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(logs(), st.sampled_from([0.0, 1.0]), st.sampled_from([1, 2, 1000]))
def test_every_row_has_the_same_outcome_as_in_plain_python(
    spark: SparkSession,
    tmp_path_factory: pytest.TempPathFactory,
    folders: dict[datetime.date, list[bytes]],
    late_hours: float,
    user_events: int,
) -> None:
    chosen = Settings(
        root=str(tmp_path_factory.mktemp("drawn")),
        date=LAST,
        validation=ValidateSettings(late_hours=late_hours),
    )
    for day, lines in folders.items():
        half = len(lines) // 2
        deliver(chosen, day, lines[:half], "a.json.gz")
        deliver(chosen, day, lines[half:], "b.json")
    before = spark.createDataFrame([], EVENTS.columns) if late_hours else None
    read = judged(spark, chosen, sorted(folders)).cache()
    marked = outcomes.mark_repeats(read, outcomes.repeated_ids(read, before), before)
    limited = outcomes.limit_users(marked, outcomes.last_allowed(marked, user_events))
    rows = limited.collect()
    read.unpersist()
    found = {day: Counter(row["outcome"] for row in rows if row["dt"] == day) for day in folders}
    kept = {
        (row["dt"], row["event_id"], row["user_id"]) for row in rows if row["outcome"] == "clean"
    }
    assert (found, kept) == reference(folders, late_hours, user_events)
    for row in rows:
        assert (row["raw"] is None) == (row["outcome"] in ("clean", "repeat"))
    assert len(rows) == sum(map(len, folders.values()))


@pytest.mark.parametrize("late_hours", [0.0, 1.0])
def test_only_events_whose_id_occurs_more_than_once_are_shuffled(
    spark: SparkSession, make_settings: MakeSettings, late_hours: float
) -> None:
    chosen = make_settings(validation={"late_hours": late_hours})
    deliver(chosen, LAST, [event("a"), event("b"), event("b")])
    before = spark.createDataFrame([], EVENTS.columns) if late_hours else None
    read = judged(spark, chosen, [LAST]).cache()
    repeated = outcomes.repeated_ids(read, before).cache()
    assert repeated.count() == 1
    frame = outcomes.mark_repeats(read, repeated, before)
    plan = frame._jdf.queryExecution().executedPlan().toString()
    # A sort-merge join would shuffle all events.
    assert "SortMergeJoin" not in plan
    joins = [line for line in plan.splitlines() if "BroadcastHashJoin" in line]
    assert [kind for line in joins for kind in ("LeftAnti", "LeftSemi") if kind in line] == [
        "LeftAnti",
        "LeftSemi",
    ]
    read.unpersist()
    repeated.unpersist()


def test_quarantined_events_of_a_bot_can_be_delivered_again(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    chosen = make_settings()
    lines = [
        event(f"e{n}", user_id="bot", event_time=f"2026-03-08T12:00:0{9 - n}.25Z", position=n)
        for n in range(5)
    ]
    deliver(chosen, LAST, [*lines, event("e5")])
    # Cached, as in the job: else the optimizer takes minutes for the plan.
    read = judged(spark, chosen, [LAST]).cache()
    marked = outcomes.mark_repeats(read, outcomes.repeated_ids(read, None), None)
    limited = outcomes.limit_users(marked, outcomes.last_allowed(marked, 3)).collect()
    bad = [row for row in limited if row["outcome"] == TOO_MANY_EVENTS]
    # Here the later events have the lower numbers.
    assert sorted(json.loads(row["raw"])["event_id"] for row in bad) == ["e0", "e1"]
    assert all(row["source_file"].endswith(f"dt={LAST}/part-0.json") for row in bad)

    again = make_settings(root=f"{chosen.root}/again")
    deliver(again, LAST, [row["raw"] for row in bad])
    names = ("event_id", "event_time", "user_id", "event_type", "item_id", "position", "context")

    def values(rows: list[Any]) -> list[Any]:
        return sorted(tuple(row[name] for name in names) for row in rows)

    assert values(judged(spark, again, [LAST]).collect()) == values(bad)
    read.unpersist()
