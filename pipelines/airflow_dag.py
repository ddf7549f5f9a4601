"""A day of `mfn`, every day: the steps of `pipelines.steps` as a DAG of Apache Airflow 3.

This module needs Airflow and its provider for Spark, and nothing of what the jobs need but their
settings file, of which it reads the names of the models. Where things are it is told by Airflow's
variables (in its own page, or in the environment as `AIRFLOW_VAR_MFN_CONFIG` and so on):

- `mfn_home`: a checkout of this project; the one that this file lies in, if not given.
- `mfn_config`: the settings of the jobs, in YAML.
- `mfn_raw_events`: folder or URL of the raw events, whose `dt=…/_SUCCESS` a day waits for; without
  it, nothing is waited for, as where `logs.made_by` makes the logs.
- `mfn_start`: the first day to be run, 2026-01-01 if not given.
- `mfn_jars`: Delta's jars, with commas between; without it, Spark resolves them by name. Empty
  where Spark has them among its own, as in the image of conf/spark/Dockerfile.
- `mfn_py_files`: an archive of this package for a cluster that has it not installed.
- `mfn_spark_properties`: a file of Spark's options, such as those in conf/spark/.

Which Spark it is says the connection `spark_default`; on Kubernetes, Airflow needs the package
apache-airflow-providers-cncf-kubernetes too. Drivers run where the task does (client mode), since
only so the exit code is the job's own. Models are trained one after the other: the workers of one
begin together, and would wait for slots that another's hold. What fails is tried again twice, at
first after `[core] default_task_retry_delay` of Airflow's own settings, 5 minutes if not given.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import yaml
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG, ObjectStoragePath, PokeReturnValue, Variable, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

from pipelines.steps import Step, steps

HOME = Path(Variable.get("mfn_home", default=str(Path(__file__).resolve().parents[1])))
CONFIG = Variable.get("mfn_config", default=str(HOME / "conf" / "demo.yaml"))
START = datetime.datetime.fromisoformat(Variable.get("mfn_start", default="2026-01-01"))
RAW_EVENTS = Variable.get("mfn_raw_events", default=None)
JARS = Variable.get("mfn_jars", default=None)
DELTA = "io.delta:delta-spark_2.13:4.0.1"
HOUR_OF_WHOLE_LOGS = 2
"""Of the next day, in UTC: the first hour at which the logs of a day may be whole."""

DATE = "{{ data_interval_start | ds }}"
"""The day whose logs are read, which ended when the run began."""

NO_USE_TRYING_AGAIN = re.compile(r"Error code is: ([23])\b")
"""How spark-submit's exit code stands in the error of Airflow's hook."""


class JobOperator(SparkSubmitOperator):
    """A job of jobs/; where it says that settings or data are wrong, trying again is of no use."""

    def execute(self, context: Any) -> None:
        """Submit it.

        Raises:
            AirflowFailException: it ended with exit 2 or 3.
        """
        try:
            super().execute(context)
        except AirflowException as error:
            if found := NO_USE_TRYING_AGAIN.search(str(error)):
                raise AirflowFailException(
                    f"exit {found[1]}: the log says what is wrong and what to do; it is not tried "
                    "again"
                ) from error
            raise


def arguments(*more: str) -> list[str]:
    """What every job is given."""
    return ["--config", CONFIG, "--date", DATE, *more]


def operator_of(step: Step, settings: dict[str, Any]) -> Any:
    """The task of a step, or a task for each model."""
    common: dict[str, Any] = {
        "task_id": step.name,
        "application": str(HOME / "jobs" / f"{step.name}.py"),
        "name": f"mfn {step.name} {DATE}",
        "deploy_mode": "client",
        "jars": JARS or None,
        "packages": DELTA if JARS is None else None,
        "py_files": Variable.get("mfn_py_files", default=None),
        "properties_file": Variable.get("mfn_spark_properties", default=None),
        "execution_timeout": datetime.timedelta(hours=6),
    }
    models = settings.get("models") or {}
    if step.by_model and models:
        return JobOperator.partial(**common, max_active_tis_per_dagrun=1).expand(
            application_args=[arguments("--train.only", name) for name in models]
        )
    return JobOperator(**common, application_args=arguments())


with DAG(
    "mfn_day",
    description="One day of mfn, from raw logs to the report",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable(f"0 {HOUR_OF_WHOLE_LOGS} * * *", timezone="UTC"),
    start_date=START.replace(tzinfo=datetime.UTC),
    catchup=True,
    # Vocabularies are folded day by day, so one day is run after the other.
    max_active_runs=1,
    default_args={
        "retries": 2,
        "retry_exponential_backoff": True,
        "max_retry_delay": datetime.timedelta(hours=1),
    },
) as dag:
    settings = yaml.safe_load(Path(CONFIG).read_text())
    made_by = (settings.get("logs") or {}).get("made_by")
    tasks: dict[str, Any] = {}
    for step in steps(made_by):
        tasks[step.name] = operator_of(step, settings)
        for name in step.after:
            tasks[name] >> tasks[step.name]
    if made_by is None and RAW_EVENTS is not None:

        @task.sensor(poke_interval=300, timeout=6 * 3600, mode="reschedule", retries=0)
        def whole_logs(folder: str) -> PokeReturnValue:
            """Wait until whoever delivers the logs says that the day's are whole."""
            return PokeReturnValue(is_done=ObjectStoragePath(f"{folder}/_SUCCESS").exists())

        whole_logs(f"{RAW_EVENTS}/dt={DATE}") >> tasks["validate_logs"]
