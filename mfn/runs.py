"""The outcome of every step that ran: rows of the table evaluation/runs."""

from __future__ import annotations

import datetime
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pyspark.sql import SparkSession

from mfn import __version__, fingerprint, tables
from mfn.failure import in_a_line
from mfn.schema import RUNS
from mfn.settings import Settings

Counts = Mapping[str, int | float | str]
Outcome = Literal["done", "skipped", "refused", "failed"]

RUN_ID = uuid.uuid4().hex
"""Identifies this process: the steps that it runs belong together."""

log = logging.getLogger("mfn")


@dataclass
class StepRun:
    """A run of one step and its outcome.

    Attributes:
        seconds: duration, whatever the outcome.
        message: why the step was refused or failed.
        inputs: what its output depends on, as JSON; None if the run ended before this was known.
    """

    step: str
    settings: Settings
    started_at: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC)
    )
    seconds: float = 0.0
    outcome: Outcome = "done"
    message: str | None = None
    counts: Counts = field(default_factory=dict)
    inputs: Any = None


def record(spark: SparkSession, step_runs: Sequence[StepRun]) -> None:
    """Append runs of one root to its table of runs; a failure to do so is logged and ignored.

    A killed process writes no row; the next run writes its own.
    """
    if not step_runs:
        return
    root = step_runs[0].settings.root
    try:
        tables.append(spark.createDataFrame(list(map(_row, step_runs)), RUNS.columns), root, RUNS)
    except Exception as error:
        # The outputs of these steps exist, and if a step failed, its own error matters more.
        path = tables.path_of(root, RUNS)
        log.error("%s: could not write the runs table: %s", path, in_a_line(error))


def _row(run: StepRun) -> dict[str, Any]:
    rows = run.counts.get("rows")
    return {
        "run_date": run.settings.date,
        "run_id": RUN_ID,
        "step": run.step,
        "started_at": run.started_at,
        "seconds": run.seconds,
        "outcome": run.outcome,
        "message": run.message,
        "rows": rows if isinstance(rows, int) else None,
        "counts": {name: str(value) for name, value in run.counts.items()},
        "settings_hash": fingerprint.of_values(run.settings.model_dump(mode="json")),
        "code_version": f"{__version__} {fingerprint.of_package()}",
        "inputs": None
        if run.inputs is None
        else json.dumps(run.inputs, sort_keys=True, default=str, ensure_ascii=False),
    }
