"""The day as a DAG in a real Airflow: it loads, is as the steps say, and runs a whole small day."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark
import pytest
from pyspark.sql import SparkSession

from mfn import tables
from mfn.schema import METRICS, RUNS
from mfn.spark import delta_jars
from pipelines.steps import steps
from scripts.environments import python_of

PROJECT = Path(__file__).resolve().parents[2]
DATE, AFTER = "2026-03-08", "2026-03-09T02:00:00+00:00"
"""The day whose logs are read, and when its run begins."""
SMALL = """
root: {root}
spark: {{driver_memory: 2g, shuffle_partitions: 2}}
logs: {{made_by: simulate_logs}}
simulate: {{users: 100, items: 200, requests_per_day: 120, browsing_per_day: 500, days: 5}}
windows: {{pretraining_days: 2, training_days: 2}}
splits: {{history_length: 10, files: 2}}
embeddings: {{dimension: 8, epochs: 1, threads: 1}}
centers: {{steps: 2}}
train: {{learning_rate: 5.0e-3}}
models: {{base: {{}}, mfn: {{interests: 2}}}}
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
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a scheduler whose database is made, and of its settings file."""
    python = python_of(PROJECT / "pipelines" / "requirements-airflow.txt")
    home = tmp_path_factory.mktemp("airflow")
    config = home / "small.yaml"
    config.write_text(SMALL.format(root=home / "warehouse"))
    environment = {
        **os.environ,
        # spark-submit is this project's, and so is the Python that runs the jobs.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(PROJECT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "pipelines"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "AIRFLOW_VAR_MFN_CONFIG": str(config),
        "AIRFLOW": str(python),
        "AIRFLOW_VAR_MFN_JARS": ",".join(map(str, delta_jars())),
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


def test_a_whole_day_runs(spark: SparkSession, airflow: dict[str, str]) -> None:
    done = run(airflow, "-m", "airflow", "dags", "test", "mfn_day", AFTER)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    root = f"{airflow['AIRFLOW_HOME']}/warehouse"
    ran = tables.read(spark, root, RUNS, "train").collect()
    assert {row.step for row in ran} == {step.name for step in steps("simulate_logs")}
    assert {str(row.run_date) for row in ran} == {DATE}
    assert {row.outcome for row in ran} == {"done"}
    assert len([row for row in ran if row.step == "train"]) == 2  # a model each
    metrics = tables.read(spark, root, METRICS, "evaluate").where("slice = 'all'").collect()
    assert {"base", "mfn"} <= {row.model for row in metrics}
