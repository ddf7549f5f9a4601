"""Validation believes nothing, loses nothing, and says why."""

from __future__ import annotations

import datetime
import gzip
import json
import math
import random
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn import tables
from mfn.job import DataRefused
from mfn.logs import raw, validate
from mfn.logs.validate import REASONS, validate_logs
from mfn.schema import EVENTS, QUARANTINE, VALIDATION
from mfn.settings import Settings, ValidateSettings, WindowSettings

DAYS = [datetime.date(2026, 3, day) for day in range(5, 9)]
LAST = DAYS[-1]
WINDOWS = WindowSettings(pretraining_days=2, training_days=1, test_days=1)
MakeSettings = Callable[..., Settings]
Line = bytes | str | dict[str, Any]


def event(event_id: str, day: datetime.date = LAST, /, **other: Any) -> dict[str, Any]:
    """A clean event; a field that is given as ... is left out."""
    fields = {
        "event_id": event_id,
        "event_time": f"{day}T12:00:00Z",
        "user_id": "u1",
        "event_type": "click",
        "item_id": "i1",
        **other,
    }
    return {name: value for name, value in fields.items() if value is not ...}


def as_bytes(line: Line) -> bytes:
    if isinstance(line, dict):
        line = json.dumps(line)
    return line.encode() if isinstance(line, str) else line


def deliver(
    settings: Settings, day: datetime.date, lines: Iterable[Line], name: str = "part-0.json"
) -> Path:
    """Write one file of a day's folder."""
    folder = Path(settings.logs_folder("events"), f"dt={day}")
    folder.mkdir(parents=True, exist_ok=True)
    content = b"".join(as_bytes(line) + b"\n" for line in lines)
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def judged(spark: SparkSession, settings: Settings, days: Sequence[datetime.date]) -> DataFrame:
    folder = settings.logs_folder("events")
    rows = raw.read_events(spark, folder, raw.day_folders(folder, days))
    return validate.judge(rows, settings)


def outcomes(spark: SparkSession, settings: Settings, days: Sequence[datetime.date]) -> DataFrame:
    """What the job counts and writes, when nothing has been validated before."""
    before = spark.createDataFrame([], EVENTS.columns) if settings.validation.late_hours else None
    return validate.mark_repeats(judged(spark, settings, days), before, by_day=False)


def table(spark: SparkSession, settings: Settings, which: Any) -> list[Any]:
    rows = tables.read(spark, settings.root, which, "validate_logs").collect()
    return sorted((row.asDict() for row in rows), key=repr)


def all_tables(spark: SparkSession, settings: Settings) -> list[Any]:
    return [table(spark, settings, which) for which in (EVENTS, QUARANTINE, VALIDATION)]


# One line for each reason, with a clean line beside it that differs in just that.

PAIRS: dict[str, tuple[Line, Line]] = {
    "wrong_encoding": (
        '{"event_id":"é"}'.encode("latin-1"),
        event("wrong_encoding", user_id="é"),
    ),
    "not_json: cut short": (
        json.dumps(event("x"))[:-9],
        json.dumps(event("not_json: cut short")),
    ),
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
    "bad_context: a list": (
        event("x", context=["phone"]),
        event("bad_context: a list", context=None),
    ),
    **{
        f"missing_{name}: {what}": (
            event("x", **{name: value}),
            event(f"missing_{name}: {what}"),
        )
        for name in validate.REQUIRED
        for what, value in {"lacking": ..., "null": None, "empty": "", "blank": "  "}.items()
    },
    "unknown_event_type": (
        event("x", event_type="Click"),
        event("unknown_event_type", event_type="purchase"),
    ),
    "bad_time: no day": (
        event("x", event_time="2026-02-30T12:00:00Z"),
        event("bad_time: no day", event_time="2026-03-08 12:00:00+00"),
    ),
    "bad_time: only a day": (
        event("x", event_time="2026-03-08"),
        event("bad_time: only a day", event_time="2026-03-08T00:00Z"),
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
    "outside_day: after": (
        event("x", event_time="2026-03-09T00:00:00Z"),
        event("outside_day: after", event_time="2026-03-08T23:59:59.999Z"),
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
"""A bad line and a clean one; a case is named after its reason, and what is behind a colon."""

CASES = {name: (name.split(":")[0], *pair) for name, pair in PAIRS.items()}


@pytest.fixture(scope="module")
def of_cases(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], dict[str, Any]]:
    """Reason by raw text of what is bad, and the other events by id; one day of all cases."""
    root = str(tmp_path_factory.mktemp("cases"))
    chosen = Settings(root=root, date=LAST, validation=ValidateSettings(id_length=50))
    lines = [line for _, bad, control in CASES.values() for line in (bad, control)]
    deliver(chosen, LAST, lines)
    rows = judged(spark, chosen, [LAST]).collect()
    assert len(rows) == len(lines)
    bad = {row["raw"]: row["reason"] for row in rows if row["reason"]}
    return bad, {row["event_id"]: row for row in rows if not row["reason"]}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_line_is_found_and_the_line_like_it_is_not(
    case: str, of_cases: tuple[dict[str, str], dict[str, Any]]
) -> None:
    bad, clean = of_cases
    reason, line, _ = CASES[case]
    as_text = as_bytes(line).decode("latin-1" if reason == "wrong_encoding" else "utf-8")
    assert bad[as_text] == reason
    assert case in clean


def test_every_reason_has_a_case() -> None:
    assert {reason for reason, _, _ in CASES.values()} == set(REASONS)


def test_a_wrongly_encoded_line_can_be_turned_back_into_its_bytes(
    of_cases: tuple[dict[str, str], dict[str, Any]],
) -> None:
    bad, _ = of_cases
    (kept,) = (text for text, reason in bad.items() if reason == "wrong_encoding")
    assert kept.encode("latin-1") == as_bytes(CASES["wrong_encoding"][1])


def test_what_is_clean_keeps_its_values(
    of_cases: tuple[dict[str, str], dict[str, Any]],
) -> None:
    _, clean = of_cases
    assert clean["bad_position: a fraction"]["position"] == 1
    assert clean["not_json: null"]["request_id"] is None
    assert clean["bad_context"]["context"] == {"on": "phone"}
    assert clean["wrong_encoding"]["user_id"] == "é"


# Times.


def test_a_time_means_the_same_moment_in_whatever_way_it_is_written(spark: SparkSession) -> None:
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
    times = frame.select(validate.parse_time(F.col("text"), "America/New_York").cast("double"))
    assert [row[0] for row in times.collect()] == [moment.timestamp()] * len(same)


def test_the_setting_cuts_the_days_and_not_the_zone_of_the_machine(
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
    assert [row["reason"] for row in rows if row["reason"]] == ["outside_day"]


def test_late_events_are_tolerated_as_far_as_the_setting_says(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    times = {
        "far too early": "2026-03-07T22:29:59Z",
        "early": "2026-03-07T22:30:00Z",
        "late": "2026-03-09T01:29:59Z",
        "far too late": "2026-03-09T01:30:00Z",
    }
    chosen = make_settings(validation={"late_hours": 1.5})
    deliver(chosen, LAST, [event(name, event_time=time) for name, time in times.items()])
    rows = judged(spark, chosen, [LAST]).where("reason is null").collect()
    assert sorted(row["event_id"] for row in rows) == ["early", "late"]


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
        # Of another day than the folder's, so that only the format can make a difference.
        rows = raw.read_events(spark, folder, raw.day_folders(folder, [day]))
        rows = rows.withColumn("dt", F.lit(LAST))
        judged_rows = validate.judge(rows, chosen).drop("source_file", "raw").collect()
        return sorted((row.asDict() for row in judged_rows), key=repr)

    from_lines, from_gzip, from_table, from_typed_table = map(of, DAYS)
    assert {row["event_id"]: row["position"] for row in from_lines} == {
        "a": 0,
        "b": None,
        None: None,
    }
    assert from_gzip == from_lines
    assert from_table == from_lines
    # A struct has no nulls to keep.
    assert from_typed_table == [
        {**row, "context": row["context"] and {"device": "phone"}} for row in from_lines
    ]
    kept = judged(spark, chosen, [DAYS[2]]).where("reason = 'missing_user_id'").collect()
    assert json.loads(kept[0]["raw"])["event_id"] == "c"
    assert kept[0]["source_file"].endswith(f"dt={DAYS[2]}/a.parquet")


def _moment(line: dict[str, Any]) -> datetime.datetime:
    return datetime.datetime.fromisoformat(line["event_time"])


def _table(lines: list[dict[str, Any]], context: pa.DataType) -> pa.Table:
    names = ["event_id", "event_time", "user_id", "event_type", "item_id", "request_id", "position"]
    columns = {name: pa.array([line.get(name) for line in lines]) for name in names}
    return pa.table(columns).append_column(
        "context", pa.array([line.get("context") for line in lines], context)
    )


def test_a_file_that_is_cut_short_is_refused_and_not_read_as_far_as_it_goes(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    chosen = make_settings(windows=WINDOWS)
    draw = random.Random(1)
    for day in DAYS:
        lines = [event(f"{draw.random()}", day) for _ in range(2000)]
        path = deliver(chosen, day, lines, "part-0.json.gz")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataRefused, match=rf"cut short.*\n?.*dt={LAST}/part-0.json.gz"):
        validate_logs(spark, chosen)


# Repeats, and that nothing is lost: against plain Python.


def oracle(
    folders: dict[datetime.date, list[bytes]], late_hours: float
) -> tuple[dict[datetime.date, Counter[str]], set[tuple[datetime.date, str, str]]]:
    """Outcomes by day, and what is kept as (day, event id, user id), row by row."""
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
        kept |= {(day, name, min(good[name])[1]) for name in ids_today}
        repeats = sum(map(len, good.values())) - len(ids_today)
        counts[day] += Counter({"clean": len(ids_today), "repeat": repeats})
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
        return "not_json"
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
    tolerance = late_hours * 3600
    if not midnight - tolerance <= time < midnight + 86400 + tolerance:
        return "outside_day"
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
    """Days of lines in which few ids come again and again, and much is wrong."""
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
@given(logs(), st.sampled_from([0.0, 1.0]), st.booleans())
def test_every_row_has_one_outcome_that_plain_python_gives_it_too(
    spark: SparkSession,
    tmp_path_factory: pytest.TempPathFactory,
    folders: dict[datetime.date, list[bytes]],
    late_hours: float,
    by_day: bool,
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
    rows = validate.mark_repeats(judged(spark, chosen, sorted(folders)), before, by_day).collect()
    found = {day: Counter(row["outcome"] for row in rows if row["dt"] == day) for day in folders}
    kept = {
        (row["dt"], row["event_id"], row["user_id"]) for row in rows if row["outcome"] == "clean"
    }
    assert (found, kept) == oracle(folders, late_hours)
    assert len(rows) == sum(map(len, folders.values()))


@pytest.mark.parametrize(("late_hours", "by_day"), [(0.0, True), (0.0, False), (1.0, False)])
def test_repeats_are_found_in_one_shuffle(
    spark: SparkSession, make_settings: MakeSettings, late_hours: float, by_day: bool
) -> None:
    chosen = make_settings(validation={"late_hours": late_hours})
    deliver(chosen, LAST, [event("a")])
    before = spark.createDataFrame([], EVENTS.columns) if late_hours else None
    frame = validate.mark_repeats(judged(spark, chosen, [LAST]), before, by_day)
    plan = frame._jdf.queryExecution().executedPlan().toString()
    assert plan.count("Exchange hashpartitioning") == 1
    assert plan.count("from_json") == 1


# The job.


LAST_DAY: list[Line] = [
    *(event(f"e{n}") for n in range(20)),
    "",
    "cut",
    event("e1"),
    event("e2", user_id="u0"),
]


@pytest.fixture(scope="module")
def validated(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, Any, list[Any]]:
    """Four days: one empty, the last with bad lines, blanks and repeats, as many as may be."""
    root = str(tmp_path_factory.mktemp("validated"))
    limit = ValidateSettings(quarantined_share=1 / 23)
    chosen = Settings(root=root, date=LAST, windows=WINDOWS, validation=limit)
    deliver(chosen, DAYS[0], [event("a", DAYS[0]), event("b", DAYS[0])])
    deliver(chosen, DAYS[1], [], raw.SUCCESS)
    deliver(chosen, DAYS[2], [event("a", DAYS[2])], "part-0.json.gz")
    deliver(chosen, LAST, LAST_DAY)
    counts = validate_logs(spark, chosen)
    return chosen, counts, all_tables(spark, chosen)


def test_every_row_is_in_one_table_once_and_counted(
    validated: tuple[Settings, Any, list[Any]],
) -> None:
    _, counts, (events, quarantine, validation) = validated
    assert counts == {
        "rows": 27,
        "clean": 23,
        "quarantined": 1,
        "repeats": 2,
        "blank": 1,
        "days": 4,
        "not_json": 1,
    }
    assert [(row["dt"], row["event_id"]) for row in events if row["dt"] != LAST] == [
        (DAYS[0], "a"),
        (DAYS[0], "b"),
        (DAYS[2], "a"),
    ]
    assert {row["event_id"]: row["user_id"] for row in events if row["dt"] == LAST} == {
        **{f"e{n}": "u1" for n in range(20)},
        "e2": "u0",
    }
    assert [(row["dt"], row["reason"], row["raw"]) for row in quarantine] == [
        (LAST, "not_json", "cut")
    ]
    assert quarantine[0]["source_file"].endswith(f"dt={LAST}/part-0.json")
    nothing = {"clean": 0, "repeat": 0, "blank": 0}
    found: dict[datetime.date, dict[str, int]] = {day: {} for day in DAYS}
    for row in validation:
        found[row["run_date"]][row["reason"]] = row["rows"]
    assert found == {
        DAYS[0]: {**nothing, "clean": 2},
        DAYS[1]: nothing,
        DAYS[2]: {**nothing, "clean": 1},
        LAST: {"clean": 20, "repeat": 2, "blank": 1, "not_json": 1},
    }


def test_a_second_run_validates_the_run_date_alone_and_leaves_the_same_tables(
    spark: SparkSession, validated: tuple[Settings, Any, list[Any]]
) -> None:
    chosen, _, before = validated
    assert validate_logs(spark, chosen)["days"] == 1
    assert all_tables(spark, chosen) == before


def test_the_gate_refuses_a_bad_day_and_leaves_the_tables_as_they_were(
    spark: SparkSession, validated: tuple[Settings, Any, list[Any]]
) -> None:
    """The control is `validated` itself, a day that is just good enough."""
    chosen, _, before = validated
    added: list[Line] = [event("x", user_id=""), event("y", user_id="")]
    path = deliver(chosen, LAST, [*LAST_DAY, *added])
    try:
        with pytest.raises(DataRefused) as refused:
            validate_logs(spark, chosen)
    finally:
        deliver(chosen, LAST, LAST_DAY)
    told = str(refused.value)
    assert f"{LAST}: expected at most 4.3478% of the rows in {path.parent} to be bad" in told
    assert "got 12.0000%, 3 of 25: missing_user_id 2, not_json 1" in told
    assert '"event_id": "x"' in told
    assert "validation.quarantined_share" in told
    assert all_tables(spark, chosen) == before


def test_days_validated_in_one_go_are_as_those_validated_day_by_day(
    spark: SparkSession, tmp_path: Path, make_settings: MakeSettings
) -> None:
    """With late events, of which a day's repeats depend on what was kept the day before."""
    draw = random.Random(3)
    late = {"late_hours": 12.0}
    days = [LAST - datetime.timedelta(days=back) for back in reversed(range(5))]
    one_go = make_settings(
        root=str(tmp_path / "one go"),
        validation=late,
        windows=WindowSettings(pretraining_days=3, training_days=1),
    )
    by_day = make_settings(root=str(tmp_path / "by day"), validation=late, windows=WINDOWS)
    for day in days:
        lines = [
            event(str(draw.randrange(30)), day, event_time=f"{day}T{hour:02}:00:00Z")
            for hour in range(24)
        ]
        for chosen in (one_go, by_day):
            deliver(chosen, day, lines)
    assert validate_logs(spark, one_go)["days"] == 5
    for date, number in ((days[3], 4), (days[4], 1)):
        assert validate_logs(spark, by_day.model_copy(update={"date": date}))["days"] == number
    assert all_tables(spark, by_day) == all_tables(spark, one_go)
    repeats = [row for row in table(spark, one_go, VALIDATION) if row["reason"] == "repeat"]
    assert all(row["rows"] > 0 for row in repeats)


def test_a_day_without_a_folder_or_with_an_empty_one_is_refused_and_named(
    make_settings: MakeSettings,
) -> None:
    chosen = make_settings()
    folder = chosen.logs_folder("events")
    deliver(chosen, DAYS[0], [event("a", DAYS[0])])
    Path(folder, f"dt={DAYS[1]}").mkdir()
    deliver(chosen, LAST, [event("a")], "part-0.csv")
    with pytest.raises(DataRefused) as refused:
        raw.day_folders(folder, DAYS)
    told = str(refused.value)
    assert f"{DAYS[0]}:" not in told
    assert f"{DAYS[1]}: {folder}/dt={DAYS[1]} holds no rows" in told
    assert f"{DAYS[2]}: there is no folder {folder}/dt={DAYS[2]}" in told
    assert f"{LAST}: expected files that end with .json, .json.gz, .parquet, got {folder}" in told

    deliver(chosen, DAYS[1], [], raw.SUCCESS)
    found = raw.day_folders(folder, DAYS[:2])  # the control
    assert [len(one.json_lines) for one in found] == [1, 0]


def test_a_folder_whose_files_are_empty_needs_the_mark_of_a_finished_day(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    chosen = make_settings(windows=WINDOWS)
    for day in DAYS:
        deliver(chosen, day, [])
    for day in DAYS[:-1]:
        deliver(chosen, day, [], raw.SUCCESS)
    with pytest.raises(DataRefused, match=rf"^{LAST}: \S+ holds no rows"):
        validate_logs(spark, chosen)


def test_a_share_of_nothing_is_nothing_and_blank_lines_do_not_thin_it() -> None:
    assert validate.quarantined_share({}) == 0
    assert validate.quarantined_share({"blank": 5}) == 0
    assert math.isclose(validate.quarantined_share({"clean": 3, "not_json": 1, "blank": 96}), 0.25)
