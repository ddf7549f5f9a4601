"""A day is validated whole or not at all, and a refusal gives its reasons."""

from __future__ import annotations

import datetime
import math
import random
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn import tables
from mfn.errors import DataRefused
from mfn.logs import raw, validate
from mfn.logs.outcomes import CLEAN
from mfn.logs.validate import validate_logs
from mfn.schema import EVENTS, QUARANTINE, VALIDATION, VALIDATION_MEASURES
from mfn.settings import Settings, ValidateSettings, WindowSettings
from tests.logs_on_disk import Logs
from tests.raw_logs import DAYS, LAST, WINDOWS, Line, MakeSettings, deliver, event


def table(spark: SparkSession, settings: Settings, which: Any) -> list[Any]:
    rows = tables.read(spark, settings.root, which, "validate_logs").drop("made_from").collect()
    return sorted((row.asDict() for row in rows), key=repr)


def all_tables(spark: SparkSession, settings: Settings) -> list[Any]:
    return [table(spark, settings, which) for which in (EVENTS, QUARANTINE, VALIDATION)]


def test_a_truncated_file_is_refused_instead_of_read_in_part(
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
    """Four days: one empty, the last with repeats, a blank and as many bad lines as allowed."""
    root = str(tmp_path_factory.mktemp("validated"))
    limit = ValidateSettings(max_quarantined_share=1 / 23, reference_days=0)
    chosen = Settings(root=root, date=LAST, windows=WINDOWS, validation=limit)
    deliver(chosen, DAYS[0], [event("a", DAYS[0]), event("b", DAYS[0])])
    deliver(chosen, DAYS[1], [], raw.SUCCESS)
    deliver(chosen, DAYS[2], [event("a", DAYS[2])], "part-0.json.gz")
    deliver(chosen, LAST, LAST_DAY)
    counts = validate_logs(spark, chosen)
    return chosen, counts, all_tables(spark, chosen)


def test_every_row_has_one_outcome_and_is_counted_once(
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


def test_a_second_run_does_nothing_and_a_forced_run_writes_the_same_tables(
    spark: SparkSession, validated: tuple[Settings, Any, list[Any]]
) -> None:
    chosen, _, before = validated
    assert validate_logs(spark, chosen) == {"rows": 0, "days": 0}
    assert validate_logs(spark, chosen.model_copy(update={"force": True}))["days"] == 4
    assert all_tables(spark, chosen) == before


def test_only_days_with_changed_files_or_settings_are_validated_again(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    any_share = {"max_quarantined_share": 1.0, "reference_days": 0}
    chosen = make_settings(windows=WINDOWS, validation=any_share)
    for day in DAYS:
        deliver(chosen, day, [event("a", day), event("b", day)])
    validate_logs(spark, chosen)
    deliver(chosen, DAYS[1], [event("c", DAYS[1])], "came-later.json")
    assert validate_logs(spark, chosen)["days"] == 1
    counted = {
        row["run_date"]: row["rows"]
        for row in table(spark, chosen, VALIDATION)
        if row["reason"] == "clean"
    }
    assert counted == {DAYS[0]: 2, DAYS[1]: 3, DAYS[2]: 2, LAST: 2}

    looser = chosen.validation.model_copy(update={"max_clicked_share": 0.99})
    assert validate_logs(spark, chosen.model_copy(update={"validation": looser}))["days"] == 0
    stricter = chosen.validation.model_copy(update={"max_user_events": 2})
    counts = validate_logs(spark, chosen.model_copy(update={"validation": stricter}))
    assert counts["days"] == 4
    assert counts["too_many_events"] == 1


def test_a_file_that_arrives_during_a_run_is_read_by_the_next_run(
    spark: SparkSession, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_share = {"max_quarantined_share": 1.0, "reference_days": 0}
    chosen = make_settings(windows=WINDOWS, validation=any_share)
    for day in DAYS:
        deliver(chosen, day, [event("a", day)])
    read = raw.read_events

    def read_while_a_file_arrives(*arguments: Any) -> Any:
        deliver(chosen, LAST, [event("b"), "cut"], "meanwhile.json")
        return read(*arguments)

    monkeypatch.setattr(raw, "read_events", read_while_a_file_arrives)
    assert validate_logs(spark, chosen)["rows"] == 4
    monkeypatch.undo()
    again = validate_logs(spark, chosen)
    assert (again["days"], again["rows"], again["quarantined"]) == (1, 3, 1)


def test_a_gate_refuses_a_bad_day_and_the_tables_do_not_change(
    spark: SparkSession, validated: tuple[Settings, Any, list[Any]]
) -> None:
    """The control is `validated` itself: a day that just passes."""
    chosen, _, before = validated
    added: list[Line] = [event("x", user_id=""), event("y", user_id="")]
    path = deliver(chosen, LAST, [*LAST_DAY, *added])
    try:
        with pytest.raises(DataRefused) as refused:
            validate_logs(spark, chosen)
    finally:
        deliver(chosen, LAST, LAST_DAY)
    message = str(refused.value)
    assert (
        f"{LAST}: the share of rows that go to quarantine: expected at most 4.3478% "
        "(validation.max_quarantined_share), got 12.0000%"
    ) in message
    assert f"{LAST}: 3 of 25 rows are bad: missing_user_id 2, not_json 1" in message
    assert f"an example of missing_user_id, in file:{path}" in message.replace("///", "/")
    assert '"event_id": "x"' in message
    assert all_tables(spark, chosen) == before
    measured = {
        row["measure"]: (row["value"], row["most"], row["passed"])
        for row in table(spark, chosen, VALIDATION_MEASURES)
        if row["run_date"] == LAST
    }
    assert measured == {
        "quarantined_share": (3 / 25, 1 / 23, False),
        "events": (20.0, None, True),
    }


def test_a_day_unlike_the_days_before_is_refused_and_a_similar_day_passes(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    def events(day: datetime.date, number: int) -> list[Line]:
        shown = [
            event(f"s{n}", day, event_type="impression", request_id=f"r{n}") for n in range(number)
        ]
        return [*shown, *(event(f"c{n}", day, request_id=f"r{n}") for n in range(number // 4))]

    chosen = make_settings(windows=WINDOWS)
    for day in DAYS[:-1]:
        deliver(chosen, day, events(day, 400))
    deliver(chosen, LAST, events(LAST, 80))
    with pytest.raises(DataRefused) as refused:
        validate_logs(spark, chosen)
    assert str(refused.value).splitlines()[0] == (
        f"{LAST}: the number of clean events: expected at least 125 (the median of the days "
        "before is 500, and validation.max_events_ratio is 4), got 100"
    )
    assert not tables.is_there(spark, chosen.root, EVENTS)
    deliver(chosen, LAST, events(LAST, 160))
    assert validate_logs(spark, chosen)["days"] == 4
    rows = table(spark, chosen, VALIDATION_MEASURES)
    shares = {row["run_date"]: row["value"] for row in rows if row["measure"] == "clicked_share"}
    assert shares == pytest.approx(dict.fromkeys(DAYS, 0.25))
    (last,) = (row for row in rows if row["run_date"] == LAST and row["measure"] == "events")
    assert (last["value"], last["median_before"], last["least"], last["passed"]) == (
        200.0,
        500.0,
        125.0,
        True,
    )


@pytest.mark.parametrize(("ids", "expected"), [(("r1", "r1"), 1 / 3), (("r1", "r2"), 1 / 3)])
def test_a_request_of_the_clicked_share_is_one_users_request_id(
    spark: SparkSession, ids: tuple[str, str], expected: float
) -> None:
    """Two users who share an id have two requests, as with distinct ids; u1 clicks in one.

    A third request has no id, and its item is named like a request id.
    """
    events = [
        (LAST, CLEAN, kind, user, request, item)
        for user, request in (("u1", ids[0]), ("u2", ids[1]))
        for item in ("i1", "i2")
        for kind in ("impression", *(["click"] if (user, item) == ("u1", "i1") else []))
    ]
    frame = spark.createDataFrame(
        [*events, (LAST, CLEAN, "impression", "u1", None, "r1")],
        "dt date, outcome string, event_type string, user_id string, request_id string, "
        "item_id string",
    )
    none = frame.withColumn("twice", F.lit(None).cast("array<string>"))
    assert validate._count(frame, none, [LAST])[LAST].clicked_share == pytest.approx(expected)


def jobs_of(spark: SparkSession, function: Callable[[], Any]) -> int:
    """Number of Spark jobs of a call."""
    context, group = spark.sparkContext, uuid.uuid4().hex
    context.setJobGroup(group, "of a call")
    try:
        function()
    finally:
        context.setJobGroup("tests", "others")
    return len(context.statusTracker().getJobIdsForGroup(group))


def test_the_number_of_spark_jobs_does_not_grow_with_days_reasons_and_files(
    spark: SparkSession, tmp_path: Path, make_settings: MakeSettings
) -> None:
    """With one Spark job for each check, many checks would take minutes."""
    numbers: list[int] = []
    for number, files, days_at_once in ((1, 1, 8), (2, 3, 8), (2, 3, 3)):
        chosen = make_settings(
            root=str(tmp_path / str(len(numbers))),
            windows=WindowSettings(pretraining_days=number + 1, training_days=1),
            validation={
                "max_quarantined_share": 1.0,
                "reference_days": 0,
                "days_at_once": days_at_once,
            },
        )
        days = [LAST - datetime.timedelta(days=back) for back in range(number + 3)]
        for day in days:
            for file in range(files):
                bad: list[Line] = ["cut", event("x", user_id="")] * (number - 1)
                deliver(chosen, day, [event(f"{file}", day), *bad], f"part-{file}.json")
        numbers.append(jobs_of(spark, partial(validate_logs, spark, chosen)))
    one_group, another, two_groups = numbers
    assert one_group == another
    assert one_group <= 28
    # The first group also creates the tables, and the second reads the measures of the first.
    assert two_groups <= 2 * one_group + 2


class Killed(Exception):
    """Stands for a kill."""


def test_a_run_that_is_killed_again_and_again_makes_headway_group_by_group(
    spark: SparkSession, tmp_path: Path, make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With late events: a group depends on the one before. The control is one group, not killed."""
    draw = random.Random(4)

    def root(name: str, days_at_once: int) -> Settings:
        validation = {"late_hours": 12.0, "reference_days": 0, "days_at_once": days_at_once}
        return make_settings(root=str(tmp_path / name), windows=WINDOWS, validation=validation)

    def deliver_to_both(day: datetime.date) -> None:
        lines = [event(str(draw.randrange(20)), day) for _ in range(24)]
        for name in ("killed", "control"):
            deliver(root(name, 8), day, lines)

    def killed_in_second_group(days_at_once: int) -> list[datetime.date]:
        """The days that are validated afterwards."""
        published, replace = 0, tables.replace

        def replace_or_die(frame: Any, root: str, table: Any, where: Any) -> None:
            nonlocal published
            published += table == EVENTS
            if published == 2 and table == QUARANTINE:  # its events are there already
                raise Killed
            replace(frame, root, table, where)

        with monkeypatch.context() as patch:
            patch.setattr(tables, "replace", replace_or_die)
            with pytest.raises(Killed):
                validate_logs(spark, root("killed", days_at_once))
        return sorted(validate.validated_days(spark, root("killed", 8)))

    for day in DAYS:
        deliver_to_both(day)
    validate_logs(spark, root("control", 8))
    assert killed_in_second_group(1) == DAYS[:1]
    assert validate_logs(spark, root("killed", 2))["days"] == 3
    assert all_tables(spark, root("killed", 8)) == all_tables(spark, root("control", 8))

    deliver_to_both(DAYS[0])  # the other days depend on it, though their files do not change
    assert validate_logs(spark, root("control", 8))["days"] == 4
    assert killed_in_second_group(3) == DAYS[:3]
    assert validate_logs(spark, root("killed", 3))["days"] == 1
    assert all_tables(spark, root("killed", 8)) == all_tables(spark, root("control", 8))


def test_a_bad_day_leaves_the_groups_before_it_published(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    chosen = make_settings(windows=WINDOWS, validation={"reference_days": 0, "days_at_once": 3})
    for day in DAYS:
        deliver(chosen, day, [event(f"e{n}", day) for n in range(9)])
    deliver(chosen, LAST, ["cut"], "part-1.json")
    with pytest.raises(DataRefused, match=f"nothing of {LAST} to {LAST} was published"):
        validate_logs(spark, chosen)
    assert sorted(validate.validated_days(spark, chosen)) == DAYS[:3]
    deliver(chosen, LAST, [], "part-1.json")
    assert validate_logs(spark, chosen)["days"] == 1


def test_which_days_are_validated_is_known_without_a_spark_job_until_it_changes(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    chosen = make_settings()
    logs, days = Logs(spark, chosen), {}
    find = partial(validate.validated_days, spark, chosen)
    assert find() == {}
    for known in (DAYS[:1], DAYS):
        logs.validated(known)
        days = dict.fromkeys(known, "as drawn")
        assert find() == days
        assert jobs_of(spark, find) == 0
        assert find() == days
    shutil.rmtree(tables.path_of(chosen.root, VALIDATION))
    assert find() == {}
    logs.validated(DAYS[1:])  # made anew: its versions have the same numbers again
    logs.validated(DAYS[2:])
    assert find() == dict.fromkeys(DAYS[1:], "as drawn")


def test_days_validated_together_give_the_same_tables_as_day_by_day(
    spark: SparkSession, tmp_path: Path, make_settings: MakeSettings
) -> None:
    """With late events: then a day's repeats depend on the events kept on the day before."""
    draw = random.Random(3)
    late = {"late_hours": 12.0}
    days = [LAST - datetime.timedelta(days=back) for back in reversed(range(5))]
    together = make_settings(
        root=str(tmp_path / "together"),
        validation=late,
        windows=WindowSettings(pretraining_days=3, training_days=1),
    )
    by_day = make_settings(root=str(tmp_path / "by day"), validation=late, windows=WINDOWS)
    for day in days:
        lines = [
            event(str(draw.randrange(30)), day, event_time=f"{day}T{hour:02}:00:00Z")
            for hour in range(24)
        ]
        for chosen in (together, by_day):
            deliver(chosen, day, lines)
    assert validate_logs(spark, together)["days"] == 5
    for date, number in ((days[3], 4), (days[4], 1)):
        assert validate_logs(spark, by_day.model_copy(update={"date": date}))["days"] == number
    assert all_tables(spark, by_day) == all_tables(spark, together)
    repeats = [row for row in table(spark, together, VALIDATION) if row["reason"] == "repeat"]
    assert all(row["rows"] > 0 for row in repeats)


def test_a_missing_or_empty_folder_is_refused_and_the_message_names_its_day(
    make_settings: MakeSettings,
) -> None:
    chosen = make_settings()
    folder = chosen.logs_folder("events")
    deliver(chosen, DAYS[0], [event("a", DAYS[0])])
    Path(folder, f"dt={DAYS[1]}").mkdir()
    deliver(chosen, LAST, [event("a")], "part-0.csv")
    with pytest.raises(DataRefused) as refused:
        raw.day_folders(folder, DAYS)
    message = str(refused.value)
    assert f"{DAYS[0]}:" not in message
    assert f"{DAYS[1]}: {folder}/dt={DAYS[1]} holds no rows" in message
    assert f"{DAYS[2]}: there is no folder {folder}/dt={DAYS[2]}" in message
    assert (
        f"{LAST}: expected files that end with .json, .json.gz, .parquet, got {folder}" in message
    )

    deliver(chosen, DAYS[1], [], raw.SUCCESS)
    found = raw.day_folders(folder, DAYS[:2])  # control
    assert [len(one.json_lines) for one in found] == [1, 0]


def test_a_folder_with_only_empty_files_is_refused_unless_it_has_success(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    chosen = make_settings(windows=WINDOWS)
    for day in DAYS:
        deliver(chosen, day, [])
    for day in DAYS[:-1]:
        deliver(chosen, day, [], raw.SUCCESS)
    with pytest.raises(DataRefused, match=rf"^{LAST}: \S+ holds no rows"):
        validate_logs(spark, chosen)


def test_the_quarantined_share_is_0_without_rows_and_ignores_blank_lines() -> None:
    assert validate.quarantined_share({}) == 0
    assert validate.quarantined_share({"blank": 5}) == 0
    assert math.isclose(validate.quarantined_share({"clean": 3, "not_json": 1, "blank": 96}), 0.25)
