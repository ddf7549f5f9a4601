"""A whole day on a tiny shop, through every real part, as `make demo` runs it.

Each run is the command line in a process of its own: Spark, Delta, Petastorm, and two Horovod
workers that train both models. One is Airflow's, whose jobs go to a cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from pyspark.sql import DataFrame, SparkSession
from sklearn.metrics import log_loss, roc_auc_score

from mfn import job, tables
from mfn.runs import StepRun
from mfn.schema import (
    COMPARISONS,
    EVENTS,
    INTEREST_CENTERS,
    METRICS,
    PREDICTIONS,
    QUARANTINE,
    RUNS,
    VALIDATION,
    VALIDATION_MEASURES,
    VOCABULARIES,
    Table,
)
from pipelines import daily
from pipelines.steps import job_of
from tests.end_to_end.scheduler import airflow, run
from tests.end_to_end.standalone import PROPERTIES, cluster, runs_python

pytestmark = pytest.mark.process

PROJECT = Path(__file__).resolve().parents[2]
SMALL = """
date: 2026-03-08
spark: {master: "local[2]", driver_memory: 2g, shuffle_partitions: 2}
simulate: {users: 100, items: 200, requests_per_day: 120, browsing_per_day: 500, days: 5}
windows: {pretraining_days: 2, training_days: 2}
splits: {user_fields: [age], context_fields: [device], history_length: 20, files: 4}
embeddings: {dimension: 8, max_epochs: 1, threads: 1}
centers: {max_steps: 5}
train: {learning_rate: 5.0e-3, num_workers: 2, batch_requests: 8, epochs: 8}
checkpoints: {every_steps: 20}
models: {base: {}, mfn: {similarity_interests: 4, combination_interests: 4}}
"""
MADE_HERE = SMALL + "logs: {made_by: simulate_logs}\n"


UMASK = 0o027

STEPS = (
    "simulate_logs", "validate_logs", "build_splits", "pretrain_embeddings", "train_centers",
    "train", "predict", "evaluate", "report",
)  # fmt: skip


def arguments(root: Path, config: Path) -> list[str]:
    return ["--config", str(config), "--root", str(root)]


def run_day(root: Path, config: Path, zone: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "pipelines/daily.py", *arguments(root, config), *more],
        cwd=PROJECT,
        env={**os.environ, "TZ": zone, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        umask=UMASK,
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(MADE_HERE)
    return path


@pytest.fixture(scope="module")
def day(
    config: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = tmp_path_factory.mktemp("warehouse")
    done = run_day(root, config, "UTC")
    assert done.returncode == 0, done.stderr[-4000:]
    return root, done


def table(spark: SparkSession, root: Path, which: Table) -> DataFrame:
    return tables.read(spark, str(root), which, "evaluate")


COMPARED = (
    EVENTS, QUARANTINE, VALIDATION, VALIDATION_MEASURES, VOCABULARIES, INTEREST_CENTERS,
    PREDICTIONS, METRICS, COMPARISONS,
)  # fmt: skip
"""Tables that a day leaves the same whatever happens meanwhile: all but the table of runs."""


def content(
    spark: SparkSession, root: Path, names: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """Every row of every table, split and published tensor of a day, in a fixed order; or `names`.

    Fingerprints of raw files are left out, since these hold when the files were made; and so is the
    root in the paths of files.
    """
    found = {
        which.name: sorted(
            str(row).replace(str(root), "")
            for row in table(spark, root, which).drop("made_from").collect()
        )
        for which in COMPARED
        if names is None or which.name in names
    }
    for kind in ("splits", "embeddings", "centers", "models"):
        for pointer in sorted((root / kind).rglob("CURRENT")):
            version = pointer.parent / pointer.read_text().split()[0]
            name = str(pointer.parent.relative_to(root))
            if names is not None and name not in names:
                continue
            # Spark names the files of a split at random: a file is its rows, in their order.
            found[name] = sorted(
                f"{file.parent.name} {digest(str(pq.read_table(file).to_pylist()).encode())}"
                for file in version.rglob("*.parquet")
            )
            for file in version.rglob("*.safetensors"):
                tensors = safetensors.numpy.load_file(file)
                found[name] += [
                    f"{key} {tensor.shape} {digest(tensor.tobytes())}"
                    for key, tensor in sorted(tensors.items())
                ]
    return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_is_compared_of_two_days_is_all_of_them(
    spark: SparkSession, day: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    """The control of the tests that compare days."""
    found = content(spark, day[0])
    names = {f"{kind}/2026-03-08" for kind in ("splits", "embeddings", "centers")}
    names |= {f"models/2026-03-08/{model}" for model in ("base", "mfn")}
    assert found.keys() == names | {which.name for which in COMPARED}
    assert [name for name, rows in found.items() if not rows] == []


def test_a_day_ends_with_a_table_of_models_and_a_report(
    day: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    root, done = day
    for word in (
        "base",
        "mfn",
        "popularity",
        "oracle",
        "AUC",
        "RelaImpr",
        "candidates: logged",
        "step 9 of 9: report 2026-03-08",
    ):
        assert word in done.stdout + done.stderr, word
    report = root / "reports" / "2026-03-08.html"
    assert report.exists()
    assert str(report) in done.stdout.replace("\n", "")
    assert "mfn" in report.read_text()


def test_files_are_made_with_the_user_s_umask(
    day: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    modes = {path: path.stat().st_mode for path in day[0].rglob("*")}
    assert modes
    assert [str(path) for path, mode in modes.items() if mode & UMASK] == []
    # And no stricter than that: the group can read.
    assert [str(path) for path, mode in modes.items() if not mode & 0o040] == []


def test_auc_and_log_loss_in_delta_are_those_of_scikit_learn(
    spark: SparkSession, day: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    root, _ = day
    predictions = table(spark, root, PREDICTIONS).toPandas()
    metrics = table(spark, root, METRICS).where("slice = 'all'").toPandas().set_index("model")
    assert sorted(metrics.index) == ["base", "mfn", "oracle", "popularity"]
    for model, rows in predictions.groupby("model"):
        found = metrics.loc[model]
        assert found.auc == pytest.approx(roc_auc_score(rows.label, rows.score), abs=1e-12)
        assert found.logloss == pytest.approx(log_loss(rows.label, rows.score), abs=1e-9)
        assert (found.candidates, found.clicks) == (len(rows), rows.label.sum())
        assert found.requests == len(rows[["user_id", "request_id"]].drop_duplicates())
    gains = table(spark, root, COMPARISONS).where("slice = 'all' AND model = 'mfn'").collect()
    expected = ((metrics.auc["mfn"] - 0.5) / (metrics.auc["base"] - 0.5) - 1) * 100
    assert [row.relaimpr for row in gains] == [pytest.approx(expected)]


def test_every_step_says_how_fast_it_was(
    day: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    told = day[1].stderr
    for step in STEPS:
        line = next(one for one in told.splitlines() if f" {step} 2026-03-08: done" in one)
        assert "rows_per_second=" in line, line
    train = next(one for one in told.splitlines() if " train 2026-03-08: done" in one)
    for word in ("candidates_per_second", "wait_share", "communication_share", "workers=2"):
        assert word in train


KILLED_IN = """
import json, os, re, signal, sys, threading
from mfn import job, storage, tables
from mfn import spark as sessions
from mfn.log_setup import set_up_logging
from pipelines import daily
from pipelines.steps import job_of
from pipelines.steps import job_of

config, jobs = sys.argv[1], json.loads(sys.argv[2])
write, replace = storage._replace_file, tables.replace
moments, is_there = {}, {name: threading.Event() for name, _, _ in jobs}

def reached(place):
    name = threading.current_thread().name
    if re.search(moments[name], place):
        if threading.current_thread() is threading.main_thread():
            os.killpg(0, signal.SIGKILL)  # with Spark and all workers, as when a machine dies
        is_there[name].set()
        threading.Event().wait()

def replace_file(files, path, text):
    reached(f"before the file {path}")
    write(files, path, text)

def replace_rows(frame, root, table, where):
    reached(f"before the table {table.name}")
    replace(frame, root, table, where)

storage._replace_file, tables.replace = replace_file, replace_rows
set_up_logging()
days = {name: daily.parse(["--config", config, "--root", root])[0] for name, root, _ in jobs}
with sessions.session(days[jobs[0][0]], "killed") as session:
    for name, _, moment in jobs:
        moments[name] = moment
        run = lambda name=name: job.run(job_of(name), session, days[name])
        if name == jobs[-1][0]:
            threading.current_thread().name = name
            run()  # Horovod starts in the main thread only
        else:
            threading.Thread(target=run, name=name, daemon=True).start()
            if not is_there[name].wait(300):
                sys.exit(f"{name} does not reach {moment}")
"""

MOMENTS = {
    "simulate_logs": ("made/2026-03-08/simulate_logs.json", ["raw"]),
    # When its events are there already.
    "validate_logs": (
        "table quarantine", ["events", "quarantine", "validation", "validation_measures"]
    ),
    # When all is written but the pointer.
    "build_splits": ("splits/2026-03-08/CURRENT", ["splits", "vocabularies"]),
    "pretrain_embeddings": ("embeddings/2026-03-08/CURRENT", ["embeddings"]),
    "train_centers": ("centers/2026-03-08/CURRENT", ["centers", "interest_centers"]),
    "predict": ("made/2026-03-08/predict.json", ["predictions"]),
    # When its metrics are there already.
    "evaluate": ("table evaluation/comparisons", ["evaluation"]),
    # When its models are there already.
    "train": ("made/2026-03-08/train.json", ["models"]),
}  # fmt: skip
"""Where a job is killed, and the folders under the root that hold its output."""
EACH_WAY_TO_PUBLISH = ("validate_logs", "build_splits", "evaluate", "train")


@pytest.mark.parametrize(
    "jobs", [EACH_WAY_TO_PUBLISH, pytest.param(tuple(MOMENTS), marks=pytest.mark.soak)]
)
def test_jobs_that_are_killed_leave_the_same_once_they_run_again(
    spark: SparkSession,
    day: tuple[Path, subprocess.CompletedProcess[str]],
    config: Path,
    tmp_path: Path,
    jobs: tuple[str, ...],
) -> None:
    """Each runs on a copy of `day`, which is the control, without its own output.

    The jobs come one after the other to the moment where they are killed, in one process in
    another time zone. All but the last wait there, and then one signal kills them all.
    """
    roots = {name: tmp_path / name for name in jobs}
    for name, root in roots.items():
        shutil.copytree(day[0], root)
        for folder in MOMENTS[name][1]:
            shutil.rmtree(root / folder)
        (root / "made/2026-03-08" / f"{name}.json").unlink()
    where = json.dumps([(name, str(roots[name]), MOMENTS[name][0]) for name in jobs])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN, str(config), where],
        cwd=PROJECT,
        env={**os.environ, "TZ": "Pacific/Auckland"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        start_new_session=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-4000:]
    expected = content(spark, day[0])
    for name, root in roots.items():
        assert f"{name} 2026-03-08: starts" in killed.stderr
        assert f"{name} 2026-03-08: done" not in killed.stderr
        (settings,) = daily.parse(arguments(root, config))
        assert job.run(job_of(name), spark, settings).outcome == "done"
        made = [one for one in expected if one.split("/")[0] in MOMENTS[name][1]]
        assert made or name == "simulate_logs"
        assert content(spark, root, made) == {one: expected[one] for one in made}


def test_a_day_by_airflow_on_a_cluster_that_loses_executors_ends_as_one_on_this_machine(
    spark: SparkSession,
    day: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """Two are lost in `build_splits`, which Spark gets over, and one in `train`, tried again.

    The workers' Python knows this project from the archive that is sent along. The logs are
    those of `day`, which is the control, and are waited for.
    """
    root = tmp_path / "warehouse"
    shutil.copytree(day[0] / "raw", root / "raw")
    of_airflow = tmp_path / "airflow.yaml"
    of_airflow.write_text(f"root: {root}\n{SMALL}")

    def has_checkpoint(executor: psutil.Process) -> bool:
        return any(root.glob("models/2026-03-08/base/checkpoints/**/*.json"))

    with cluster(tmp_path) as made:
        environment = airflow(tmp_path, of_airflow, made.environment) | {
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": made.master}),
            "AIRFLOW_VAR_MFN_PY_FILES": str(made.package),
            "AIRFLOW_VAR_MFN_RAW_EVENTS": str(root / "raw" / "events"),
            "AIRFLOW_VAR_MFN_SPARK_PROPERTIES": str(PROPERTIES),
        }
        stop = threading.Event()
        with ThreadPoolExecutor() as killers:
            lost = [
                killers.submit(made.kill_executors, "build_splits", 2, runs_python, stop),
                killers.submit(made.kill_executors, "train", 1, has_checkpoint, stop),
            ]
            # The run that begins on the 9th is for the day that has ended.
            which = ("dags", "test", "mfn_day", "2026-03-09T02:00:00+00:00")
            try:
                done = run(environment, "-m", "airflow", *which)
            finally:
                stop.set()
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-6000:]
    assert [len(killed.result()) for killed in lost] == [2, 1]

    ran = table(spark, root, RUNS).collect()
    # A task for each model; that of the model which lost a worker was tried twice.
    expected = {(step, "done"): 1 for step in STEPS[1:]}
    expected |= {("train", "done"): 2, ("train", "failed"): 1}
    assert Counter((row.step, row.outcome) for row in ran) == expected
    assert {str(row.run_date) for row in ran} == {"2026-03-08"}
    (failed,) = [row for row in ran if row.outcome == "failed"]
    assert "one of 2 workers failed before its work was done" in failed.message
    assert re.search(r"base: resumes at step \d+ of epoch", told)
    rows, found = content(spark, day[0]), content(spark, root)
    for name, of_day in rows.items():
        assert found[name] == of_day, name


@pytest.mark.soak
def test_days_killed_at_any_moment_end_as_an_undisturbed_one(
    spark: SparkSession,
    day: tuple[Path, subprocess.CompletedProcess[str]],
    config: Path,
    tmp_path: Path,
) -> None:
    expected = content(spark, day[0])
    draw = random.Random(0)
    kills = 0
    for number in range(10):
        root = tmp_path / str(number)
        while True:
            running = subprocess.Popen(
                [sys.executable, "pipelines/daily.py", *arguments(root, config)],
                cwd=PROJECT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                running.wait(timeout=draw.uniform(5, 60))
                break
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                kills += 1
        assert running.returncode == 0
        spark.catalog.clearCache()
        found = content(spark, root)
        for name, rows in expected.items():
            assert found[name] == rows, name
    print(f"{kills} kills")
    assert kills > 10


SEVERAL = """
import json, sys
from pipelines import daily

for arguments in json.loads(sys.argv[1]):
    code = daily.main(arguments)
    print("exits with", code, file=sys.stderr)
sys.exit(code)
"""


def test_a_day_that_fails_exits_1_and_one_that_is_refused_3_and_both_say_why(
    config: Path, tmp_path: Path
) -> None:
    """One after the other in a process, so that Java starts once."""
    fails = arguments(Path("/dev/null/root"), config)  # below a file, which nobody has foreseen
    refused = [*arguments(tmp_path, config), "--logs.made_by", "null"]  # no logs, and none are made
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps([fails, refused])],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 3, done.stderr[-4000:]
    (of_first, first), (of_second, second) = re.findall(r"(?s)(.*?)exits with (\d)\n", done.stderr)
    assert (first, second) == ("1", "3")
    assert "simulate_logs" in done.stdout
    assert "FAILED" in done.stdout
    assert of_first.count("Traceback") == 1
    last = of_first.splitlines()[-1]
    assert last.startswith("simulate_logs 2026-03-08: NotADirectoryError: [Errno 20]")
    assert "/dev/null" in last
    assert "Traceback" not in of_second
    assert of_second.splitlines()[-1].startswith("validate_logs 2026-03-08: ")
    assert "dt=2026-03-04" in of_second
    assert not (tmp_path / "events").exists()


def test_a_wrong_setting_exits_2_before_spark_starts(config: Path, tmp_path: Path) -> None:
    done = run_day(tmp_path, config, "UTC", "--train.learning_rat", "1")
    assert done.returncode == 2
    assert "train.learning_rate" in done.stderr
    assert "spark" not in done.stderr.lower()


def test_nothing_that_a_day_leaves_can_run_code_when_read(
    day: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    root, _ = day
    kinds = {path.suffix for path in root.rglob("*") if path.is_file()}
    assert kinds <= {
        ".parquet", ".json", ".safetensors", ".html", ".crc", ".gz", "", ".snappy", ".claim",
    }  # fmt: skip


def test_of_a_day_that_is_done_only_what_has_changed_is_made_again(
    spark: SparkSession, day: tuple[Path, subprocess.CompletedProcess[str]], config: Path
) -> None:
    """The last test of `day`, since it is evaluated in another way. See `test_backfill` too."""
    days = daily.parse([*arguments(day[0], config), "--evaluate.history_edges", "1,5"])
    ran: list[StepRun] = []
    assert not daily.run_days(spark, days, ran)
    assert {one.step: one.outcome for one in ran} == {
        **dict.fromkeys(STEPS, "skipped"), "evaluate": "done", "report": "done"
    }  # fmt: skip
