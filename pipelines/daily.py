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
    ran = {"start Spark": job.Ran(time.perf_counter() - start, left_alone=False)}
    try:
        run_day(session, settings, ran)
        _print_seconds(console, settings, ran)
        print_summary(summary(session, settings), console, report_path(settings))
    except job.REFUSALS as error:
        _print_seconds(console, settings, ran)
        return job.refuse(list(ran)[-1], error, job.DATA_REFUSED)
    finally:
        session.stop()
    return job.DONE


def run_day(session: SparkSession, settings: Settings, ran: dict[str, job.Ran]) -> None:
    """Run every step in its order; `ran` gains each step as it ends."""
    day = steps(settings)
    for number, step in enumerate(day, start=1):
        log.info("step %d of %d: %s", number, len(day), step.name)
        start = time.perf_counter()
        try:
            ran[step.name] = job.run(step.job, session, settings)
        except BaseException:
            ran[step.name] = job.Ran(time.perf_counter() - start, left_alone=False)
            raise


def _print_seconds(console: Console, settings: Settings, ran: dict[str, job.Ran]) -> None:
    table = Table(title=f"steps of {settings.date}", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for name, one in ran.items():
        table.add_row(name, "left alone" if one.left_alone else f"{one.seconds:.1f}")
    table.add_section()
    table.add_row("all", f"{sum(one.seconds for one in ran.values()):.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
