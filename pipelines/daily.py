"""Run one or several days, from raw logs to the report, in one Spark session on this machine.

    python pipelines/daily.py --config conf/demo.yaml [--date YYYY-MM-DD] [--SETTING VALUE ...]
    python pipelines/daily.py --config conf/mine.yaml --from YYYY-MM-DD --to YYYY-MM-DD [...]

The logs of all days are validated before the splits of the first day are built, because clicks
after midnight are in the logs of the next day. A step whose inputs, settings and code are unchanged
is skipped, so the same command resumes after a stop. If the data of a day are refused, its other
steps do not run, and the next days still run. If a step fails, the command stops. Exit codes are
those of a job: 0 done, 1 failed, 2 a bad setting, 3 the data of a day are refused.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import sys
import time
from collections.abc import Sequence

from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table

from mfn import errors, job, runs
from mfn import spark as sessions
from mfn.errors import BadSettings
from mfn.log_setup import set_up_logging
from mfn.reporting.summary import print_summary, read_summary
from mfn.runs import StepRun
from mfn.settings import Settings
from pipelines.steps import Step, job_of, steps

log = logging.getLogger("mfn")

MARKS = {"skipped": "skipped", "refused": "REFUSED", "failed": "FAILED"}
"""Text in the table instead of the seconds, by outcome."""


def main(arguments: list[str]) -> int:
    """Run the steps of each day; return the exit code."""
    set_up_logging()
    try:
        days = parse(arguments)
        sessions.check_horovod(days[0])
    except BadSettings as error:
        return job.refuse("daily", error, job.BAD_SETTINGS)
    set_up_logging(days[0].log_format)
    console = Console()
    start = time.perf_counter()
    step_runs: list[StepRun] = []
    outside_steps = StepRun("daily", days[-1])
    try:
        with sessions.session(days[0], f"days {days[0].date} to {days[-1].date}") as session:
            start_seconds = time.perf_counter() - start
            try:
                refused = run_days(session, days, step_runs)
            finally:
                print_seconds(days, step_runs, start_seconds, console)
            if days[-1].date not in refused:
                print_summary(read_summary(days[-1]), console, days[-1].layout.report)
    except Exception as error:
        if step_runs and step_runs[-1].outcome == "failed":
            failed = step_runs[-1]
            return job.refuse(f"{failed.step} {failed.settings.date}", error, job.FAILED)
        job.end(outside_steps, error)
        return job.refuse(outside_steps.step, error, job.FAILED)
    return job.DATA_REFUSED if refused else job.DONE


def parse(arguments: Sequence[str]) -> list[Settings]:
    """Settings of each day: of the date in the settings, or of all days from --from to --to.

    Raises:
        BadSettings: the settings of any day, or --from and --to, are wrong.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--from", dest="first")
    parser.add_argument("--to", dest="last")
    chosen, rest = parser.parse_known_args(arguments)
    description = "Run all steps of a day, or of all days --from one --to another, on this machine."
    if chosen.first is None and chosen.last is None:
        return [job.parse(rest, description)]
    if chosen.first is None or chosen.last is None:
        raise BadSettings("--from and --to: expected both or none of them")
    if any(one.split("=")[0] == "--date" for one in rest):
        raise BadSettings("--date: expected a day, or --from and --to, not both")
    first, last = (
        job.parse([*rest, "--date", day], description) for day in (chosen.first, chosen.last)
    )
    if first.date > last.date:
        raise BadSettings(f"--from: expected a day up to {last.date}, got {first.date}")
    number = (last.date - first.date).days + 1
    dates = (first.date + datetime.timedelta(days=n) for n in range(number))
    return [job.parse([*rest, "--date", str(date)], description) for date in dates]


def run_days(
    session: SparkSession, days: Sequence[Settings], step_runs: list[StepRun]
) -> set[datetime.date]:
    """Run all steps of each day; after a refused step, the day's other steps do not run.

    Args:
        session: Spark session for all steps.
        days: settings of each day.
        step_runs: each step is appended when it ends. After a phase (see `_phases`), its steps are
            written to the table of runs. Where nothing but skipped steps is new, this waits.

    Returns:
        dates of the refused days.
    """
    refused: set[datetime.date] = set()
    phases = _phases(days)
    number, all_steps = 0, sum(map(len, phases))
    recorded = len(step_runs)
    try:
        for phase in phases:
            for settings, step in phase:
                number += 1
                if settings.date in refused:
                    continue
                log.info("step %d of %d: %s %s", number, all_steps, step.name, settings.date)
                try:
                    job.run(job_of(step.name), session, settings, step_runs)
                except errors.REFUSALS as error:
                    refused.add(settings.date)
                    job.refuse(f"{step.name} {settings.date}", error, job.DATA_REFUSED)
            if any(one.outcome != "skipped" for one in step_runs[recorded:]):
                runs.record(session, step_runs[recorded:])
                recorded = len(step_runs)
    finally:
        runs.record(session, step_runs[recorded:])
    return refused


def _phases(days: Sequence[Settings]) -> list[list[tuple[Settings, Step]]]:
    """The steps before `build_splits` for all days, step by step; then the rest, day by day."""
    of_day = steps(days[0].logs.made_by)
    build = [step.name for step in of_day].index("build_splits")
    return [
        [(settings, step) for step in of_day[:build] for settings in days],
        *([(settings, step) for step in of_day[build:]] for settings in days),
    ]


def print_seconds(
    days: Sequence[Settings], step_runs: Sequence[StepRun], start_seconds: float, console: Console
) -> None:
    """Print each step with its seconds or outcome, and days with skipped or missing steps."""
    table = Table(title=f"starting Spark took {start_seconds:.1f} s", title_justify="left")
    table.add_column("day")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for settings in days:
        of_day = [one for one in step_runs if one.settings.date == settings.date]
        stopped = any(one.outcome in ("refused", "failed") for one in of_day)
        reached = stopped or len(of_day) == len(steps(settings.logs.made_by))
        if len(days) > 1 and reached and all(one.outcome == "skipped" for one in of_day):
            of_day = []
            table.add_row(str(settings.date), "all", "skipped")
        for one in of_day:
            seconds = f"{one.seconds:.1f}"
            table.add_row(str(settings.date), one.step, MARKS.get(one.outcome, seconds))
        if not reached:
            table.add_row(str(settings.date), "all others", "not reached")
        table.add_section()
    table.add_row("", "all", f"{sum(one.seconds for one in step_runs):.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
