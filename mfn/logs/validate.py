"""Raw events are believed or not: the job `validate_logs`.

Every row of the raw log ends in exactly one place, and is counted there in the table
`validation`: clean (table `events`), quarantined with the first reason that holds (table
`quarantine`), a repeat of an event already seen, or blank. `mfn.logs.outcomes` says what the
reasons are; `mfn.logs.gates` says what stops a day.

**Which days.** Every day of the run date's windows that is not validated yet, or was from other
files, settings or rules than those of now; all in one go: one read, the shuffles that
`mfn.logs.outcomes` tells, one aggregate for all counts and measures. What was read and judged is
kept until it is written, so that nothing is read again. With late events a day's repeats depend on
the day before: then the days after a changed one are validated again too. `validation` is written
last: what a killed run has left is done again. A file that comes while the job reads is not read,
and the next run finds the day changed.
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
_OF_OUTCOMES = ("late_hours", "early_minutes", "max_id_length", "max_user_events")


@dataclass(frozen=True)
class Counted:
    """A day's rows by outcome, and its share of requests with a click; None without requests."""

    outcomes: OutcomesOfDay
    clicked_share: float | None

    @property
    def measures(self) -> dict[str, float]:
        """The values that the gates look at."""
        values = {
            "quarantined_share": quarantined_share(self.outcomes),
            "events": float(self.outcomes.get(CLEAN, 0)),
        }
        clicked = self.clicked_share
        return values if clicked is None else {**values, "clicked_share": clicked}


ByDay = Mapping[datetime.date, Counted]


def _reads(spark: SparkSession, settings: Settings) -> Any:
    span = windows(settings.date, settings.windows).days
    folders = raw.day_folders(settings.logs_folder("events"), span)
    days = {str(one.day): day_fingerprint(one, settings) for one in folders}
    return [days, settings.validation.model_dump()]


def _writes(settings: Settings) -> list[str]:
    return [tables.path_of(settings.root, table) for table in (EVENTS, QUARANTINE, VALIDATION)]


@job(_reads, _writes, one_at_a_time=True, sections=("logs", "validation", "windows"))
def validate_logs(spark: SparkSession, settings: Settings) -> Counts:
    """Check raw events: clean ones to the table events, bad ones to quarantine, all counted.

    Raises:
        DataRefused: a day has no folder, an unfinished folder without rows, a file that cannot be
            read, or is not what the gates admit. Then no table is changed but
            `validation_measures`, which says what was measured.
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
        repeated.count()  # Spark plans the joins with it by its size, once that is known
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
    return _account(counted)


def day_fingerprint(folder: raw.DayFolder, settings: Settings) -> str:
    """Fingerprint of all that a day's outcomes follow from, but the events of the day before."""
    return of_values(
        folder.fingerprint,
        {name: getattr(settings.validation, name) for name in _OF_OUTCOMES},
        settings.logs.time_zone,
        settings.logs.day_time_zone,
        of_source(raw, outcomes),
    )


def _changed(
    folders: Sequence[raw.DayFolder],
    validated: Mapping[datetime.date, str | None],
    settings: Settings,
) -> list[raw.DayFolder]:
    """Folders of days that are not validated, or were from something else than what is there."""
    changed = [
        one.day
        for one in folders
        if settings.force or validated.get(one.day) != day_fingerprint(one, settings)
    ]
    again = [day for day in changed if day in validated]
    if again and not settings.force:
        log.info(
            "validate_logs %s: validated again, since files or settings have changed: %s",
            settings.date,
            ", ".join(map(str, again)),
        )
    if settings.validation.late_hours and changed:
        return [one for one in folders if one.day >= changed[0]]
    return [one for one in folders if one.day in changed]


def validated_days(spark: SparkSession, settings: Settings) -> dict[datetime.date, str | None]:
    """What each validated day was made from."""
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
    """`dt` and `event_id` of the days before these, as far as they are validated already."""
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
    """Say of a file that Spark cannot read that the data are refused."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        # An error of a task reaches Python without its class: only the text tells.
        found = _UNREADABLE_FILE.search(str(error))
        if found is None:
            raise
        raise DataRefused(
            f"{folder}: a file cannot be read to its end; it may be cut short, be of another kind "
            "than its name says, or have columns of other types than the files beside it. "
            f"Deliver it again. Spark says: {found[0]}"
        ) from error


def _count(judged: DataFrame, days: Sequence[datetime.date]) -> dict[datetime.date, Counted]:
    """One pass over all rows.

    A request is told by its id; an impression without one is a request of its own, told by its
    user and item, since a click without request id says no more.
    """
    request = F.xxhash64(F.coalesce("request_id", F.concat_ws("\n", "user_id", "item_id")))
    of_request = F.when(F.col("outcome") == CLEAN, F.col("event_type"))
    by_request = (
        judged.withColumn("request", F.when(of_request.isin("impression", "click"), request))
        .groupBy(DAY, "outcome", "request")
        .agg(
            F.count("*").alias("rows"),
            F.bool_or(of_request == "impression").alias("shown"),
            F.bool_or(of_request == "click").alias("clicked"),
        )
    )
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
        day: Counted(
            {name: of[name] for name in (CLEAN, REPEAT, BLANK, *REASONS) if name in of},
            shares.get(day),
        )
        for day, of in counts.items()
    }


def _refuse_unless_all_counted(
    counted: ByDay, lines: Observation, rows: DataFrame, folders: Sequence[raw.DayFolder]
) -> None:
    """Nothing may be lost or doubled between the reading and the counting."""
    told = sum(sum(of.outcomes.values()) for of in counted.values())
    # Where there are no rows at all, Spark may leave out the observation, and never answer.
    if told and told == lines.get["lines"]:
        return
    # A task that Spark ran twice, its first results having been lost, has told its lines twice.
    read = rows.count()
    if told != read:
        raise DataRefused(
            f"{folders[0].path} to {folders[-1].path}: expected an outcome for each of {read} "
            f"rows, got {told}; were the files changed meanwhile? Run the job again"
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
    """What was measured of other days that passed, as far back as the days are compared."""
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
    """The gates: what is not passed stops the day, with an account and an example."""
    problems = gates.account(measured, settings.validation)
    if not problems:
        return
    bad = [one for one in measured if not one.passed and one.measure == "quarantined_share"]
    problems += [_reasons(one.run_date, counted[one.run_date].outcomes) for one in bad]
    if bad:
        worst = max(bad, key=lambda one: one.value).run_date
        reason = _largest(counted[worst].outcomes)[0]
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
                "holds what was measured; repair the log and run the job again, or change the "
                "setting if such a day may pass",
            ]
        )
    )


def quarantined(of_day: OutcomesOfDay) -> int:
    """Rows that go to quarantine."""
    return sum(of_day.get(reason, 0) for reason in REASONS)


def quarantined_share(of_day: OutcomesOfDay) -> float:
    """Share of quarantined rows in all that are not blank; 0 where there are none."""
    rows = sum(of_day.values()) - of_day.get(BLANK, 0)
    return quarantined(of_day) / rows if rows else 0.0


def _largest(of_day: OutcomesOfDay) -> list[str]:
    return sorted((name for name in REASONS if name in of_day), key=lambda name: -of_day[name])


def _reasons(day: datetime.date, of_day: OutcomesOfDay) -> str:
    reasons = ", ".join(f"{name} {of_day[name]}" for name in _largest(of_day)[:5])
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


def _account(counted: ByDay) -> dict[str, int]:
    """The job's counts: outcomes over all days, and the reasons that occur."""
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
