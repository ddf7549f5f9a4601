"""Tests without a mark start no process and no Spark, so that they stay fast."""

from __future__ import annotations

from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parent.parent

TESTS = """
import multiprocessing
import os
import subprocess
import sys
import pytest
from pyspark.sql import SparkSession

def test_command():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_copy():
    if not os.fork():
        os._exit(0)

def test_pool():
    multiprocessing.get_context("forkserver").Process(target=print).start()

def test_session():
    SparkSession.builder.getOrCreate()

@pytest.fixture(scope="module")
def started():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_fixture(started):
    pass

def test_nothing():
    pass

@pytest.mark.process
def test_marked():
    subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.fixture
def logs(spark):
    pass

def test_spark(logs):
    pass
"""
STARTS = {"command", "copy", "pool", "session", "fixture"}


class Outcome:
    """The tests that a run of pytest chose, and those that failed."""

    def __init__(self) -> None:
        self.chosen: set[str] = set()
        self.failed: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.chosen = {item.name.removeprefix("test_") for item in session.items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed[report.nodeid.rpartition("::test_")[2]] = report.longreprtext


def run(folder: Path, which: str) -> Outcome:
    """Run these tests with the marks and the rules of this project."""
    file, outcome = folder / "test_some.py", Outcome()
    file.write_text(TESTS)
    options = ["-c", str(REPOSITORY / "pyproject.toml"), "-p", "tests.conftest", "-m", which]
    pytest.main([*options, "-p", "no:cacheprovider", str(file)], plugins=[outcome])
    return outcome


def test_a_test_without_a_mark_that_starts_a_process_or_a_session_fails(tmp_path: Path) -> None:
    ensure_running()  # as an earlier test may leave it: to start a process is then only a message
    outcome = run(tmp_path, "not spark")
    assert outcome.chosen == STARTS | {"nothing", "marked"}
    assert outcome.failed.keys() == STARTS
    for text in outcome.failed.values():
        assert "mark it with @pytest.mark.process" in text


def test_tests_that_use_the_session_or_processes_are_not_unit_tests(
    tmp_path: Path,
) -> None:
    outcome = run(tmp_path, "not spark and not process and not soak")
    assert outcome.chosen == STARTS | {"nothing"}
