"""A real Airflow, in an environment of its own, with a database of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mfn.spark import delta_jars
from scripts.environments import python_of

PROJECT = Path(__file__).resolve().parents[2]


def airflow(home: Path, config: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of a scheduler for days with these settings; its database is made."""
    python = python_of(PROJECT / "pipelines" / "requirements-airflow.txt")
    made = {
        **environment,
        "PYTHONPATH": str(PROJECT),
        "AIRFLOW": str(python),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "pipelines"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW_VAR_MFN_CONFIG": str(config),
        "AIRFLOW_VAR_MFN_JARS": ",".join(map(str, delta_jars())),
    }
    done = run(made, "-m", "airflow", "db", "migrate")
    assert done.returncode == 0, done.stderr[-4000:]
    return made


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run that Airflow's Python to its end; after 20 minutes it ends with all that it began."""
    program = [environment["AIRFLOW"], *arguments]
    process = subprocess.Popen(
        program,
        cwd=environment["AIRFLOW_HOME"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        told, wrong = process.communicate(timeout=1200)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(program, process.returncode, told, wrong)
