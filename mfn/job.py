"""What every script in jobs/ does around its one function: settings, Spark, logging, exit code."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pyspark.sql import SparkSession

from mfn import spark as sessions
from mfn.configuration import describe_settings, load_settings
from mfn.settings import BadSettings, Settings
from mfn.storage import NotPublished

DONE, BAD_SETTINGS, DATA_REFUSED = 0, 2, 3

Counts = Mapping[str, int | float | str]
Job = Callable[[SparkSession, Settings], Counts]
"""A job's function: reads and writes tables, returns what it counted, to be logged."""

log = logging.getLogger("mfn")

USAGE = """\
usage: {script} --date YYYY-MM-DD [--config conf/demo.yaml] [--SETTING VALUE ...]

{description}

Each setting below can stand in the YAML file that --config names (train: {{epochs: 2}}), in the
environment (MFN_TRAIN__EPOCHS=2) or among the arguments (--train.epochs 2): arguments win over
the environment, and that over the file. A list is written as a,b or [a, b].
Exit codes: 0 done, 2 a bad argument or setting, 3 the data are refused or not there yet.

  --config                              a YAML file of settings"""


class DataRefused(Exception):
    """The data are not fit to go on with; the message says what, where, and what to do."""


def set_up_logging() -> None:
    """Log one line an event, with time and level, to standard error; of others only warnings."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)


def parse(arguments: Sequence[str], description: str) -> Settings:
    """Settings from the arguments of a command line; for --help, print it and exit.

    Raises:
        BadSettings: as `load_settings`, and for more workers than Spark has slots.
    """
    if {"-h", "--help"} & set(arguments):
        print(USAGE.format(script=Path(sys.argv[0]).name, description=description))
        print(describe_settings(min(120, shutil.get_terminal_size((100, 40)).columns)))
        sys.exit(DONE)
    settings = load_settings(None, arguments)
    sessions.check_workers(settings)
    return settings


def run(name: str, job: Job, session: SparkSession, settings: Settings) -> float:
    """Run one job in a session that is there; log its counts and return its seconds."""
    log.info("%s %s: starts", name, settings.date)
    start = time.perf_counter()
    counts = job(session, settings)
    seconds = time.perf_counter() - start
    rows = counts.get("rows")
    if isinstance(rows, int) and seconds > 0:
        counts = {**counts, "rows_per_second": round(rows / seconds)}
    told = ", ".join(f"{key}={_short(value)}" for key, value in counts.items())
    log.info("%s %s: done in %.1f s: %s", name, settings.date, seconds, told)
    return seconds


def main(job: Job) -> None:
    """Run a script of jobs/: exit 0 when done, 2 for bad settings, 3 when data are refused."""
    set_up_logging()
    name = job.__name__
    try:
        settings = parse(sys.argv[1:], (job.__doc__ or name).splitlines()[0])
    except BadSettings as error:
        sys.exit(refuse(name, error, BAD_SETTINGS))
    session = sessions.start(settings, name)
    try:
        run(name, job, session, settings)
    except (DataRefused, NotPublished) as error:
        sys.exit(refuse(name, error, DATA_REFUSED))
    finally:
        session.stop()


def refuse(name: str, error: Exception, code: int) -> int:
    """Say on standard error why a job stops; return its exit code."""
    for line in str(error).splitlines():
        print(f"{name}: {line}", file=sys.stderr)
    return code


def _short(value: int | float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
