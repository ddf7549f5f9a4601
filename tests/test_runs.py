"""What became of each step stands in evaluation/runs, of those too that came to no good end."""

from __future__ import annotations

import datetime
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import Row, SparkSession

from mfn import __version__, errors, job, runs, tables
from mfn.runs import Counts, StepRun
from mfn.schema import RUNS
from mfn.settings import Settings

MakeSettings = Callable[..., Settings]


def count(spark: SparkSession, settings: Settings) -> Counts:
    """Counts what there is."""
    return {"rows": 7, "share": 0.5}


def refuse(spark: SparkSession, settings: Settings) -> Counts:
    raise errors.DataRefused("nothing in it")


def fail(spark: SparkSession, settings: Settings) -> Counts:
    raise ZeroDivisionError("by zero")


def reads(spark: SparkSession, settings: Settings) -> list[object]:
    return ["version 3", settings.train.epochs]


def told(spark: SparkSession, settings: Settings) -> list[Row]:
    found = tables.read(spark, settings.root, RUNS, "train").orderBy("started_at")
    return found.collect()


def test_each_step_has_a_row_whatever_became_of_it(
    spark: SparkSession, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings()
    ran: list[StepRun] = []
    before = datetime.datetime.now(datetime.UTC)
    for function, error in [(count, None), (count, None), (refuse, errors.DataRefused),
                            (fail, ZeroDivisionError)]:  # fmt: skip
        one = job.job(reads, sections=["train"])(function)
        if error is None:
            assert job.run(one, spark, settings, ran) is ran[-1]
        else:
            with pytest.raises(error):
                job.run(one, spark, settings, ran)
    runs.record(spark, ran)
    done, skipped, refused, failed = told(spark, settings)
    assert [row.outcome for row in (done, skipped, refused, failed)] == [
        "done", "skipped", "refused", "failed"
    ]  # fmt: skip
    assert [row.step for row in (done, refused, failed)] == ["count", "refuse", "fail"]
    assert (done.rows, done.counts["rows"], done.counts["share"]) == (7, "7", "0.5")
    assert (skipped.rows, skipped.counts) == (None, {})
    assert done.message is None
    assert refused.message == "DataRefused: nothing in it"
    assert failed.message == "ZeroDivisionError: by zero"
    events = [vars(one) for one in caplog.records if one.levelno == logging.ERROR]
    assert [(one["step"], one["outcome"], one["reason"]) for one in events] == [
        ("refuse", "refused", refused.message),
        ("fail", "failed", failed.message),
    ]
    assert [one["exc_info"] is None for one in events] == [True, False]
    assert {row.run_id for row in (done, failed)} == {runs.RUN_ID}
    assert json.loads(done.inputs) == json.loads(refused.inputs) == ["version 3", 1]
    assert done.code_version.startswith(f"{__version__} ")
    assert done.run_date == settings.date
    assert 0 <= done.seconds < 60
    assert done.started_at.replace(tzinfo=datetime.UTC) >= before.replace(microsecond=0)


def test_other_settings_have_another_hash(spark: SparkSession, make_settings: MakeSettings) -> None:
    ran: list[StepRun] = []
    for epochs in (1, 1, 2):
        job.run(
            job.job(sections=["train"])(count), spark, make_settings(train={"epochs": epochs}), ran
        )
    runs.record(spark, ran)
    one, same, other = (row.settings_hash for row in told(spark, make_settings()))
    assert one == same != other


def test_runs_that_cannot_be_told_are_no_failure_of_what_was_done(
    spark: SparkSession, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings()
    Path(settings.root, "evaluation").write_text("a file where a folder should be")
    ran: list[StepRun] = []
    job.run(job.job(sections=["train"])(count), spark, settings, ran)
    with caplog.at_level(logging.ERROR):
        runs.record(spark, ran)
    assert "evaluation/runs: could not write the runs table: " in caplog.messages[-1]
    assert "\n" not in caplog.messages[-1]
    assert "Traceback" not in caplog.text


PROGRAM = """
import logging, sys
from mfn import job
from mfn.log_setup import set_up_logging
set_up_logging(sys.argv[1])
logging.getLogger("mfn").info("count %s: done", "2026-03-08", extra={"counts": {"rows": 7}})
logging.getLogger("other").info("not of ours")
"""


@pytest.mark.process
@pytest.mark.parametrize("form", ["plain", "json"])
def test_a_line_of_the_log_is_one_event(form: str) -> None:
    command = [sys.executable, "-c", PROGRAM, form]
    line = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert line.count("\n") == 1
    if form == "json":
        found = json.loads(line)
        assert found["message"] == "count 2026-03-08: done"
        assert found["levelname"] == "INFO"
        assert found["counts"] == {"rows": 7}
    else:
        assert line.endswith(" INFO count 2026-03-08: done\n")
