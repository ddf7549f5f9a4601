"""What became of every step that ran, or should have: rows of the table evaluation/runs."""

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
"""Of this process: the steps that it runs belong together."""

log = logging.getLogger("mfn")


@dataclass
class StepRun:
    """A step that runs, and what became of it.

    Attributes:
        seconds: until it ended, however it did.
        message: why it was refused or failed.
        inputs: what its output follows from, as JSON; None if it did not come to look.
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


def record(spark: SparkSession, ran: Sequence[StepRun]) -> None:
    """Add these, of one root, to its table of runs; a failure to do so is told and no more.

    A run that was killed has told nothing; the next one tells of itself.
    """
    if not ran:
        return
    root = ran[0].settings.root
    try:
        tables.append(spark.createDataFrame(list(map(_row, ran)), RUNS.columns), root, RUNS)
    except Exception as error:
        # What these steps have made is there, and what they failed of is the worse news.
        told = tables.path_of(root, RUNS), in_a_line(error)
        log.error("%s: the runs could not be told there: %s", *told)


def _row(ran: StepRun) -> dict[str, Any]:
    rows = ran.counts.get("rows")
    return {
        "run_date": ran.settings.date,
        "run_id": RUN_ID,
        "step": ran.step,
        "started_at": ran.started_at,
        "seconds": ran.seconds,
        "outcome": ran.outcome,
        "message": ran.message,
        "rows": rows if isinstance(rows, int) else None,
        "counts": {name: str(value) for name, value in ran.counts.items()},
        "settings_hash": fingerprint.of_values(ran.settings.model_dump(mode="json")),
        "code_version": f"{__version__} {fingerprint.of_package()}",
        "inputs": None
        if ran.inputs is None
        else json.dumps(ran.inputs, sort_keys=True, default=str, ensure_ascii=False),
    }
