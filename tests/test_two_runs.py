"""Two runs of the same job at once: one is refused, or both leave the same; never a mixture."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mfn import errors, job, tables
from mfn.errors import Superseded
from mfn.logs.validate import validate_logs
from mfn.runs import Counts, StepRun
from mfn.schema import EVENTS, QUARANTINE, VALIDATION
from mfn.settings import Settings
from mfn.splits.build import build_splits
from tests.logs_on_disk import Logs, Published
from tests.raw_logs import DAYS, LAST, WINDOWS, deliver, event

MakeSettings = Callable[..., Settings]
Span = tuple[float, float]
"""When a run has begun its work, and when it has ended it."""


def at_once(spark: SparkSession, settings: Settings, one: job.Job, runs: int = 2) -> list[Any]:
    """What each of some runs that begin together ends with: StepRun, or its error.

    The runs must have met: each began to work before another had ended.
    """
    ends: list[Any] = []
    spans: list[Span] = []
    together = threading.Barrier(runs)

    @functools.wraps(one.function)
    def timed(session: SparkSession, settings: Settings) -> Counts:
        begun = time.monotonic()
        try:
            return one.function(session, settings)
        finally:
            spans.append((begun, time.monotonic()))

    def run() -> None:
        together.wait()
        try:
            ends.append(job.run(dataclasses.replace(one, function=timed), spark, settings))
        except Exception as error:
            ends.append(error)

    threads = [threading.Thread(target=run) for _ in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spans) == runs
    assert met(spans), f"the runs did not meet: they worked in {spans}"
    return ends


def met(spans: Sequence[Span]) -> bool:
    """Whether there was a moment at which all of them had begun and none had ended."""
    return max(begun for begun, _ in spans) < min(ended for _, ended in spans)


def test_runs_one_after_the_other_have_not_met() -> None:
    assert met([(0.0, 2.0), (1.0, 3.0)])
    assert met([(1.0, 1.5), (0.0, 3.0)])
    assert not met([(0.0, 1.0), (2.0, 3.0)])
    assert not met([(2.0, 3.0), (0.0, 1.0)])


def test_a_day_validated_twice_at_once_is_validated_once(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    chosen = make_settings(
        windows=WINDOWS, validation={"max_quarantined_share": 1.0, "reference_days": 0}, force=True
    )
    for day in DAYS:
        deliver(chosen, day, [event(f"e{n}", day) for n in range(20)] + ["cut"])
    ends = at_once(spark, chosen, validate_logs)
    assert any(isinstance(end, StepRun) for end in ends)
    assert all(isinstance(end, StepRun | Superseded) for end in ends), ends
    counted = {
        table.name: tables.read(spark, chosen.root, table, "validate_logs").count()
        for table in (EVENTS, QUARANTINE, VALIDATION)
    }
    # Of each day the outcomes clean, repeat, blank and not_json.
    assert counted == {"events": 80, "quarantine": 4, "validation": 16}


NEXT = LAST + datetime.timedelta(days=1)


def test_two_dates_at_once_take_turns_and_both_end(
    spark: SparkSession, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """A backfill beside the daily run: three of four days are days of both."""
    given = {"windows": WINDOWS, "validation": {"max_quarantined_share": 1.0, "reference_days": 0}}
    dates = [make_settings(date=date, **given) for date in (LAST, NEXT)]
    for day in [*DAYS, NEXT]:
        deliver(dates[0], day, [*(event(f"e{n % 15}", day) for n in range(20)), "cut"])
    caplog.set_level(logging.INFO, "mfn")
    ends: list[StepRun] = []
    runs = [
        threading.Thread(target=lambda one=one: ends.append(job.run(validate_logs, spark, one)))
        for one in dates
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(one.settings.date for one in ends) == [LAST, NEXT]  # and none was refused
    assert sorted(one.counts["days"] for one in ends) == [1, 4]
    assert re.search(
        r"validate_logs \S+: waits for the run of \S+, which validates \S+ to \S+; .*; then this "
        r"run validates \S+ to \S+",
        caplog.text,
    )
    # What they leave is what they leave one after the other.
    validated = tables.read(spark, dates[0].root, VALIDATION, "validate_logs").collect()
    assert sorted((row.run_date, row.reason, row.rows) for row in validated) == [
        (day, reason, rows)
        for day in [*DAYS, NEXT]
        for reason, rows in (("blank", 0), ("clean", 15), ("not_json", 1), ("repeat", 5))
    ]
    for table, rows in ((EVENTS, 15), (QUARANTINE, 1)):
        found = tables.read(spark, dates[0].root, table, "validate_logs").groupBy("dt").count()
        assert {row.dt: row["count"] for row in found.collect()} == dict.fromkeys(
            [*DAYS, NEXT], rows
        )


def test_splits_built_twice_at_once_are_those_built_once(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    def logs(root: str) -> Settings:
        chosen = make_settings(root=root, windows=WINDOWS, force=True)
        on_disk = Logs(spark, chosen)
        on_disk.catalogue(
            DAYS[0], [{"item_id": f"i{n}", "category": f"c{n % 3}"} for n in range(9)]
        )
        on_disk.validated(DAYS)
        on_disk.events(
            [
                {
                    "dt": day,
                    "event_id": f"{kind}{n}",
                    "time": at(day, n, kind == "click"),
                    "user": f"u{n % 4}",
                    "type": kind,
                    "item": f"i{n % 9}",
                    "request": f"{day} {n}",
                }
                for day in DAYS
                for n in range(20)
                for kind in ("impression", "click")
            ]
        )
        return chosen

    root = make_settings().root
    once = logs(f"{root}/once")
    job.run(build_splits, spark, once)
    twice = logs(f"{root}/twice")
    ends = at_once(spark, twice, build_splits)
    assert any(isinstance(end, StepRun) for end in ends), ends
    refusals = [end for end in ends if not isinstance(end, StepRun)]
    assert all(isinstance(end, errors.REFUSALS) for end in refusals), ends
    assert Published(twice).digests() == Published(once).digests()


def at(day: datetime.date, minute: int, later: bool) -> datetime.datetime:
    """A moment in the afternoon."""
    start = datetime.datetime(day.year, day.month, day.day, 12, tzinfo=datetime.UTC)
    return start + datetime.timedelta(minutes=minute, seconds=later)
