"""What every script in jobs/ does around its one function: settings, Spark, logging, exit code.

A job is skipped if its inputs, settings and code are unchanged since its last run. Each job writes
a record for this, a small file under the root, as its last output; it holds their fingerprint.
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

from mfn import fingerprint, runs, storage, turns, unreadable
from mfn import spark as sessions
from mfn.configuration import load_settings
from mfn.errors import REFUSALS, BadSettings, JobFailed, Unreadable
from mfn.failure import in_a_line
from mfn.log_setup import set_up_logging
from mfn.runs import Counts, StepRun
from mfn.settings import Settings
from mfn.settings_help import ALL_SECTIONS, describe_settings
from mfn.storage import Claim

DONE, FAILED, BAD_SETTINGS, DATA_REFUSED = 0, 1, 2, 3

Function = Callable[[SparkSession, Settings], Counts]
"""A job's function: it reads and writes tables, and returns counts for the log."""
Reads = Callable[[SparkSession, Settings], Any]
"""What a job's output depends on, besides the code, as JSON: versions, fingerprints, settings."""
Writes = Callable[[Settings], Sequence[str]]
"""Files or folders that exist once a job has run."""
Check = Callable[[Settings], None]
"""Raises BadSettings for settings that a job cannot run with on this machine."""
Work = Callable[[Settings], str]
"""What a run does, for the log of a run that waits for it: "validates 2026-03-04 to 2026-03-08"."""
Part = Callable[[Settings], str]
"""The suffix of the names that a run for a part of the output uses."""

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
    """A job. Calling it runs it, even if its inputs are unchanged."""

    function: Function
    reads: Reads | None
    writes: Writes
    sections: tuple[str, ...]
    check: Check
    in_turn: Work | None
    part: Part

    @property
    def name(self) -> str:
        """The name of the function, which is also the name of its script."""
        return self.function.__name__

    @property
    def description(self) -> str:
        """What the job does, in one line."""
        return (self.function.__doc__ or self.name).splitlines()[0]

    def claim(self, settings: Settings) -> Claim:
        """The claim of a run of this job."""
        all_dates = self.in_turn is not None
        path = settings.layout.claim(f"{self.name}{self.part(settings)}", all_dates)
        work = "" if self.in_turn is None else self.in_turn(settings)
        return Claim(path, str(settings.date), work)

    def record(self, settings: Settings) -> str:
        """The record: the file with the fingerprint of the job's inputs, settings and code."""
        return settings.layout.record(f"{self.name}{self.part(settings)}")

    def inputs(self, spark: SparkSession, settings: Settings) -> Any:
        """What the job's output depends on, besides the code; None if the job always runs."""
        return None if self.reads is None else self.reads(spark, settings)

    def __call__(self, spark: SparkSession, settings: Settings) -> Counts:
        """Run the job's function.

        Raises:
            DataRefused: Spark cannot read a file.
        """
        try:
            return self.function(spark, settings)
        except Exception as error:
            refusal = unreadable.refusal(error)
            if refusal is None:
                raise
            raise refusal from error


def job(
    reads: Reads | None = None,
    writes: Writes = lambda settings: (),
    sections: Sequence[str] = (),
    check: Check = lambda settings: None,
    in_turn: Work | None = None,
    part: Part = lambda settings: "",
) -> Callable[[Function], Job]:
    """Make a function a job.

    Args:
        reads: what the output depends on; without it the job always runs.
        writes: files or folders that exist once the job has run.
        sections: the sections of the settings that the job reads; its --help shows them.
        check: raises BadSettings for settings that the job cannot run with on this machine.
        in_turn: what a run does, if runs of different dates write to the same rows: then they take
            turns. Of two runs of the same date, the later one always takes over.
        part: the suffix for a run that makes only a part of the output; runs of different parts
            do not exclude each other.
    """
    return lambda function: Job(function, reads, writes, tuple(sections), check, in_turn, part)


EXPLAINED = (BadSettings, JobFailed, sessions.NotStarted, *REFUSALS)
"""Errors that need no traceback: their message explains everything to people on call."""


def parse(
    arguments: Sequence[str], description: str, sections: Sequence[str] = ALL_SECTIONS
) -> Settings:
    """Read settings from the arguments of a command line; for --help, print the help and exit.

    Args:
        arguments: the command line without the name of the script.
        description: what the script does, in one line.
        sections: the sections of the settings that --help shows.

    Raises:
        BadSettings: as `load_settings`, an option of Spark cannot be chosen, there are more workers
            than slots of Spark, or Spark would not find the root.
    """
    if {"-h", "--help"} & set(arguments):
        shown = ALL_SECTIONS if "all" in arguments else sections
        print(USAGE.format(script=Path(sys.argv[0]).name, description=description))
        print(describe_settings(shown, min(120, shutil.get_terminal_size((100, 40)).columns)))
        sys.exit(DONE)
    settings = load_settings(None, arguments)
    sessions.check_options(settings)
    sessions.check_workers(settings)
    sessions.check_root(settings)
    return settings


def run(
    job: Job, session: SparkSession, settings: Settings, step_runs: list[StepRun] | None = None
) -> StepRun:
    """Run a job in an open session, unless it can be skipped; log its outcome and counts.

    The run is also appended to `step_runs`, even if the job raises; then this raises the same.
    """
    step_run, start = StepRun(job.name, settings), time.perf_counter()
    try:
        _run(job, session, settings, step_run)
    except BaseException as error:
        end(step_run, error)
        raise
    finally:
        step_run.seconds = time.perf_counter() - start
        if step_runs is not None:
            step_runs.append(step_run)
    return step_run


def end(step_run: StepRun, error: BaseException) -> None:
    """Mark a step as refused or failed, and log it, with a traceback if the error is unexpected.

    The log line does not hold the reason: the process prints it as its last line.
    """
    explained = isinstance(error, EXPLAINED)
    step_run.outcome = "refused" if isinstance(error, REFUSALS) else "failed"
    step_run.message = f"{type(error).__name__}: {error}" if explained else in_a_line(error)
    seconds = (datetime.datetime.now(datetime.UTC) - step_run.started_at).total_seconds()
    fields = {
        "step": step_run.step,
        "run_date": str(step_run.settings.date),
        "outcome": step_run.outcome,
    }
    log.error(
        "%s %s: %s after %.1f s",
        *fields.values(),
        seconds,
        exc_info=error if isinstance(error, Exception) and not explained else None,
        extra={**fields, "seconds": seconds, "reason": step_run.message},
    )


def _run(job: Job, session: SparkSession, settings: Settings, step_run: StepRun) -> None:
    start = time.perf_counter()
    record = job.record(settings)
    current = None
    fields = {"step": job.name, "run_date": str(settings.date)}
    step_run.inputs = job.inputs(session, settings)
    if step_run.inputs is not None:
        current = fingerprint.of_values(fingerprint.of_package(), step_run.inputs)
        since = _unchanged_since(record, current, job.writes(settings))
        if since and not settings.force:
            step_run.outcome = "skipped"
            log.info(
                "%s %s: skipped: inputs, settings and code unchanged since %s; --force to rerun",
                job.name,
                settings.date,
                since,
                extra={**fields, "outcome": step_run.outcome},
            )
            return
    log.info("%s %s: starts", job.name, settings.date, extra=fields)
    if job.in_turn is None:
        with storage.claim(job.claim(settings)):
            counts = job(session, settings)
    else:
        counts = turns.in_turn(job.name, job.claim(settings), lambda: job(session, settings))
    seconds = time.perf_counter() - start
    rows = counts.get("rows")
    if isinstance(rows, int) and seconds > 0:
        counts = {**counts, "rows_per_second": round(rows / seconds)}
    if current is not None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        storage.replace_json(record, {"fingerprint": current, "at": now, "counts": dict(counts)})
    step_run.counts = counts
    log.info(
        "%s %s: done in %.1f s: %s",
        job.name,
        settings.date,
        seconds,
        ", ".join(f"{key}={_short(value)}" for key, value in counts.items()),
        extra={**fields, "outcome": step_run.outcome, "seconds": seconds, "counts": dict(counts)},
    )


def last_fingerprint(settings: Settings, name: str) -> str | None:
    """The fingerprint of a job's last run for the run date; None if it never ran."""
    try:
        return str(storage.read_json(settings.layout.record(name))["fingerprint"])
    except FileNotFoundError:
        return None


def _unchanged_since(record: str, current: str, outputs: Sequence[str]) -> str | None:
    """When the job last ran with the current fingerprint; None if it has to run again."""
    try:
        found = storage.read_json(record)
    except (FileNotFoundError, Unreadable):
        return None
    if found["fingerprint"] != current or not all(storage.exists(path) for path in outputs):
        return None
    return str(found["at"])


def main(job: Job) -> None:
    """Run a script of jobs/: exit 0 when done or skipped, 2 for bad settings, 3 for refused data.

    It exits with 1 for everything else. Its last line says why it stopped.
    """
    set_up_logging()
    try:
        settings = parse(sys.argv[1:], job.description, job.sections)
        job.check(settings)
    except BadSettings as error:
        sys.exit(refuse(job.name, error, BAD_SETTINGS))
    set_up_logging(settings.log_format)
    step_runs: list[StepRun] = []
    before_it_runs = StepRun(job.name, settings)
    try:
        with sessions.session(settings, job.name) as session:
            try:
                run(job, session, settings, step_runs)
            finally:
                runs.record(session, step_runs)
    except Exception as error:
        if not step_runs:
            end(before_it_runs, error)
        code = DATA_REFUSED if isinstance(error, REFUSALS) else FAILED
        sys.exit(refuse(job.name, error, code))


def refuse(name: str, error: Exception, code: int) -> int:
    """Print on standard error why a job stops; return its exit code."""
    message = str(error) if isinstance(error, EXPLAINED) else in_a_line(error)
    for line in message.splitlines():
        print(f"{name}: {line}", file=sys.stderr)
    return code


def _short(value: int | float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
