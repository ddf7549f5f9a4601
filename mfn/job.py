"""What every script in jobs/ does around its one function: settings, Spark, logging, exit code."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from pyspark.sql import SparkSession

from mfn import spark as sessions
from mfn.settings import BadSettings, Settings, check_workers, load_settings
from mfn.storage import NotPublished

DONE, BAD_SETTINGS, DATA_REFUSED = 0, 2, 3

Counts = Mapping[str, int | float | str]
Job = Callable[[SparkSession, Settings], Counts]
"""A job's function: reads and writes tables, returns what it counted, to be logged."""

log = logging.getLogger("mfn")


class DataRefused(Exception):
    """The data are not fit to go on with; the message says what, where, and what to do."""


def set_up_logging() -> None:
    """Log one line an event, with time and level, to standard error."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    for name in ("py4j", "petastorm", "root", "horovod"):
        logging.getLogger(name).setLevel(logging.WARNING)


def parse(arguments: Sequence[str], description: str) -> Settings:
    """Settings from --config and dotted arguments.

    Raises:
        BadSettings: as `load_settings`, and for more workers than Spark has slots.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Any setting can follow by its dotted name: --train.learning_rate 1e-3",
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="a YAML file of settings, such as conf/demo.yaml")
    known, rest = parser.parse_known_args(arguments)
    settings = load_settings(known.config, rest)
    check_workers(settings, sessions.master(settings))
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
