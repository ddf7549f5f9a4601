"""A job's script: what it exits with, what it says, and that it refuses before Spark starts."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mfn import errors, job
from mfn import spark as sessions
from mfn.errors import BadSettings
from mfn.settings import Settings, TrainSettings

RUN_DATE = datetime.date(2026, 3, 8)
REPOSITORY = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

STUB = '''
from mfn.errors import (DataRefused, JobFailed)
from mfn.job import job, main
from mfn.storage import current


@job(sections=("train",))
def stub_job(spark, settings):
    """Count to the number of training passes; refuse more than five, and fail at seven."""
    if settings.train.epochs == 9:
        spark.sparkContext._gateway.proc.kill()
        spark.range(1).count()
    if settings.train.epochs == 8:
        with open("/dev/full", "w") as file:
            file.write("the disk is full")
    if settings.train.epochs == 7:
        raise JobFailed("a worker has ended")
    if settings.train.epochs > 5:
        raise DataRefused(f"{settings.root}: expected at most 5 rows;\\nmend the source")
    if settings.train.epochs == 5:
        current(settings.root, "build_splits")
    options = dict(spark.sparkContext.getConf().getAll())
    return {
        "rows": spark.range(settings.train.epochs).count(),
        "share": 1 / 3,
        "zone": spark.conf.get("spark.sql.session.timeZone"),
        "master": spark.sparkContext.master,
        "partitions": spark.conf.get("spark.sql.shuffle.partitions"),
    }


if __name__ == "__main__":
    main(stub_job)
'''


SEVERAL = """
import sys
from stub_job import main, stub_job

given = sys.argv
for epochs in ("4", "6", "5", "7", "8"):
    sys.argv = [*given, epochs]
    code = None
    try:
        main(stub_job)
    except SystemExit as error:
        code = error.code
    print("exits with", code, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    path = tmp_path / "stub_job.py"
    path.write_text(STUB)
    return path


def run(
    script: Path,
    *arguments: str,
    submit: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    root: str | None = None,
) -> subprocess.CompletedProcess[str]:
    start = [str(BIN / "spark-submit"), *submit] if submit else [sys.executable]
    return subprocess.run(
        [*start, script, "--date", "2026-03-08", "--root", root or script.parent, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYSPARK_PYTHON": sys.executable,
            "MFN_SPARK__MASTER": "local[2]",
            **(environment or {}),
        },
        cwd=script.parent,
    )


WITHOUT_JAVA = {"JAVA_HOME": "/there/is/no/java"}
"""So that a job which ends as it should cannot have started Spark."""


@pytest.mark.process
def test_what_ends_a_job_is_told_in_a_line_and_by_the_exit_code(stub: Path) -> None:
    """The last run's exit code is the process's, those before are what `main` exits with."""
    several = stub.with_name("several.py")
    several.write_text(SEVERAL)
    done = run(several, "--train.epochs")
    assert done.returncode == 1, done.stderr
    ended = re.findall(r"(?s)(.*?)exits with (\S+)\n", done.stderr)
    assert [code for _, code in ended] == ["None", "3", "3", "1", "1"]
    # What nobody foresaw has a traceback, too, above the line that says it.
    assert [told.count("Traceback") for told, _ in ended] == [0, 0, 0, 0, 1]
    assert [
        re.findall(r"ERROR stub_job 2026-03-08: (\w+) after [\d.]+ s\n", told) for told, _ in ended
    ] == [[], ["refused"], ["refused"], ["failed"], ["failed"]]
    assert [told.splitlines()[-1].startswith("stub_job: ") for told, _ in ended[1:]] == [True] * 4
    root = stub.parent
    assert [
        [line for line in told.splitlines() if line.startswith("stub_job: ")] for told, _ in ended
    ] == [
        [],
        [f"stub_job: {root}: expected at most 5 rows;", "stub_job: mend the source"],
        [f"stub_job: {root}: nothing is published there; run jobs/build_splits.py first"],
        ["stub_job: a worker has ended"],
        ["stub_job: OSError: [Errno 28] No space left on device"],
    ]
    first = ended[0][0]
    assert "INFO stub_job 2026-03-08: starts" in first
    (line,) = [line for line in first.splitlines() if "stub_job 2026-03-08: done in" in line]
    assert "rows=4, share=0.3333, zone=UTC, master=local[2], partitions=200" in line
    assert "rows_per_second=" in line


@pytest.mark.process
def test_a_job_that_is_refused_ends_its_process_so(stub: Path) -> None:
    done = run(stub, "--train.epochs", "6")
    assert done.returncode == 3, done.stderr
    assert done.stderr.endswith("stub_job: mend the source\n")


@pytest.mark.process
def test_why_a_job_failed_is_its_last_line_even_where_java_was_killed(stub: Path) -> None:
    """By the machine, for its memory: then Spark can be neither told of it nor stopped."""
    done = run(stub, "--train.epochs", "9")
    assert done.returncode == 1, done.stderr
    assert re.search(r"ERROR stub_job 2026-03-08: failed after [\d.]+ s\n", done.stderr)
    last = done.stderr.splitlines()[-1]
    assert re.match("stub_job: (Py4J|Connection)[a-zA-Z]*Error: ", last), last


@pytest.mark.process
def test_bad_settings_exit_2_before_spark_starts(stub: Path) -> None:
    done = run(stub, "--train.epoch", "2", "--train.learning_rate=-1", environment=WITHOUT_JAVA)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        "stub_job: train.epoch: there is no such setting (argument); did you mean train.epochs?",
        "stub_job: train.learning_rate: expected greater than 0, got '-1' (argument)",
    ]
    control = run(stub, environment=WITHOUT_JAVA)
    assert control.returncode == 1
    assert "/there/is/no/java" in control.stderr
    assert "Traceback" not in control.stderr
    assert "ERROR stub_job 2026-03-08: failed after" in control.stderr
    last = control.stderr.splitlines()[-1]
    assert last.startswith(
        "stub_job: Spark does not start: PySparkRuntimeError: [JAVA_GATEWAY_EXITED]"
    )


@pytest.mark.process
def test_more_workers_than_slots_exit_2_before_spark_starts(stub: Path) -> None:
    done = run(stub, "--train.num_workers", "3", environment=WITHOUT_JAVA)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "stub_job: train.num_workers: expected at most 2, the number of tasks that Spark runs at "
        "once with master 'local[2]', got 3; give Spark more slots or the training fewer workers\n"
    )


@pytest.mark.process
def test_a_real_job_refuses_alike() -> None:
    done = run(REPOSITORY / "jobs" / "train.py", "--train.epochs", "none", environment=WITHOUT_JAVA)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "train: train.epochs: expected a valid integer, got 'none' (argument)\n"


@pytest.mark.process
def test_a_day_without_spark_says_so_in_its_last_line() -> None:
    """For days that fail with Spark, or are refused, see `test_day`."""
    script = REPOSITORY / "pipelines" / "daily.py"
    done = run(script, root="/dev/null/root", environment=WITHOUT_JAVA)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("daily: Spark does not start: ")


@pytest.mark.process
def test_help_is_for_a_newcomer(stub: Path) -> None:
    done = run(stub, "--help", environment={**WITHOUT_JAVA, "COLUMNS": "90"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: stub_job.py --date YYYY-MM-DD [--config conf/demo.yaml]")
    told = "Count to the number of training passes; refuse more than five, and fail at seven."
    assert told in done.stdout
    words = " ".join(done.stdout.split())
    workers = "number of workers; 1 trains in this process, without Horovod; default 1"
    assert f"--train.num_workers {workers}" in words
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.process
def test_under_spark_submit_its_options_win_and_its_slots_count(stub: Path) -> None:
    jars = ",".join(str(jar) for jar in sessions.delta_jars())
    submit = ("--master=local[3]", "--conf=spark.sql.shuffle.partitions=5", f"--jars={jars}")
    refused = run(stub, "--train.num_workers", "4", submit=submit)
    assert refused.returncode == 2, refused.stderr
    expected = "expected at most 3, the number of tasks that Spark runs at once with"
    assert f"{expected} master 'local[3]'" in (
        refused.stdout + refused.stderr  # spark-submit puts the script's errors on its output
    )
    control = run(stub, "--train.num_workers", "3", submit=submit)
    assert control.returncode == 0, control.stderr
    assert "zone=UTC, master=local[3], partitions=5" in control.stdout + control.stderr


class Copier:
    """A job that copies a file and counts how often it does."""

    def __init__(self, folder: Path) -> None:
        self.source, self.copy, self.runs = folder / "source", folder / "copy", 0
        self.source.write_text("as delivered")

        def copy(spark: SparkSession, settings: Settings) -> Mapping[str, int]:
            self.runs += 1
            self.copy.write_text(self.source.read_text())
            return {"rows": 1}

        def reads(spark: SparkSession, settings: Settings) -> list[object]:
            return [self.source.read_text(), settings.train.epochs]

        self.job = job.job(reads, lambda settings: [str(self.copy)], sections=["train"])(copy)

    def runs_again(self, spark: SparkSession, settings: Settings) -> bool:
        before = self.runs
        ran = job.run(self.job, spark, settings)
        assert ran.outcome == ("skipped" if self.runs == before else "done")
        return ran.outcome == "done"


def test_a_job_runs_again_where_what_it_reads_has_changed_and_only_there(
    spark: SparkSession, make_settings: Callable[..., Settings], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    copier, chosen = Copier(tmp_path), make_settings()
    assert copier.runs_again(spark, chosen)
    caplog.set_level(logging.INFO, "mfn")
    assert not copier.runs_again(spark, chosen)
    assert "copy 2026-03-08: skipped: inputs, settings and code unchanged since" in caplog.text
    assert copier.runs_again(spark, make_settings(force=True))
    assert not copier.runs_again(spark, chosen)
    assert copier.runs_again(spark, make_settings(train={"epochs": 2}))
    copier.source.write_text("mended")
    assert copier.runs_again(spark, chosen)
    copier.copy.unlink()
    assert copier.runs_again(spark, chosen)
    other_day = make_settings(date=RUN_DATE + datetime.timedelta(days=1))
    assert copier.runs_again(spark, other_day)
    assert not copier.runs_again(spark, chosen)


def test_a_job_that_fails_is_not_taken_for_done(
    spark: SparkSession, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    copier, chosen = Copier(tmp_path), make_settings()
    copier.runs_again(spark, chosen)
    copier.source.write_text("")
    broken = dataclasses.replace(copier.job, function=refuse)
    with pytest.raises(errors.DataRefused):
        job.run(broken, spark, chosen)
    assert copier.runs_again(spark, chosen)


def refuse(spark: SparkSession, settings: Settings) -> Mapping[str, int]:
    raise errors.DataRefused("nothing in it")


@pytest.mark.process
def test_changed_code_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process each, since what is imported stays as it was."""
    package = tmp_path / "mfn"
    shutil.copytree(REPOSITORY / "mfn", package, ignore=shutil.ignore_patterns("__pycache__"))
    program = "from mfn import fingerprint; print(fingerprint.__file__, fingerprint.of_package())"

    def printed() -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    before = printed()
    assert before.startswith(str(package))
    assert printed() == before
    with open(package / "models" / "mfn.py", "a") as module:
        module.write("\n# changed\n")
    assert printed() != before


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({"spark.master": "local"}, 1),
        ({"spark.master": "local[4]"}, 4),
        ({"spark.master": "local[4, 2]"}, 4),
        ({"spark.master": "local[*]"}, len(os.sched_getaffinity(0))),
        ({"spark.master": "local[4]", "spark.task.cpus": "2"}, 2),
        ({"spark.master": "local-cluster[2,3,1024]"}, 6),
        ({"spark.master": "spark://host:7077"}, None),
        ({"spark.master": "spark://host:7077", "spark.cores.max": "5"}, 5),
        (
            {
                "spark.master": "spark://host:7077",
                "spark.cores.max": "5",
                "spark.executor.cores": "2",
            },
            4,
        ),
        ({"spark.master": "yarn"}, 2),
        (
            {"spark.master": "yarn", "spark.executor.instances": "3", "spark.executor.cores": "4"},
            12,
        ),
        (
            {
                "spark.master": "k8s://https://host:6443",
                "spark.dynamicAllocation.enabled": "true",
                "spark.dynamicAllocation.maxExecutors": "7",
                "spark.executor.instances": "2",
            },
            7,
        ),
    ],
    ids=str,
)
def test_slots_are_those_that_the_options_promise(
    options: dict[str, str], slots: int | None
) -> None:
    assert sessions.slots(options) == slots


def test_an_endless_number_of_executors_bounds_no_workers() -> None:
    options = {"spark.master": "yarn", "spark.dynamicAllocation.enabled": "true"}
    slots = sessions.slots(options)
    assert slots is None or slots > 1_000_000


def test_a_count_that_is_none_is_told() -> None:
    options = {"spark.master": "yarn", "spark.executor.cores": "many"}
    with pytest.raises(BadSettings, match=r"spark\.executor\.cores: expected a whole number"):
        sessions.slots(options)


def test_the_slots_of_options_from_the_settings_count() -> None:
    spark = {"master": "yarn", "options": {"spark.executor.instances": "3"}}
    settings = Settings.model_validate({"date": RUN_DATE, "spark": spark})
    sessions.check_workers(settings.model_copy(update={"train": TrainSettings(num_workers=3)}))
    with pytest.raises(BadSettings, match=r"train\.num_workers: expected at most 3"):
        sessions.check_workers(settings.model_copy(update={"train": TrainSettings(num_workers=4)}))


def test_what_spark_has_generated_for_a_day_is_still_there_for_the_next(
    spark: SparkSession,
) -> None:
    """It keeps 100 classes if not told otherwise, and would compile these again each time."""
    assert spark._jvm is not None
    metrics = spark._jvm.org.apache.spark.metrics.source.CodegenMetrics

    def compiled() -> int:
        before = metrics.METRIC_COMPILATION_TIME().getCount()
        for number in range(60):  # each of a class of its own, and one for its result
            spark.range(1).selectExpr(f"id + {number}").collect()
        return int(metrics.METRIC_COMPILATION_TIME().getCount() - before)

    assert compiled() > 100
    assert compiled() == 0
