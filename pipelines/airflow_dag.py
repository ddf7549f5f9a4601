"""The daily run of `mfn` as a DAG of Apache Airflow 3, with the steps of `pipelines.steps`.

This module needs Airflow and its Spark provider. It does not need the packages that the jobs need.
It reads the jobs' settings file for the names of the models and for `logs.made_by`. Airflow
variables configure it (set in Airflow's UI, or as environment variables such as
`AIRFLOW_VAR_MFN_CONFIG`):

- `mfn_home`: a checkout of this project; default: the one with this file.
- `mfn_config`: the jobs' settings file, YAML; default: conf/demo.yaml.
- `mfn_raw_events`: folder or URL of the raw events. A run waits for `dt=…/_SUCCESS` in it. Without
  this variable, or if `logs.made_by` is set, a run does not wait.
- `mfn_start`: the first day to run; default: 2026-01-01.
- `mfn_jars`: Delta's jars, separated by commas. Without it, Spark resolves Delta by its package
  name. Set it to an empty text if Delta is among Spark's own jars, as in the image of
  conf/spark/Dockerfile.
- `mfn_py_files`: an archive of this package, for a cluster where it is not installed.
- `mfn_spark_properties`: a file of Spark options, such as those in conf/spark/.

The connection `spark_default` names the Spark cluster. On Kubernetes, Airflow also needs the
package apache-airflow-providers-cncf-kubernetes. Drivers run in the Airflow task (client mode),
because only then spark-submit returns the job's exit code. Models are trained one after the other:
the workers of a model start together, and would wait for slots that another model's workers hold.
A failed task is retried twice. The first retry comes after Airflow's setting
`[core] default_task_retry_delay`, 5 minutes by default.
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
HOUR_OF_COMPLETE_LOGS = 2
"""Hour of the next day in UTC, from which the logs of a day may be complete."""

DATE = "{{ data_interval_start | ds }}"
"""The run date: the day that ended before the DAG run starts."""

NOT_RETRIED = re.compile(r"Error code is: ([23])\b")
"""spark-submit's exit codes 2 and 3 in the error message of Airflow's hook."""


class JobOperator(SparkSubmitOperator):
    """Runs a script of jobs/; not retried if settings are wrong or data are refused."""

    def execute(self, context: Any) -> None:
        """Submit the job and wait for it.

        Raises:
            AirflowFailException: the job exited with 2 or 3; Airflow does not retry it.
        """
        try:
            super().execute(context)
        except AirflowException as error:
            if found := NOT_RETRIED.search(str(error)):
                raise AirflowFailException(
                    f"exit {found[1]}: the log says what is wrong and what to do; the task is not "
                    "retried"
                ) from error
            raise


def arguments(*more: str) -> list[str]:
    """Command line arguments of every job, and then `more`."""
    return ["--config", CONFIG, "--date", DATE, *more]


def operator_of(step: Step, settings: dict[str, Any]) -> Any:
    """The task of a step; for a step by model, mapped tasks, one per model."""
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
    schedule=CronDataIntervalTimetable(f"0 {HOUR_OF_COMPLETE_LOGS} * * *", timezone="UTC"),
    start_date=START.replace(tzinfo=datetime.UTC),
    catchup=True,
    # Vocabularies are extended day by day, so days run one after the other.
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
            """Wait for `_SUCCESS`, which means that the day's logs are complete."""
            return PokeReturnValue(is_done=ObjectStoragePath(f"{folder}/_SUCCESS").exists())

        whole_logs(f"{RAW_EVENTS}/dt={DATE}") >> tasks["validate_logs"]
