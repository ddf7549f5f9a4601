"""The day as a DAG in a real Airflow is as the steps say; `test_day` runs it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.steps import steps
from tests.end_to_end.scheduler import PROJECT, airflow, run

pytestmark = pytest.mark.process

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
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("airflow")
    config = home / "small.yaml"
    config.write_text("logs: {made_by: simulate_logs}\nmodels: {base: {}, mfn: {}}")
    return airflow(home, config, os.environ)


def structure(environment: dict[str, str], **more: str) -> dict[str, Any]:
    done = run({**environment, **more}, "-c", STRUCTURE, str(PROJECT / "pipelines"))
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_dag_is_the_graph_of_steps(environment: dict[str, str]) -> None:
    found = structure(environment)
    assert found["errors"] == {}
    day = steps("simulate_logs")
    expected = {step.name: sorted(step.after) for step in day}
    expected["validate_logs"] = ["simulate_logs"]
    assert found["upstream"] == expected
    assert found["mapped"] == ["train"]
    assert "mfn_config" in found["doc"]


def test_where_logs_are_delivered_the_day_waits_for_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "delivered.yaml"
    config.write_text("models: {base: {}}")
    found = structure(
        environment, AIRFLOW_VAR_MFN_CONFIG=str(config), AIRFLOW_VAR_MFN_RAW_EVENTS=str(tmp_path)
    )
    assert found["errors"] == {}
    assert found["upstream"]["validate_logs"] == ["whole_logs"]
    control = structure(environment, AIRFLOW_VAR_MFN_CONFIG=str(config))
    assert control["upstream"]["validate_logs"] == []


def test_a_backfill_up_to_the_midnight_after_a_day_runs_that_day_too(
    environment: dict[str, str],
) -> None:
    """As docs/operations.md says."""
    made = run(environment, "-m", "airflow", "dags", "reserialize")
    assert made.returncode == 0, made.stderr[-4000:]
    days = ("--from-date", "2026-03-07", "--to-date", "2026-03-09")
    command = ("-m", "airflow", "backfill", "create", "--dag-id", "mfn_day", *days, "--dry-run")
    done = run(environment, *command)
    assert done.returncode == 0, done.stderr[-4000:]
    found = set(re.findall(r"(2026-03-\d\d)[T ]02:00", done.stdout))
    assert found == {"2026-03-07", "2026-03-08"}
