"""The job `validate_logs`: check raw events and separate clean from bad ones.

Every row of the raw log gets exactly one outcome, and the table `validation` counts it: clean
(table `events`), quarantined with the first reason that applies (table `quarantine`), a repeat of
an earlier event, or blank. `mfn.logs.outcomes` defines the reasons; `mfn.logs.gates` defines what
makes a whole day fail.

**Which days.** Every day of the run date's windows that is not validated yet, or whose files,
settings or rules changed since. All these days are validated together: one read, the shuffles
listed in `mfn.logs.outcomes`, and one aggregation for all counts and measures. The rows are cached
until they are written, so nothing is read twice. If late events are allowed, a day's repeats
depend on the day before; then all days after a changed one are validated again too. `validation`
is written last, so the next run redoes what a killed run left unfinished. A file that arrives
while the job reads is ignored; the next run sees that the day changed.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from mfn import tables
from mfn.errors import DataRefused
from mfn.fingerprint import of_source, of_values
from mfn.job import Counts, job
from mfn.logs import gates, outcomes, raw
from mfn.logs.outcomes import CLEAN, REASONS, REPEAT, TOO_MANY_EVENTS
from mfn.logs.raw import BLANK, DAY
from mfn.schema import EVENTS, QUARANTINE, VALIDATION, VALIDATION_MEASURES
from mfn.settings import Settings
from mfn.windows import windows

log = logging.getLogger("mfn")

OutcomesOfDay = Mapping[str, int]
"""Rows of a day by outcome: clean, repeat, blank, or one of REASONS; those that occur."""

_UNREADABLE_FILE = re.compile(
    r"\[(FAILED_READ_FILE|CANNOT_READ_FILE_FOOTER|CANNOT_MERGE_SCHEMAS)[^\]]*\].*"
)
_EXAMPLE_LENGTH = 200
# Settings of `validation` that change outcomes.
_OUTCOME_SETTINGS = ("late_hours", "early_minutes", "max_id_length", "max_user_events")


@dataclass(frozen=True)
class DayCounts:
    """A day's rows by outcome, and its share of requests with a click (None without requests)."""

    outcomes: OutcomesOfDay
    clicked_share: float | None

    @property
    def measures(self) -> dict[str, float]:
        """The values that the gates check."""
        values = {
            "quarantined_share": quarantined_share(self.outcomes),
            "events": float(self.outcomes.get(CLEAN, 0)),
        }
        clicked = self.clicked_share
        return values if clicked is None else {**values, "clicked_share": clicked}


ByDay = Mapping[datetime.date, DayCounts]


def _reads(spark: SparkSession, settings: Settings) -> Any:
    span = windows(settings.date, settings.windows).days
    folders = raw.day_folders(settings.logs_folder("events"), span)
    days = {str(one.day): day_fingerprint(one, settings) for one in folders}
    return [days, settings.validation.model_dump()]


def _writes(settings: Settings) -> list[str]:
    return [tables.path_of(settings.root, table) for table in (EVENTS, QUARANTINE, VALIDATION)]


@job(_reads, _writes, one_at_a_time=True, sections=("logs", "validation", "windows"))
def validate_logs(spark: SparkSession, settings: Settings) -> Counts:
    """Check raw events: write clean ones to the table events, bad ones to quarantine; count all.

    Raises:
        DataRefused: a day has no folder, an unfinished folder without rows, or a file that cannot
            be read; or a day fails a gate. Then only the table `validation_measures` changes: it
            holds the measured values.
    """
    folder = settings.logs_folder("events")
    span = windows(settings.date, settings.windows).days
    validated = validated_days(spark, settings)
    found = _changed(raw.day_folders(folder, span), validated, settings)
    if not found:
        return {"rows": 0, "days": 0}
    days = [one.day for one in found]
    lines = Observation()
    with _readable(folder), contextlib.ExitStack() as to_close:

        def keep(frame: DataFrame) -> DataFrame:
            to_close.callback(frame.unpersist)
            return frame.persist()

        read = outcomes.judge(raw.read_events(spark, folder, found), settings)
        rows = keep(read.observe(lines, F.count("*").alias("lines")))
        before = _kept_before(spark, settings, days, set(validated))
        repeated = keep(outcomes.repeated_ids(rows, before))
        repeated.count()  # fills the cache: Spark chooses the later joins by its size
        marked = outcomes.mark_repeats(rows, repeated, before)
        last = keep(outcomes.last_allowed(marked, settings.validation.max_user_events))
        judged = outcomes.limit_users(marked, last) if last.count() else marked
        counted = _count(judged, days)
        _refuse_unless_all_counted(counted, lines, rows, found)
        _refuse_empty_days(counted, found)
        measured = gates.measure(
            {day: of.measures for day, of in counted.items()},
            _measured_before(spark, settings, days),
            settings.validation,
        )
        _write_measures(spark, settings, measured, days)
        _refuse_bad_days(measured, counted, judged, settings)
        _write(spark, settings, judged, counted, found)
    return _job_counts(counted)


def day_fingerprint(folder: raw.DayFolder, settings: Settings) -> str:
    """Fingerprint of all inputs of a day's outcomes, except the events of the day before."""
    return of_values(
        folder.fingerprint,
        {name: getattr(settings.validation, name) for name in _OUTCOME_SETTINGS},
        settings.logs.time_zone,
        settings.logs.day_time_zone,
        of_source(raw, outcomes),
    )


def _changed(
    folders: Sequence[raw.DayFolder],
    validated: Mapping[datetime.date, str | None],
    settings: Settings,
) -> list[raw.DayFolder]:
    """Folders of days that are not validated yet, or whose inputs changed since."""
    changed = [
        one.day
        for one in folders
        if settings.force or validated.get(one.day) != day_fingerprint(one, settings)
    ]
    again = [day for day in changed if day in validated]
    if again and not settings.force:
        log.info(
            "validate_logs %s: validating again, files, settings or rules changed: %s",
            settings.date,
            ", ".join(map(str, again)),
        )
    if settings.validation.late_hours and changed:
        return [one for one in folders if one.day >= changed[0]]
    return [one for one in folders if one.day in changed]


def validated_days(spark: SparkSession, settings: Settings) -> dict[datetime.date, str | None]:
    """Fingerprint of each validated day (`day_fingerprint`)."""
    if not tables.is_there(spark, settings.root, VALIDATION):
        return {}
    found = tables.read(spark, settings.root, VALIDATION, "validate_logs")
    rows = found.select("run_date", "made_from").distinct().collect()
    return {row["run_date"]: row["made_from"] for row in rows}


def _kept_before(
    spark: SparkSession,
    settings: Settings,
    days: Sequence[datetime.date],
    validated: set[datetime.date],
) -> DataFrame | None:
    """`dt` and `event_id` of kept events of the day before each of `days`, if already validated.

    Events of bots count as kept, though they are in quarantine. None if no late events are
    allowed.
    """
    if not settings.validation.late_hours:
        return None
    neighbours = {day - datetime.timedelta(days=1) for day in days} - set(days)
    known = sorted(neighbours & validated)
    if not known:
        return spark.createDataFrame([], EVENTS.columns).select(DAY, "event_id")
    events = tables.read(spark, settings.root, EVENTS, "validate_logs")
    bots = tables.read(spark, settings.root, QUARANTINE, "validate_logs")
    bots = bots.where(F.col("reason") == TOO_MANY_EVENTS)
    bots = bots.withColumn("event_id", F.get_json_object("raw", "$.event_id"))
    both = events.select(DAY, "event_id").unionByName(bots.select(DAY, "event_id"))
    return both.where(F.col(DAY).isin(known))


@contextlib.contextmanager
def _readable(folder: str) -> Iterator[None]:
    """Turn Spark's error about an unreadable file into DataRefused."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        # The error of a task reaches Python without its class: only its text can be checked.
        found = _UNREADABLE_FILE.search(str(error))
        if found is None:
            raise
        raise DataRefused(
            f"{folder}: a file cannot be read to its end; it may be cut short, have another format "
            "than its name says, or have other column types than the other files of its folder. "
            f"Deliver it again. Spark says: {found[0]}"
        ) from error


def _count(judged: DataFrame, days: Sequence[datetime.date]) -> dict[datetime.date, DayCounts]:
    """Count each day's outcomes, and its requests with and without a click, in one pass.

    A request is identified by its user and its id. An impression without request id is a request
    by itself, identified by user and item: a click without request id has nothing else to match on.
    """
    unnamed = F.col("request_id").isNull()
    request = F.xxhash64("user_id", unnamed, F.coalesce("request_id", "item_id"))
    of_request = F.when(F.col("outcome") == CLEAN, F.col("event_type"))
    # One row for each day, outcome and request (null for events that belong to no request).
    by_request = (
        judged.withColumn("request", F.when(of_request.isin("impression", "click"), request))
        .groupBy(DAY, "outcome", "request")
        .agg(
            F.count("*").alias("rows"),
            F.bool_or(of_request == "impression").alias("shown"),
            F.bool_or(of_request == "click").alias("clicked"),
        )
    )
    # One row for each day and outcome.
    found = by_request.groupBy(DAY, "outcome").agg(
        F.sum("rows").alias("rows"),
        F.count_if("shown").alias("shown"),
        F.count_if(F.col("shown") & F.col("clicked")).alias("clicked"),
    )
    counts: dict[datetime.date, dict[str, int]] = {day: {} for day in days}
    shares: dict[datetime.date, float] = {}
    for row in found.collect():
        counts[row[DAY]][row["outcome"]] = row["rows"]
        if row["outcome"] == CLEAN and row["shown"]:
            shares[row[DAY]] = row["clicked"] / row["shown"]
    return {
        day: DayCounts(
            {name: of[name] for name in (CLEAN, REPEAT, BLANK, *REASONS) if name in of},
            shares.get(day),
        )
        for day, of in counts.items()
    }


def _refuse_unless_all_counted(
    counted: ByDay, lines: Observation, rows: DataFrame, folders: Sequence[raw.DayFolder]
) -> None:
    """Check that no row was lost or doubled between reading and counting."""
    total = sum(sum(of.outcomes.values()) for of in counted.values())
    # Without any rows Spark may drop the observation; `lines.get` would then wait forever.
    if total and total == lines.get["lines"]:
        return
    # A task that Spark reran because its results were lost is observed twice: count exactly.
    read = rows.count()
    if total != read:
        raise DataRefused(
            f"{folders[0].path} to {folders[-1].path}: expected an outcome for each of {read} "
            f"rows, got {total}; were the files changed during the run? Run the job again"
        )


def _refuse_empty_days(counted: ByDay, folders: Sequence[raw.DayFolder]) -> None:
    lacking = [
        one for one in folders if not sum(counted[one.day].outcomes.values()) and not one.finished
    ]
    if lacking:
        raise DataRefused("\n".join(f"{one.day}: {raw.empty(one)}" for one in lacking))


def _measured_before(
    spark: SparkSession, settings: Settings, days: Sequence[datetime.date]
) -> dict[datetime.date, dict[str, float]]:
    """Measures of other days that passed, back to `validation.reference_days` before the first."""
    if not tables.is_there(spark, settings.root, VALIDATION_MEASURES):
        return {}
    first = days[0] - datetime.timedelta(days=settings.validation.reference_days)
    rows = (
        tables.read(spark, settings.root, VALIDATION_MEASURES, "validate_logs")
        .where(F.col("run_date").between(first, days[-1]) & ~F.col("run_date").isin([*days]))
        .select("run_date", "measure", "value", "passed")
        .collect()
    )
    refused = {row["run_date"] for row in rows if not row["passed"]}
    before: dict[datetime.date, dict[str, float]] = {}
    for row in rows:
        if row["run_date"] not in refused:
            before.setdefault(row["run_date"], {})[row["measure"]] = row["value"]
    return before


def _write_measures(
    spark: SparkSession,
    settings: Settings,
    measured: Sequence[gates.Measured],
    days: Sequence[datetime.date],
) -> None:
    rows = [
        (
            one.run_date,
            one.measure,
            one.value,
            one.median_before,
            one.least,
            one.most if math.isfinite(one.most) else None,
            one.passed,
        )
        for one in measured
    ]
    frame = spark.createDataFrame(rows, VALIDATION_MEASURES.columns).coalesce(1)
    tables.replace(frame, settings.root, VALIDATION_MEASURES, {"run_date": days})


def _refuse_bad_days(
    measured: Sequence[gates.Measured], counted: ByDay, judged: DataFrame, settings: Settings
) -> None:
    """Raise DataRefused if a day fails a gate; show limits, values and an example of a bad row."""
    problems = gates.problems(measured, settings.validation)
    if not problems:
        return
    bad = [one for one in measured if not one.passed and one.measure == "quarantined_share"]
    problems += [_reasons(one.run_date, counted[one.run_date].outcomes) for one in bad]
    if bad:
        worst = max(bad, key=lambda one: one.value).run_date
        reason = _by_frequency(counted[worst].outcomes)[0]
        like_it = (F.col(DAY) == worst) & (F.col("outcome") == reason)
        example = judged.where(like_it).orderBy("source_file", "raw").first()
        if example is not None:
            text = example["raw"]
            shown = text if len(text) <= _EXAMPLE_LENGTH else f"{text[:_EXAMPLE_LENGTH]} …"
            problems.append(f"an example of {reason}, in {example['source_file']}: {shown}")
    raise DataRefused(
        "\n".join(
            [
                *problems,
                f"nothing was published; {tables.path_of(settings.root, VALIDATION_MEASURES)} "
                "holds the measured values; repair the log and run the job again, or change the "
                "setting if such a day may pass",
            ]
        )
    )


def quarantined(of_day: OutcomesOfDay) -> int:
    """Rows that go to quarantine."""
    return sum(of_day.get(reason, 0) for reason in REASONS)


def quarantined_share(of_day: OutcomesOfDay) -> float:
    """Share of quarantined rows among all rows that are not blank; 0 if there are no such rows."""
    rows = sum(of_day.values()) - of_day.get(BLANK, 0)
    return quarantined(of_day) / rows if rows else 0.0


def _by_frequency(of_day: OutcomesOfDay) -> list[str]:
    """Reasons that occur on a day, the most frequent first."""
    return sorted((name for name in REASONS if name in of_day), key=lambda name: -of_day[name])


def _reasons(day: datetime.date, of_day: OutcomesOfDay) -> str:
    reasons = ", ".join(f"{name} {of_day[name]}" for name in _by_frequency(of_day)[:5])
    rows = sum(of_day.values()) - of_day.get(BLANK, 0)
    return f"{day}: {quarantined(of_day)} of {rows} rows are bad: {reasons}"


def _write(
    spark: SparkSession,
    settings: Settings,
    judged: DataFrame,
    counted: ByDay,
    folders: Sequence[raw.DayFolder],
) -> None:
    days = sorted(counted)
    events = judged.where(F.col("outcome") == CLEAN).select(*EVENTS.columns.names)
    tables.replace(events, settings.root, EVENTS, {DAY: days})
    bad = judged.where(F.col("outcome").isin(*REASONS)).withColumnRenamed("outcome", "reason")
    bad = bad.select(*QUARANTINE.columns.names)
    tables.replace(bad, settings.root, QUARANTINE, {DAY: days})
    rows = [
        (one.day, "events", outcome, number, day_fingerprint(one, settings))
        for one in folders
        for outcome, number in {
            CLEAN: 0,
            REPEAT: 0,
            BLANK: 0,
            **counted[one.day].outcomes,
        }.items()
    ]
    validation = spark.createDataFrame(rows, VALIDATION.columns).coalesce(1)
    tables.replace(validation, settings.root, VALIDATION, {"run_date": days})


def _job_counts(counted: ByDay) -> dict[str, int]:
    """The job's counts: outcomes summed over all days, and the reasons that occur."""
    total = {
        name: number
        for name in (CLEAN, REPEAT, BLANK, *REASONS)
        if (number := sum(of.outcomes.get(name, 0) for of in counted.values()))
    }
    return {
        "rows": sum(total.values()),
        "clean": total.pop(CLEAN, 0),
        "quarantined": quarantined(total),
        "repeats": total.pop(REPEAT, 0),
        "blank": total.pop(BLANK, 0),
        "days": len(counted),
        **total,
    }
