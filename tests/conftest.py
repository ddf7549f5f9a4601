"""One Spark session for all tests, and settings small enough for them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
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

RUN_DATE = datetime.date(2026, 3, 8)
SPARK = SparkSettings(
    master="local[2]",
    driver_memory="2g",
    shuffle_partitions=2,
    options={"spark.sql.adaptive.enabled": "false"},
)


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
