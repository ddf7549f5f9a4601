"""Several days in one command: a bad one is named, and the command goes on once it is mended."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mfn import tables
from mfn.schema import METRICS, RUNS
from mfn.settings import BadSettings
from pipelines import daily
from pipelines.steps import steps

PROJECT = Path(__file__).resolve().parents[2]
FIRST, LAST = "2026-03-07", "2026-03-08"
SMALL = """
spark: {master: "local[2]", driver_memory: 2g, shuffle_partitions: 2}
simulate: {users: 100, items: 200, requests_per_day: 120, browsing_per_day: 500, days: 6}
windows: {pretraining_days: 2, training_days: 2}
splits: {history_length: 10, files: 2}
embeddings: {dimension: 8, epochs: 1, threads: 1}
centers: {steps: 2}
train: {learning_rate: 5.0e-3}
models: {base: {}}
"""


def run(script: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = ["--config", str(root / "small.yaml"), "--root", str(root)]
    return subprocess.run(
        [sys.executable, script, *config, *arguments],
        cwd=PROJECT,
        env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def outcomes(spark: SparkSession, root: Path) -> Counter[tuple[str, str, str]]:
    rows = tables.read(spark, str(root), RUNS, "train").collect()
    return Counter((str(row.run_date), row.step, row.outcome) for row in rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Logs of a shop for both days, and settings that take them as somebody else's."""
    (tmp_path / "small.yaml").write_text(SMALL)
    made = run("jobs/simulate_logs.py", tmp_path, "--date", LAST)
    assert made.returncode == 0, made.stderr[-4000:]
    return tmp_path


def test_a_bad_day_is_named_and_the_same_command_goes_on_once_it_is_mended(
    spark: SparkSession, root: Path
) -> None:
    days = ("pipelines/daily.py", root, "--from", FIRST, "--to", LAST)
    file = next(Path(root, "raw/events", f"dt={LAST}").glob("*.json.gz"))
    whole = file.read_bytes()
    lines = gzip.decompress(whole).splitlines()
    file.write_bytes(gzip.compress(b"\n".join([*lines, *[b"{"] * len(lines)])))
    done = run(*days)
    assert done.returncode == 3, done.stderr[-4000:]
    assert f"validate_logs {LAST}: " in done.stderr
    assert "quarantined_share" in done.stderr
    assert "REFUSED" in next(line for line in done.stdout.splitlines() if LAST in line)
    assert "all others" not in done.stdout
    first = outcomes(spark, root)
    assert first[FIRST, "evaluate", "done"] == 1
    assert first[LAST, "validate_logs", "refused"] == 1
    assert (LAST, "build_splits", "done") not in first

    file.write_bytes(whole)
    done = run(*days)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "left alone" in next(line for line in done.stdout.splitlines() if FIRST in line)
    second = outcomes(spark, root)
    for step in steps():
        again = "done" if step.name == "report" else "left alone"  # the page is always made
        assert second[FIRST, step.name, again] == 1 + (again == "done"), step.name
        assert second[LAST, step.name, "done"] == 1, step.name
    metrics = tables.read(spark, str(root), METRICS, "evaluate").where("model = 'base'")
    assert {str(row.run_date) for row in metrics.collect()} == {FIRST, LAST}


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
