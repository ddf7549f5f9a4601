"""This project's side of `bench/splits.py`: `validate_logs` and `build_splits` in one session.

python -m bench.splits_spark TASK.json RESULT.json
"""

from __future__ import annotations

import time
from typing import Any

from pyspark.sql import SparkSession

from bench import measure
from mfn import spark as sessions
from mfn import storage, tables
from mfn.logs.validate import validate_logs
from mfn.schema import VALIDATION
from mfn.settings import Settings
from mfn.splits.build import build_splits


def run(session: SparkSession, settings: Settings) -> dict[str, Any]:
    """Run both jobs on a root without tables.

    Returns:
        validate and build, the seconds of each job; rows, of the raw logs; outcomes, lists of day,
        outcome and rows; folder, of the splits.
    """
    start = time.perf_counter()
    counts = validate_logs(session, settings)
    validated = time.perf_counter()
    build_splits(session, settings)
    built = time.perf_counter()
    outcomes = tables.read(session, settings.root, VALIDATION, "validate_logs").where(
        "source = 'events' AND field IS NULL AND rows > 0"
    )
    return {
        "validate": validated - start,
        "build": built - validated,
        "rows": counts["rows"],
        "outcomes": [
            [str(row["run_date"]), row["reason"], row["rows"]] for row in outcomes.collect()
        ],
        "folder": storage.current(settings.layout.splits, "build_splits"),
    }


def _serve(task: Any) -> dict[str, Any]:
    settings = Settings(**task)
    start = time.perf_counter()
    with sessions.session(settings, "benchmark of splits") as session:
        started = time.perf_counter() - start
        return {"start": started, **run(session, settings)}


if __name__ == "__main__":
    measure.serve(_serve)
