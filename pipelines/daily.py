"""One day after the other, from raw logs to the report, on this machine, in one Spark session.

    python pipelines/daily.py --config conf/demo.yaml [--date YYYY-MM-DD] [--SETTING VALUE ...]
    python pipelines/daily.py --config conf/mine.yaml --from YYYY-MM-DD --to YYYY-MM-DD [...]

The logs of all days are validated before the first of them is built: clicks after its last midnight
stand in the logs of the next. A step that has run before on what it would read now is left alone,
so the same command goes on where it stopped. A day whose data are refused is named, and the days
after it are tried all the same; a step that fails is the last. Exit codes are those of a job: 0
done, 2 a bad setting, 3 the data of a day are refused, 1 all else.
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
from mfn.reporting.summary import print_summary, summary
from mfn.runs import StepRun
from mfn.settings import Settings
from pipelines.steps import Step, job_of, steps

log = logging.getLogger("mfn")

MARKS = {"skipped": "skipped", "refused": "REFUSED", "failed": "FAILED"}
"""How a step that was not simply done stands in the table."""
ALWAYS_RUN = ("report",)


def main(arguments: list[str]) -> int:
    """Run the steps of each day; returns the exit code."""
    set_up_logging()
    try:
        days = parse(arguments)
        sessions.check_horovod(days[0])
    except BadSettings as error:
        return job.refuse("daily", error, job.BAD_SETTINGS)
    set_up_logging(days[0].log_format)
    console = Console()
    start = time.perf_counter()
    ran: list[StepRun] = []
    outside = StepRun("daily", days[-1])
    try:
        with sessions.session(days[0], f"days {days[0].date} to {days[-1].date}") as session:
            start_seconds = time.perf_counter() - start
            try:
                refused = run_days(session, days, ran)
            finally:
                print_seconds(days, ran, start_seconds, console)
            if days[-1].date not in refused:
                print_summary(summary(session, days[-1]), console, days[-1].layout.report)
    except Exception as error:
        if ran and ran[-1].outcome == "failed":
            return job.refuse(f"{ran[-1].step} {ran[-1].settings.date}", error, job.FAILED)
        job.end(outside, error)
        return job.refuse(outside.step, error, job.FAILED)
    return job.DATA_REFUSED if refused else job.DONE


def parse(arguments: Sequence[str]) -> list[Settings]:
    """Settings of each day: of one, or of all from --from to --to.

    Raises:
        BadSettings: of any of the days.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--from", dest="first")
    parser.add_argument("--to", dest="last")
    chosen, rest = parser.parse_known_args(arguments)
    what = "Run all steps of a day, or of all days --from one --to another, on this machine."
    if chosen.first is None and chosen.last is None:
        return [job.parse(rest, what)]
    if chosen.first is None or chosen.last is None:
        raise BadSettings("--from and --to: expected both or none of them")
    if any(one.split("=")[0] == "--date" for one in rest):
        raise BadSettings("--date: expected a day, or --from and --to, not both")
    first, last = (job.parse([*rest, "--date", day], what) for day in (chosen.first, chosen.last))
    if first.date > last.date:
        raise BadSettings(f"--from: expected a day up to {last.date}, got {first.date}")
    number = (last.date - first.date).days + 1
    dates = (first.date + datetime.timedelta(days=n) for n in range(number))
    return [job.parse([*rest, "--date", str(date)], what) for date in dates]


def run_days(
    session: SparkSession, days: Sequence[Settings], ran: list[StepRun]
) -> set[datetime.date]:
    """Run every step of each day, but for those that follow a refused one.

    `ran` gains each step as it ends, and the table of runs all of a stretch.

    Returns:
        the days that were refused.
    """
    refused: set[datetime.date] = set()
    stretches = _stretches(days)
    number, all_steps = 0, sum(map(len, stretches))
    for stretch in stretches:
        before = len(ran)
        try:
            for settings, step in stretch:
                number += 1
                if settings.date in refused:
                    continue
                log.info("step %d of %d: %s %s", number, all_steps, step.name, settings.date)
                try:
                    job.run(job_of(step.name), session, settings, ran)
                except errors.REFUSALS as error:
                    refused.add(settings.date)
                    job.refuse(f"{step.name} {settings.date}", error, job.DATA_REFUSED)
        finally:
            runs.record(session, ran[before:])
    return refused


def _stretches(days: Sequence[Settings]) -> list[list[tuple[Settings, Step]]]:
    """All that comes before building, step by step; then the rest, day by day."""
    of_day = steps(days[0].logs.made_by)
    built = [step.name for step in of_day].index("build_splits")
    return [
        [(settings, step) for step in of_day[:built] for settings in days],
        *([(settings, step) for step in of_day[built:]] for settings in days),
    ]


def print_seconds(
    days: Sequence[Settings], ran: Sequence[StepRun], start_seconds: float, console: Console
) -> None:
    """Seconds of each step of each day; of others, that they were left alone or not reached."""
    table = Table(title=f"starting Spark took {start_seconds:.1f} s", title_justify="left")
    table.add_column("day")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for settings in days:
        of_day = [one for one in ran if one.settings.date == settings.date]
        stopped = any(one.outcome in ("refused", "failed") for one in of_day)
        reached = stopped or len(of_day) == len(steps(settings.logs.made_by))
        idle = all(one.outcome == "skipped" or one.step in ALWAYS_RUN for one in of_day)
        if len(days) > 1 and reached and idle:
            of_day = [one for one in of_day if one.step in ALWAYS_RUN]
            table.add_row(str(settings.date), "all others", "skipped")
        for one in of_day:
            done = f"{one.seconds:.1f}"
            table.add_row(str(settings.date), one.step, MARKS.get(one.outcome, done))
        if not reached:
            table.add_row(str(settings.date), "all others", "not reached")
        table.add_section()
    table.add_row("", "all", f"{sum(one.seconds for one in ran):.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
