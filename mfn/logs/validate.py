"""The job `validate_logs`: check raw events and separate clean from bad ones.

Every row of the raw log gets exactly one outcome, and the table `validation` counts it: clean
(table `events`), quarantined with the first reason that applies (table `quarantine`), a repeat of
an earlier event, or blank. `mfn.logs.outcomes` defines the reasons; `mfn.logs.gates` defines what
makes a whole day fail.

**Which days.** Every day of the run date's windows that is not validated yet, or whose files,
settings or rules changed since. If late events are allowed, a day's repeats depend on the day
before; then all days after a changed one are validated again too. A file that arrives while the
job reads is ignored; the next run sees that the day changed.

**Groups.** `validation.days_at_once` days are validated together, the oldest first: one read, the
shuffles listed in `mfn.logs.outcomes`, and one aggregation for all counts and measures. The rows
are cached until they are written, so nothing is read twice. A group's `validation` is written last,
so the next run redoes the group in which a run was killed, and no earlier one.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from mfn import layout, storage, tables
from mfn.errors import DataRefused, Unreadable
from mfn.fingerprint import of_source, of_values
from mfn.job import Counts, job
from mfn.logs import catalogue, gates, outcomes, parquet, raw, values
from mfn.logs.outcomes import CLEAN, REASONS, REPEAT, TOO_MANY_EVENTS
from mfn.logs.raw import BLANK, DAY
from mfn.schema import EVENTS, QUARANTINE, VALIDATION, VALIDATION_MEASURES
from mfn.settings import LogsKind, Settings
from mfn.spark import caching
from mfn.windows import windows

log = logging.getLogger("mfn")

OutcomesOfDay = Mapping[str, int]
"""Rows of a day by outcome: clean, repeat, blank, or one of REASONS; those that occur."""

_EXAMPLE_LENGTH = 200
# Settings of `validation` that change outcomes.
_OUTCOME_SETTINGS = ("late_hours", "early_minutes", "max_id_length", "max_user_events")


@dataclass(frozen=True)
class DayCounts:
    """The counts of a day's events.

    Attributes:
        outcomes: rows by outcome.
        clicked_share: share of requests with a click; None without requests.
        keys_twice: by field, clean events and repeats that have a key twice.
    """

    outcomes: OutcomesOfDay
    clicked_share: float | None
    keys_twice: Mapping[str, int]

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
    of_snapshots = [[one.kind.name, one.fingerprint] for one in catalogue.of_run(settings)]
    return [days, of_snapshots, settings.validation.model_dump(exclude={"days_at_once"})]


def _writes(settings: Settings) -> list[str]:
    return [tables.path_of(settings.root, table) for table in (EVENTS, QUARANTINE, VALIDATION)]


def _work(settings: Settings) -> str:
    days = windows(settings.date, settings.windows).days
    return f"validates {days[0]} to {days[-1]}"


@job(_reads, _writes, in_turn=_work, sections=("logs", "validation", "windows"))
def validate_logs(spark: SparkSession, settings: Settings) -> Counts:
    """Check raw logs: write clean events to the table events, bad ones to quarantine; count all.

    Raises:
        DataRefused: a day has no folder, an unfinished folder without rows, or a file that cannot
            be read; or a day or a snapshot fails a gate. Then of its group only the table
            `validation_measures` changes: it holds the measured values. Groups before it stay as
            published.
    """
    return {**_validate_events(spark, settings), **_validate_snapshots(spark, settings)}


def _validate_events(spark: SparkSession, settings: Settings) -> Counts:
    span = windows(settings.date, settings.windows).days
    validated = validated_days(spark, settings)
    found = _changed(raw.day_folders(settings.logs_folder("events"), span), validated, settings)
    size = settings.validation.days_at_once
    groups = [found[first : first + size] for first in range(0, len(found), size)]
    counted: dict[datetime.date, DayCounts] = {}
    for number, group in enumerate(groups, start=1):
        if len(groups) > 1:
            of_group = (number, len(groups), group[0].day, group[-1].day)
            log.info("validate_logs %s: group %d of %d: %s to %s", settings.date, *of_group)
        later = [one.day for one in found if one.day > group[-1].day]
        counted |= _validate_group(spark, settings, group, later)
    return _job_counts(counted) if counted else {"rows": 0, "days": 0}


def _validate_group(
    spark: SparkSession,
    settings: Settings,
    group: Sequence[raw.DayFolder],
    later: Sequence[datetime.date],
) -> ByDay:
    """Validate and publish some days together.

    Args:
        group: the folders of these days.
        later: days that are validated after them.
    """
    folder = settings.logs_folder("events")
    days = [one.day for one in group]
    lines = Observation()
    with caching() as keep:
        read = outcomes.judge(raw.read_events(spark, folder, group), settings)
        rows = keep(read.observe(lines, F.count("*").alias("lines")))
        before = _kept_before(spark, settings, days)
        repeated = keep(outcomes.repeated_ids(rows, before))
        repeated.count()  # fills the cache: Spark chooses the later joins by its size
        marked = outcomes.mark_repeats(rows, repeated, before)
        last = keep(outcomes.last_allowed(marked, settings.validation.max_user_events))
        judged = outcomes.limit_users(marked, last) if last.count() else marked
        counted = _count(judged, rows, days)
        _refuse_unless_all_counted(counted, lines, rows, group)
        _refuse_empty_days(counted, group)
        measured = gates.measure(
            {day: of.measures for day, of in counted.items()},
            _measured_before(spark, settings, days),
            settings.validation,
        )
        _write_measures(spark, settings, measured, days, gates.OF_EVENTS)
        _refuse_bad_days(measured, counted, judged, settings)
        _write(spark, settings, judged, counted, group, later)
    return counted


def day_fingerprint(folder: raw.DayFolder, settings: Settings) -> str:
    """Fingerprint of all inputs of a day's outcomes, except the events of the day before."""
    return of_values(
        folder.fingerprint,
        {name: getattr(settings.validation, name) for name in _OUTCOME_SETTINGS},
        settings.logs.time_zone,
        settings.logs.day_time_zone,
        of_source(raw, parquet, values, outcomes),
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


def validated_days(
    spark: SparkSession, settings: Settings, source: LogsKind = "events"
) -> dict[datetime.date, str | None]:
    """Fingerprint of each validated day of a source (for events: `day_fingerprint`).

    They are kept in a small file, with the version of the table that they are from. As long as that
    is the table's version, no Spark job is needed.
    """
    days = _validated(spark, settings).get(source, {})
    return {datetime.date.fromisoformat(day): of for day, of in days.items()}


def _validated(spark: SparkSession, settings: Settings) -> dict[str, dict[str, str | None]]:
    """By source and day."""
    path, version = layout.validated(settings.root), tables.newest_commit(settings.root, VALIDATION)
    if version is None:
        return {}
    with contextlib.suppress(FileNotFoundError, Unreadable):
        kept = storage.read_json(path)
        if kept["version"] == version:
            return dict(kept["sources"])
    table = tables.read(spark, settings.root, VALIDATION, "validate_logs")
    found: dict[str, dict[str, str | None]] = {}
    for row in table.select("source", "run_date", "made_from").distinct().collect():
        found.setdefault(row["source"], {})[str(row["run_date"])] = row["made_from"]
    # If somebody has written since, it is unknown what was read.
    if tables.newest_commit(settings.root, VALIDATION) == version:
        storage.replace_json(path, {"version": version, "sources": found})
    return found


def _kept_before(
    spark: SparkSession, settings: Settings, days: Sequence[datetime.date]
) -> DataFrame | None:
    """`dt` and `event_id` of kept events of the day before each of `days`, if already validated.

    Events of bots count as kept, though they are in quarantine. None if no late events are
    allowed.
    """
    if not settings.validation.late_hours:
        return None
    neighbours = {day - datetime.timedelta(days=1) for day in days} - set(days)
    known = sorted(neighbours & validated_days(spark, settings).keys())
    if not known:
        return spark.createDataFrame([], EVENTS.columns).select(DAY, "event_id")
    events = tables.read(spark, settings.root, EVENTS, "validate_logs")
    bots = tables.read(spark, settings.root, QUARANTINE, "validate_logs")
    bots = bots.where(F.col("reason") == TOO_MANY_EVENTS)
    bots = bots.withColumn("event_id", F.get_json_object("raw", "$.event_id"))
    both = events.select(DAY, "event_id").unionByName(bots.select(DAY, "event_id"))
    return both.where(F.col(DAY).isin(known))


def _count(
    judged: DataFrame, rows: DataFrame, days: Sequence[datetime.date]
) -> dict[datetime.date, DayCounts]:
    """Count each day's outcomes, and its requests with and without a click, in one pass.

    Keys that are given twice are counted in `rows`, the cached result of `outcomes.judge`.

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
    twice: dict[datetime.date, dict[str, int]] = {day: {} for day in days}
    fields = rows.select(DAY, F.explode("twice").alias("field"))
    for row in fields.groupBy(DAY, "field").agg(F.count("*").alias("rows")).collect():
        twice[row[DAY]][row["field"]] = row["rows"]
    return {
        day: DayCounts(
            {name: of[name] for name in (CLEAN, REPEAT, BLANK, *REASONS) if name in of},
            shares.get(day),
            twice[day],
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
    names: Sequence[str],
) -> None:
    """Replace these measures of these days."""
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
    where: dict[str, Sequence[tables.Value]] = {"run_date": days, "measure": names}
    tables.replace(frame, settings.root, VALIDATION_MEASURES, where)


def _refuse_bad_days(
    measured: Sequence[gates.Measured], counted: ByDay, judged: DataFrame, settings: Settings
) -> None:
    """Raise DataRefused if a day fails a gate; show limits, values and an example of a bad row."""
    problems = gates.problems(measured, settings.validation)
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
    _refuse(problems, counted, settings)


def _refuse(problems: Sequence[str], days: Collection[datetime.date], settings: Settings) -> None:
    """Raise DataRefused if there are problems."""
    if problems:
        raise DataRefused(
            "\n".join(
                [
                    *problems,
                    f"nothing of {min(days)} to {max(days)} was published; "
                    f"{tables.path_of(settings.root, VALIDATION_MEASURES)} holds the measured "
                    "values; repair the log and run the job again, or change the setting if such "
                    "a day may pass",
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
    later: Sequence[datetime.date],
) -> None:
    """Publish a group, `validation` last.

    If late events are allowed, `validation` loses the days of `later` groups in the same commit:
    they depend on this group, and perhaps nothing else tells a run after a kill that they have to
    be validated again.
    """
    days = sorted(counted)
    events = judged.where(F.col("outcome") == CLEAN).select(*EVENTS.columns.names)
    tables.replace(events, settings.root, EVENTS, {DAY: days})
    bad = judged.where(F.col("outcome").isin(*REASONS)).withColumnRenamed("outcome", "reason")
    bad = bad.select(*QUARANTINE.columns.names)
    tables.replace(bad, settings.root, QUARANTINE, {DAY: days})
    rows: list[tuple[Any, ...]] = []
    for one in folders:
        of_day, made_from = counted[one.day], day_fingerprint(one, settings)
        outcomes_of_day = {CLEAN: 0, REPEAT: 0, BLANK: 0, **of_day.outcomes}
        rows += [
            (one.day, "events", outcome, number, made_from, None)
            for outcome, number in outcomes_of_day.items()
        ]
        rows += [
            (one.day, "events", catalogue.KEY_TWICE, number, made_from, field)
            for field, number in of_day.keys_twice.items()
        ]
    outdated = later if settings.validation.late_hours else []
    _write_validation(spark, settings, rows, [*days, *outdated], ["events"])


def _write_validation(
    spark: SparkSession,
    settings: Settings,
    rows: Sequence[tuple[Any, ...]],
    days: Sequence[datetime.date],
    sources: Sequence[str],
) -> None:
    frame = spark.createDataFrame(rows, VALIDATION.columns).coalesce(1)
    tables.replace(frame, settings.root, VALIDATION, {"run_date": days, "source": sources})


def _validate_snapshots(spark: SparkSession, settings: Settings) -> Counts:
    """Check the snapshots that are not checked yet, or have changed since."""
    known = {kind.name: validated_days(spark, settings, kind.name) for kind in catalogue.KINDS}
    changed = [
        one
        for one in catalogue.of_run(settings)
        if settings.force or known[one.kind.name].get(one.folder.day) != one.fingerprint
    ]
    if not changed:
        return {}
    counted = list(catalogue.count(spark, settings, changed))
    days = sorted({one.folder.day for one in changed})
    values_of_days = catalogue.measures(counted)
    measured = gates.measure(
        values_of_days, _measured_before(spark, settings, days), settings.validation
    )
    names = sorted({name for of_day in values_of_days.values() for name in of_day})
    _write_measures(spark, settings, measured, days, names)
    _refuse(gates.problems(measured, settings.validation), days, settings)
    rows: list[tuple[Any, ...]] = []
    for one, of in counted:
        common = (one.folder.day, one.kind.name)
        rows += [(*common, name, n, one.fingerprint, None) for name, n in of.rows.items()]
        rows += [(*common, why, n, one.fingerprint, field) for (field, why), n in of.lost.items()]
    _write_validation(spark, settings, rows, days, sorted({one.kind.name for one in changed}))
    return catalogue.job_counts(counted)


def _job_counts(counted: ByDay) -> dict[str, int]:
    """The job's counts: outcomes summed over all days, and the reasons that occur."""
    total = {
        name: number
        for name in (CLEAN, REPEAT, BLANK, *REASONS)
        if (number := sum(of.outcomes.get(name, 0) for of in counted.values()))
    }
    twice: dict[str, int] = {}
    for of in counted.values():
        for field, number in of.keys_twice.items():
            twice[field] = twice.get(field, 0) + number
    return {
        "rows": sum(total.values()),
        "clean": total.pop(CLEAN, 0),
        "quarantined": quarantined(total),
        "repeats": total.pop(REPEAT, 0),
        "blank": total.pop(BLANK, 0),
        "days": len(counted),
        **total,
        **{f"{field}_{catalogue.KEY_TWICE}": n for field, n in twice.items()},
    }
