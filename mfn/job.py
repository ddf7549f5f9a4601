"""What every script in jobs/ does around its one function: settings, Spark, logging, exit code.

A job is left alone where it has run before on what it would read now: its record, a small file
under the root, is written last, and tells what the output was made from.
"""

from __future__ import annotations

import datetime
import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from mfn import fingerprint, runs, storage
from mfn import spark as sessions
from mfn.configuration import load_settings
from mfn.errors import REFUSALS, BadSettings, JobFailed
from mfn.failure import in_a_line
from mfn.log_setup import set_up_logging
from mfn.runs import Counts, StepRun
from mfn.settings import Settings
from mfn.settings_help import ALL_SECTIONS, describe_settings

DONE, FAILED, BAD_SETTINGS, DATA_REFUSED = 0, 1, 2, 3

Function = Callable[[SparkSession, Settings], Counts]
"""A job's function: reads and writes tables, returns what it counted, to be logged."""
Reads = Callable[[SparkSession, Settings], Any]
"""What a job's output follows from, besides the code: versions, fingerprints, settings; as JSON."""
Writes = Callable[[Settings], Sequence[str]]
"""Files or folders that are there once a job has run."""
Check = Callable[[Settings], None]
Part = Callable[[Settings], str]

log = logging.getLogger("mfn")

USAGE = """\
usage: {script} --date YYYY-MM-DD [--config conf/demo.yaml] [--SETTING VALUE ...]

{description}

A setting is given in the YAML file that --config names (train: {{epochs: 2}}), in the environment
(MFN_TRAIN__EPOCHS=2), or as an argument (--train.epochs 2). Arguments win over the environment, and
the environment over the file. Write a list as a,b or [a, b].
A job is skipped if its inputs, settings and code are unchanged since its last run, unless --force.
Exit codes: 0 done or skipped; 1 failed; 2 a bad argument or setting; 3 the data are refused or
missing, or a later run of the same job took over.

  --help                                show this help; --help all: every setting
  --config                              a YAML file of settings"""


@dataclass(frozen=True)
class Job:
    """A step of the day; called, it runs, whatever ran before."""

    function: Function
    reads: Reads | None
    writes: Writes
    sections: tuple[str, ...]
    check: Check
    one_at_a_time: bool
    part: Part

    @property
    def name(self) -> str:
        """The function's name, which is that of its script."""
        return self.function.__name__

    @property
    def description(self) -> str:
        """What it does, in a line."""
        return (self.function.__doc__ or self.name).splitlines()[0]

    def claims(self, settings: Settings) -> str:
        """The file that a run of this job claims."""
        return settings.layout.claim(f"{self.name}{self.part(settings)}", self.one_at_a_time)

    def record(self, settings: Settings) -> str:
        """The file that tells what its output was made from."""
        return settings.layout.record(f"{self.name}{self.part(settings)}")

    def inputs(self, spark: SparkSession, settings: Settings) -> Any:
        """What the job's output follows from, besides the code; None if it always runs."""
        return None if self.reads is None else self.reads(spark, settings)

    def __call__(self, spark: SparkSession, settings: Settings) -> Counts:
        """Run the job's function."""
        return self.function(spark, settings)


def job(
    reads: Reads | None = None,
    writes: Writes = lambda settings: (),
    sections: Sequence[str] = (),
    check: Check = lambda settings: None,
    one_at_a_time: bool = False,
    part: Part = lambda settings: "",
) -> Callable[[Function], Job]:
    """Make a function a job.

    Args:
        reads: without it the job always runs.
        writes: files or folders that are there once the job has run.
        sections: the sections of the settings that the job reads, which its --help shows.
        check: raises BadSettings for settings that the job cannot run with on this machine.
        one_at_a_time: runs of different dates write to the same rows, so that of two at once only
            one may go on; otherwise that holds for runs of the same date alone.
        part: what part of its output a run makes, as a suffix of names; runs of different parts
            do not meet.
    """
    return lambda function: Job(
        function, reads, writes, tuple(sections), check, one_at_a_time, part
    )


TOLD_WHOLE = (BadSettings, JobFailed, sessions.NotStarted, *REFUSALS)
"""What needs no traceback: the message was written for whoever is on call."""


def parse(
    arguments: Sequence[str], description: str, sections: Sequence[str] = ALL_SECTIONS
) -> Settings:
    """Settings from the arguments of a command line; for --help, print it and exit.

    Args:
        arguments: without the name of the script.
        description: what the script does, in a line.
        sections: the sections of the settings that --help shows.

    Raises:
        BadSettings: as `load_settings`, and for more workers than Spark has slots.
    """
    if {"-h", "--help"} & set(arguments):
        shown = ALL_SECTIONS if "all" in arguments else sections
        print(USAGE.format(script=Path(sys.argv[0]).name, description=description))
        print(describe_settings(shown, min(120, shutil.get_terminal_size((100, 40)).columns)))
        sys.exit(DONE)
    settings = load_settings(None, arguments)
    sessions.check_workers(settings)
    return settings


def run(
    job: Job, session: SparkSession, settings: Settings, told: list[StepRun] | None = None
) -> StepRun:
    """Run a job in a session that is there, unless it need not run; log its counts.

    What became of it is logged and added to `told`, also where it raises what the job raises.
    """
    ran, start = StepRun(job.name, settings), time.perf_counter()
    try:
        _run(job, session, settings, ran)
    except BaseException as error:
        end(ran, error)
        raise
    finally:
        ran.seconds = time.perf_counter() - start
        if told is not None:
            told.append(ran)
    return ran


def end(ran: StepRun, error: BaseException) -> None:
    """Have a step be refused or failed, and log it, with a traceback where nobody has foreseen it.

    The log's line leaves the reason to the end of the process, which says it last.
    """
    whole = isinstance(error, TOLD_WHOLE)
    ran.outcome = "refused" if isinstance(error, REFUSALS) else "failed"
    ran.message = f"{type(error).__name__}: {error}" if whole else in_a_line(error)
    seconds = (datetime.datetime.now(datetime.UTC) - ran.started_at).total_seconds()
    told = {"step": ran.step, "run_date": str(ran.settings.date), "outcome": ran.outcome}
    log.error(
        "%s %s: %s after %.1f s",
        *told.values(),
        seconds,
        exc_info=error if isinstance(error, Exception) and not whole else None,
        extra={**told, "seconds": seconds, "reason": ran.message},
    )


def _run(job: Job, session: SparkSession, settings: Settings, ran: StepRun) -> None:
    start = time.perf_counter()
    record = job.record(settings)
    made = None
    told = {"step": job.name, "run_date": str(settings.date)}
    if job.reads is not None:
        ran.inputs = job.inputs(session, settings)
        made = fingerprint.of_values(fingerprint.of_package(), ran.inputs)
        since = _unchanged_since(record, made, job.writes(settings))
        if since and not settings.force:
            ran.outcome = "skipped"
            log.info(
                "%s %s: skipped: inputs, settings and code unchanged since %s; --force to rerun",
                job.name,
                settings.date,
                since,
                extra={**told, "outcome": ran.outcome},
            )
            return
    log.info("%s %s: starts", job.name, settings.date, extra=told)
    with storage.claim(job.claims(settings)):
        counts = job(session, settings)
    seconds = time.perf_counter() - start
    rows = counts.get("rows")
    if isinstance(rows, int) and seconds > 0:
        counts = {**counts, "rows_per_second": round(rows / seconds)}
    if made is not None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        storage.replace_json(record, {"fingerprint": made, "at": now, "counts": dict(counts)})
    ran.counts = counts
    log.info(
        "%s %s: done in %.1f s: %s",
        job.name,
        settings.date,
        seconds,
        ", ".join(f"{key}={_short(value)}" for key, value in counts.items()),
        extra={**told, "outcome": ran.outcome, "seconds": seconds, "counts": dict(counts)},
    )


def last_fingerprint(settings: Settings, name: str) -> str | None:
    """Fingerprint of what a job's output of the run date was made from; None if it never ran."""
    try:
        return str(storage.read_json(settings.layout.record(name))["fingerprint"])
    except FileNotFoundError:
        return None


def _unchanged_since(record: str, made: str, written: Sequence[str]) -> str | None:
    """When the same was made that would be now; None if it was not, or is not there any more."""
    try:
        found = storage.read_json(record)
    except FileNotFoundError:
        return None
    if found["fingerprint"] != made or not all(storage.exists(path) for path in written):
        return None
    return str(found["at"])


def main(job: Job) -> None:
    """Run a script of jobs/: exit 0 when done, 2 for bad settings, 3 when data are refused.

    It exits with 1 for all else. Its last line says why it stopped.
    """
    set_up_logging()
    try:
        settings = parse(sys.argv[1:], job.description, job.sections)
        job.check(settings)
    except BadSettings as error:
        sys.exit(refuse(job.name, error, BAD_SETTINGS))
    set_up_logging(settings.log_format)
    told: list[StepRun] = []
    ran = StepRun(job.name, settings)
    try:
        with sessions.session(settings, job.name) as session:
            try:
                run(job, session, settings, told)
            finally:
                runs.record(session, told)
    except Exception as error:
        if not told:
            end(ran, error)
        code = DATA_REFUSED if isinstance(error, REFUSALS) else FAILED
        sys.exit(refuse(job.name, error, code))


def refuse(name: str, error: Exception, code: int) -> int:
    """Say on standard error why a job stops; return its exit code."""
    message = str(error) if isinstance(error, TOLD_WHOLE) else in_a_line(error)
    for line in message.splitlines():
        print(f"{name}: {line}", file=sys.stderr)
    return code


def _short(value: int | float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
