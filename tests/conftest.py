"""One Spark session for all tests, small settings, and what tests may do by their marks.

`spark` are the tests that take the fixture of that name, also through another fixture. `process`
are those that start processes, and say so. A test with neither mark that starts a process or a
session fails, so that `make test-unit`, which runs those alone, stays quick.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import ContextVar
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from mfn import spark as sessions
from mfn.job import Job
from mfn.settings import Settings, SparkSettings
from mfn.settings_help import ALL_SECTIONS, ALWAYS

# Tests run beside Spark on few cores: threads of torch that wait for one another would crawl.
os.environ["OMP_NUM_THREADS"] = "1"
# Most of a test's time Java compiles what it runs but a few times: the first compiler is enough,
# which takes a third off small jobs.
os.environ["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"

# On a busy machine an example may take any time; it is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

RUN_DATE = datetime.date(2026, 3, 8)
SPARK = SparkSettings(
    master="local[2]",
    driver_memory="2g",
    shuffle_partitions=2,
    options={"spark.sql.adaptive.enabled": "false"},
)


STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")
"""What Python's audit events call the start of a process."""


class _UnitTest:
    """The unit test that runs now, if it is one."""

    item: pytest.Item | None = None


def _refuse(what: str) -> NoReturn:
    pytest.fail(
        f"a test without a mark starts a process ({what}): mark it with @pytest.mark.process or, "
        "if it needs Spark, have it take the fixture `spark`"
    )


def _audit(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in STARTS and _UnitTest.item is not None:
        _refuse(event)


sys.addaudithook(_audit)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark tests that take the Spark session."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch over a unit test, from the set-up of its fixtures on."""
    if item.get_closest_marker("spark") or item.get_closest_marker("process"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_UnitTest, "item", item)
        # These raise no event, and a server that an earlier test left may start them.
        patch.setattr(BaseProcess, "start", lambda _: _refuse("multiprocessing"))
        # Hide the session of other tests: a test that asks for one would start it.
        patch.setattr(SparkContext, "_active_spark_context", None)
        patch.setattr(SparkContext, "_gateway", None)
        patch.setattr(SparkSession, "_instantiatedSession", None)
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _temporary_files_of_java(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where pytest removes what a killed Spark leaves behind, as no one else would."""
    os.environ["JDK_JAVA_OPTIONS"] += f" -Djava.io.tmpdir={tmp_path_factory.mktemp('java')}"


@pytest.fixture(scope="session", autouse=True)
def _jobs_read_only_the_sections_that_their_help_shows() -> Iterator[None]:
    """Fail a test in which a job reads a section of the settings that it does not declare."""
    running: ContextVar[Job | None] = ContextVar("running", default=None)
    read, call, inputs = Settings.__getattribute__, Job.__call__, Job.inputs

    def checked_read(self: Settings, name: str) -> Any:
        job = running.get()
        if job is not None and name in ALL_SECTIONS and name not in (*ALWAYS, *job.sections):
            raise AssertionError(f"{job.name} reads settings.{name}: add it to the job's sections")
        return read(self, name)

    def while_it_runs(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Job, spark: SparkSession, settings: Settings) -> Any:
            token = running.set(self)
            try:
                return method(self, spark, settings)
            finally:
                running.reset(token)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settings, "__getattribute__", checked_read)
        patch.setattr(Job, "__call__", while_it_runs(call))
        patch.setattr(Job, "inputs", while_it_runs(inputs))
        yield


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    root = str(tmp_path_factory.mktemp("spark"))
    session = sessions.start(Settings(root=root, date=RUN_DATE, spark=SPARK), "tests")
    yield session
    session.stop()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with a root of the test's own; sections are given as keyword arguments."""

    def make(**sections: Any) -> Settings:
        return Settings(**{"root": str(tmp_path), "date": RUN_DATE, "spark": SPARK, **sections})

    return make
