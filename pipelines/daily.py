"""One day, from raw logs to the report, on this machine: all steps in one Spark session.

    python pipelines/daily.py --config conf/demo.yaml [--date YYYY-MM-DD] [--SETTING VALUE ...]

Exit codes are those of a job: 0 done, 2 a bad setting, 3 the data are refused.
"""

from __future__ import annotations

import logging
import sys
import time

from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table

from mfn import job
from mfn import spark as sessions
from mfn.evaluation.report import report_path
from mfn.evaluation.summary import print_summary, summary
from mfn.settings import BadSettings, Settings
from mfn.storage import NotPublished
from pipelines.steps import steps

log = logging.getLogger("mfn")


def main(arguments: list[str]) -> int:
    """Run the steps of one day; returns the exit code."""
    job.set_up_logging()
    try:
        settings = job.parse(arguments, "Run all steps of one day on this machine.")
    except BadSettings as error:
        return job.refuse("daily", error, job.BAD_SETTINGS)
    console = Console()
    start = time.perf_counter()
    session = sessions.start(settings, f"day {settings.date}")
    seconds = {"start Spark": time.perf_counter() - start}
    try:
        run_day(session, settings, seconds)
        _print_seconds(console, settings, seconds)
        print_summary(summary(session, settings), console, report_path(settings))
    except (job.DataRefused, NotPublished) as error:
        _print_seconds(console, settings, seconds)
        return job.refuse(list(seconds)[-1], error, job.DATA_REFUSED)
    finally:
        session.stop()
    return job.DONE


def run_day(session: SparkSession, settings: Settings, seconds: dict[str, float]) -> None:
    """Run every step in its order; `seconds` gains each step's as it ends."""
    day = steps(settings)
    for number, step in enumerate(day, start=1):
        log.info("step %d of %d: %s", number, len(day), step.name)
        start = time.perf_counter()
        try:
            job.run(step.name, step.job, session, settings)
        finally:
            seconds[step.name] = time.perf_counter() - start


def _print_seconds(console: Console, settings: Settings, seconds: dict[str, float]) -> None:
    table = Table(title=f"steps of {settings.date}", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for name, spent in seconds.items():
        table.add_row(name, f"{spent:.1f}")
    table.add_section()
    table.add_row("all", f"{sum(seconds.values()):.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
