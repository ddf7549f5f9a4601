"""The day as a DAG in a real Airflow: it is as the steps say, and runs a whole day on a cluster.

Each job of that day is a spark-submit to a master with two workers, which know this project from
the archive that is sent along, and lose executors while they work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mfn import tables
from mfn.schema import METRICS, PREDICTIONS, RUNS, Table
from mfn.spark import delta_jars
from pipelines.steps import steps
from scripts.environments import python_of
from tests.end_to_end.standalone import PROPERTIES, Cluster, cluster, runs_python

PROJECT = Path(__file__).resolve().parents[2]
DATE, AFTER = "2026-03-08", "2026-03-09T02:00:00+00:00"
"""The day whose logs are read, and when its run begins."""
SMALL = """
spark: {master: "local[2]", driver_memory: 2g, shuffle_partitions: 2}
logs: {made_by: simulate_logs}
simulate: {users: 100, items: 200, requests_per_day: 120, browsing_per_day: 500, days: 5}
windows: {pretraining_days: 2, training_days: 2}
splits: {history_length: 10, files: 2}
embeddings: {dimension: 8, epochs: 1, threads: 1}
centers: {steps: 2}
train: {learning_rate: 5.0e-3, num_workers: 2, batch_requests: 8, epochs: 8}
checkpoints: {steps: 20}
models: {base: {}, mfn: {interests: 2}}
"""

STRUCTURE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dag = bag.dags.get("mfn_day")
print(json.dumps({
    "errors": bag.import_errors,
    "upstream": {one.task_id: sorted(one.upstream_task_ids) for one in dag.tasks} if dag else {},
    "mapped": [one.task_id for one in dag.tasks if one.is_mapped] if dag else [],
    "doc": dag.doc_md if dag else "",
}))
"""


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def airflow(standalone: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a scheduler whose database is made, and of its settings file."""
    python = python_of(PROJECT / "pipelines" / "requirements-airflow.txt")
    home = tmp_path_factory.mktemp("airflow")
    config = home / "small.yaml"
    config.write_text(f"root: {home / 'warehouse'}\n{SMALL}")
    environment = {
        **standalone.environment,
        "PYTHONPATH": str(PROJECT),
        "AIRFLOW": str(python),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "pipelines"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": standalone.master}),
        "AIRFLOW_VAR_MFN_CONFIG": str(config),
        "AIRFLOW_VAR_MFN_JARS": ",".join(map(str, delta_jars())),
        "AIRFLOW_VAR_MFN_PY_FILES": str(standalone.package),
        "AIRFLOW_VAR_MFN_SPARK_PROPERTIES": str(PROPERTIES),
    }
    done = run(environment, "-m", "airflow", "db", "migrate")
    assert done.returncode == 0, done.stderr[-4000:]
    return environment


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment["AIRFLOW"], *arguments],
        cwd=environment["AIRFLOW_HOME"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def structure(environment: dict[str, str], **more: str) -> dict[str, Any]:
    done = run({**environment, **more}, "-c", STRUCTURE, str(PROJECT / "pipelines"))
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_dag_is_the_graph_of_steps(airflow: dict[str, str]) -> None:
    found = structure(airflow)
    assert found["errors"] == {}
    day = steps("simulate_logs")
    expected = {step.name: sorted(step.after) for step in day}
    expected["validate_logs"] = ["simulate_logs"]
    assert found["upstream"] == expected
    assert found["mapped"] == ["train"]
    assert "mfn_config" in found["doc"]


def test_where_logs_are_delivered_the_day_waits_for_them(
    airflow: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "delivered.yaml"
    config.write_text("models: {base: {}}")
    found = structure(
        airflow, AIRFLOW_VAR_MFN_CONFIG=str(config), AIRFLOW_VAR_MFN_RAW_EVENTS=str(tmp_path)
    )
    assert found["errors"] == {}
    assert found["upstream"]["validate_logs"] == ["whole_logs"]
    control = structure(airflow, AIRFLOW_VAR_MFN_CONFIG=str(config))
    assert control["upstream"]["validate_logs"] == []


def rows(spark: SparkSession, root: Path, table: Table) -> list[str]:
    return sorted(map(str, tables.read(spark, str(root), table, "evaluate").collect()))


def test_a_whole_day_on_a_cluster_that_loses_executors_ends_as_one_on_this_machine(
    spark: SparkSession, standalone: Cluster, airflow: dict[str, str], tmp_path: Path
) -> None:
    """Two are lost in `build_splits`, which Spark gets over, and one in `train`, tried again.

    The control is a day in one process on this machine, where nothing is lost.
    """
    home = Path(airflow["AIRFLOW_HOME"])
    root = home / "warehouse"

    def has_checkpoint(executor: Any) -> bool:
        return any(root.glob(f"models/{DATE}/base/checkpoints/**/*.json"))

    lost = [
        threading.Thread(target=standalone.kill_executors, args=arguments, daemon=True)
        for arguments in (("build_splits", 2, runs_python), ("train", 1, has_checkpoint))
    ]
    for thread in lost:
        thread.start()
    done = run(airflow, "-m", "airflow", "dags", "test", "mfn_day", AFTER)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-6000:]
    assert not any(thread.is_alive() for thread in lost)

    ran = tables.read(spark, str(root), RUNS, "train").collect()
    outcomes = Counter((row.step, row.outcome) for row in ran)
    once = {(step.name, "done"): 1 for step in steps("simulate_logs")}
    # A task for each model; that of the model which lost a worker was tried twice.
    assert outcomes == once | {("train", "done"): 2, ("train", "failed"): 1}
    assert {str(row.run_date) for row in ran} == {DATE}
    (failed,) = [row for row in ran if row.outcome == "failed"]
    assert "one of 2 workers has ended before its work was done" in failed.message
    assert "base: goes on at step" in told

    control = subprocess.run(
        [
            sys.executable, "pipelines/daily.py", "--config", str(home / "small.yaml"),
            "--date", DATE, "--root", str(tmp_path),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    assert control.returncode == 0, control.stderr[-4000:]
    assert rows(spark, root, PREDICTIONS) == rows(spark, tmp_path, PREDICTIONS)
    assert rows(spark, root, METRICS) == rows(spark, tmp_path, METRICS)
