"""Several days in one command: a bad one is named, and the command goes on once it is mended."""

from __future__ import annotations

import gzip
import io
import re
from collections import Counter
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.console import Console

from mfn import tables
from mfn.errors import BadSettings
from mfn.runs import StepRun
from mfn.schema import METRICS, RUNS
from mfn.settings import Settings
from mfn.simulator.simulate import simulate_logs
from pipelines import daily
from pipelines.steps import steps

FIRST, LAST = "2026-03-07", "2026-03-08"
SMALL = """
spark: {shuffle_partitions: 2}
simulate: {users: 100, items: 200, requests_per_day: 120, browsing_per_day: 500, days: 6}
windows: {pretraining_days: 2, training_days: 2}
splits: {history_length: 10, files: 2}
embeddings: {dimension: 8, max_epochs: 1, threads: 1}
centers: {max_steps: 2}
train: {learning_rate: 5.0e-3}
models: {base: {}}
"""


@pytest.fixture
def days(tmp_path: Path, spark: SparkSession) -> list[Settings]:
    """Settings of both days, for which the logs of a shop are somebody else's, and those logs."""
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    made = daily.parse(
        ["--config", str(config), "--root", str(tmp_path), "--from", FIRST, "--to", LAST]
    )
    simulate_logs(spark, made[-1])
    return made


def run(
    spark: SparkSession, days: list[Settings]
) -> tuple[set[str], Counter[tuple[str, ...]], str]:
    """Days that were refused, how many steps ended in which way, and the table that is shown."""
    ran: list[StepRun] = []
    refused = daily.run_days(spark, days, ran)
    ended = [(str(one.settings.date), one.step, one.outcome) for one in ran]
    told = tables.read(spark, days[0].root, RUNS, "train").orderBy(F.desc("started_at"))
    rows = told.limit(len(ran)).collect()
    assert Counter((str(row.run_date), row.step, row.outcome) for row in rows) == Counter(ended)
    shown = io.StringIO()
    daily.print_seconds(days, ran, 0.0, Console(file=shown, width=100))
    return {str(date) for date in refused}, Counter(ended), shown.getvalue()


def test_a_bad_day_is_named_and_the_same_command_goes_on_once_it_is_mended(
    spark: SparkSession, days: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    file = next(Path(days[0].root, "raw/events", f"dt={LAST}").glob("*.json.gz"))
    whole = file.read_bytes()
    lines = gzip.decompress(whole).splitlines()
    file.write_bytes(gzip.compress(b"\n".join([*lines, *[b"{"] * len(lines)])))
    names = [step.name for step in steps()]
    refused, ended, table = run(spark, days)
    assert refused == {LAST}
    assert ended == {(LAST, "validate_logs", "refused"): 1} | {
        (FIRST, name, "done"): 1 for name in names
    }
    assert table.count("REFUSED") == 1
    assert "skipped" not in table
    told = capsys.readouterr().err
    assert f"validate_logs {LAST}: " in told
    assert "quarantined_share" in told

    file.write_bytes(whole)
    refused, ended, table = run(spark, days)
    assert refused == set()
    assert "REFUSED" not in table
    assert table.count("skipped") == 1
    assert f"validate_logs {FIRST}: " not in capsys.readouterr().err
    assert (FIRST, "validate_logs", "skipped") in ended
    # The first day is made of the last one's logs too: of clicks after midnight.
    made = [(FIRST, name) for name in names[1:]] + [(LAST, name) for name in names]
    assert {(date, name) for date, name, outcome in ended if outcome == "done"} == set(made)
    metrics = tables.read(spark, days[0].root, METRICS, "evaluate").where("model = 'base'")
    assert {str(row.run_date) for row in metrics.collect()} == {FIRST, LAST}

    _, ended, table = run(spark, days)
    assert len(re.findall("all +. skipped", table)) == len(days)
    assert ended == {(date, name, "skipped"): 1 for date in (FIRST, LAST) for name in names}


def test_days_that_a_failure_has_kept_from_running_are_not_shown_as_skipped() -> None:
    before, failed, after = daily.parse(["--from", "2026-03-06", "--to", LAST])
    ran = [StepRun("validate_logs", one, outcome="skipped") for one in (before, failed, after)]
    ran += [StepRun(step.name, before, outcome="skipped") for step in steps()[1:]]
    ran += [StepRun("build_splits", failed, outcome="failed")]
    shown = io.StringIO()
    daily.print_seconds([before, failed, after], ran, 0.0, Console(file=shown, width=100))
    words = [line.split("│") for line in shown.getvalue().splitlines() if "│" in line]
    rows = [tuple(word.strip() for word in line[1:4]) for line in words]
    assert [(day, *rest) for day, *rest in rows if day] == [
        ("2026-03-06", "all", "skipped"),
        (FIRST, "validate_logs", "skipped"),
        (FIRST, "build_splits", "FAILED"),
        (LAST, "validate_logs", "skipped"),
        (LAST, "all others", "not reached"),
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", FIRST], "--from and --to: expected both or none of them"),
        (["--from", LAST, "--to", FIRST], f"--from: expected a day up to {FIRST}, got {LAST}"),
        (["--from", "2026-02-30", "--to", LAST], "date: expected"),
        (["--from", FIRST, "--to", LAST, "--train.epoch", "1"], "train.epochs"),
        (["--from", FIRST, "--to", LAST, "--date", LAST], "--date"),
    ],
)
def test_a_range_that_is_none_is_a_bad_setting(arguments: list[str], told: str) -> None:
    with pytest.raises(BadSettings) as error:
        daily.parse(arguments)
    assert told in str(error.value)


def test_a_range_is_every_day_of_it_with_the_same_settings() -> None:
    found = daily.parse(["--from", "2026-02-27", "--to", "2026-03-02", "--train.epochs", "3"])
    assert [str(one.date) for one in found] == [
        "2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"
    ]  # fmt: skip
    assert {one.train.epochs for one in found} == {3}
    assert [str(one.date) for one in daily.parse(["--date", LAST])] == [LAST]
