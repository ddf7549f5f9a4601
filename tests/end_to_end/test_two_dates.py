"""Two runs of `validate_logs` for the same root and two dates, as whole processes."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn import storage, tables
from mfn.schema import EVENTS, QUARANTINE, VALIDATION
from mfn.settings import Settings, ValidateSettings
from tests.conftest import SPARK
from tests.raw_logs import DAYS, LAST, WINDOWS, Line, deliver, event

REPOSITORY = Path(__file__).parent.parent.parent
TOMORROW = LAST + datetime.timedelta(days=1)
CHECKS = ValidateSettings(max_quarantined_share=0.5, reference_days=0, days_at_once=1)
MOST_SECONDS = 600


def with_logs(root: Path) -> Settings:
    """A root with five days: of each some clean events, a repeat and a bad line."""
    settings = Settings(root=str(root), date=LAST, windows=WINDOWS, validation=CHECKS, spark=SPARK)
    for day in (*DAYS, TOMORROW):
        lines: list[Line] = [*(event(f"e{n}", day) for n in range(200)), event("e1", day), "cut"]
        deliver(settings, day, lines)
    return settings


def start(settings: Settings, date: datetime.date) -> subprocess.Popen[bytes]:
    config = Path(settings.root, f"{date}.json")
    config.write_text(settings.model_dump_json(include={"root", "windows", "validation", "spark"}))
    script = str(REPOSITORY / "jobs" / "validate_logs.py")
    return subprocess.Popen(
        [sys.executable, script, "--config", str(config), "--date", str(date)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
    )


def found(spark: SparkSession, settings: Settings) -> dict[str, list[Any]]:
    """The rows of all tables, without the root in the names of files."""
    spark.catalog.clearCache()
    rows: dict[str, list[Any]] = {}
    for table in (EVENTS, QUARANTINE, VALIDATION):
        frame = tables.read(spark, settings.root, table, "validate_logs").drop("made_from")
        if "source_file" in frame.columns:
            name = F.substring_index("source_file", "/raw/", -1)
            frame = frame.withColumn("source_file", name)
        rows[table.name] = sorted((row.asDict() for row in frame.collect()), key=repr)
    return rows


def groups_published(settings: Settings) -> int:
    """Commits to the table validation after the one that creates it."""
    folder = f"{tables.path_of(settings.root, VALIDATION)}/_delta_log"
    return max(len(storage.list_files(folder, ".json")) - 1, 0)


@pytest.mark.soak
@pytest.mark.process
def test_two_dates_at_once_give_the_tables_of_one_after_the_other_also_if_one_is_killed(
    spark: SparkSession, tmp_path: Path
) -> None:
    control = with_logs(tmp_path / "control")
    for date in (LAST, TOMORROW):
        assert start(control, date).wait(MOST_SECONDS) == 0
    expected = found(spark, control)
    assert {name: len(rows) for name, rows in expected.items()}["events"] == 5 * 200

    settings = with_logs(tmp_path / "killed")
    running = {date: start(settings, date) for date in (LAST, TOMORROW)}
    by_date = {str(date): one for date, one in running.items()}
    try:
        until = time.monotonic() + MOST_SECONDS
        while groups_published(settings) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        holder = storage.holder(settings.layout.claim("validate_logs", True))
        assert holder is not None
        killed = by_date.pop(holder.date)
        os.killpg(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        assert groups_published(settings) < len(DAYS)  # in the middle of its work
        (other,) = by_date.values()
        assert other.wait(MOST_SECONDS) == 0
        assert start(settings, datetime.date.fromisoformat(holder.date)).wait(MOST_SECONDS) == 0
    finally:
        for one in running.values():
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
    assert found(spark, settings) == expected
