"""Raw events are believed or not: the job `validate_logs`.

Every row of the raw log ends in exactly one place, and is counted there in the table
`validation`: clean (table `events`), quarantined with the first reason that holds (table
`quarantine`), a repeat of an event already seen, or blank.

**Reasons**, in the order in which they are looked for: wrong_encoding (no UTF-8), not_json,
bad_context (no object), missing_<field> (lacking, null or empty), unknown_event_type, bad_time
(neither ISO 8601 nor milliseconds), outside_day (further from the day of its folder than
`validation.late_hours`), bad_position (no whole number from 0), id_too_long.

**Repeats.** Of events with one id in a day's folder the earliest is kept; if several are of that
time, the first by their content. Where late events are tolerated, an event whose id was kept in
the folder of the day before is a repeat too. What is quarantined is no event and repeats nothing.

**Which days.** The run date, always anew, and every other day of its windows that is not in
`validation` yet, all in one go: one read, one shuffle by event id, one aggregate. The shuffle
brings the repeats together; what it leaves is kept until it is written, so that nothing is read
or shuffled again. It goes by day instead where there are more days than partitions, or each
partition would write a file of a few rows for each day. `validation` is written last: what a
killed run has left is done again.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import re
from collections.abc import Iterator, Mapping, Sequence

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Observation, SparkSession, Window
from pyspark.sql import functions as F

from mfn import tables
from mfn.job import Counts, DataRefused
from mfn.logs import raw
from mfn.logs.raw import BLANK, DAY, UNREADABLE
from mfn.schema import EVENTS, QUARANTINE, RAW_EVENT, VALIDATION
from mfn.settings import Settings
from mfn.splits.windows import windows

log = logging.getLogger("mfn")

CLEAN, REPEAT = "clean", "repeat"
EVENT_TYPES = ("impression", "click", "cart", "purchase")
REQUIRED = ("event_id", "event_time", "user_id", "event_type", "item_id")
IDS = ("event_id", "user_id", "item_id", "request_id")
REASONS = (
    *UNREADABLE,
    *(f"missing_{name}" for name in REQUIRED),
    "unknown_event_type",
    "bad_time",
    "outside_day",
    "bad_position",
    "id_too_long",
)
"""Why a row goes to quarantine, in the order in which the reasons are looked for."""

OutcomesOfDay = Mapping[str, int]
"""Rows of a day by outcome: clean, repeat, blank, or one of REASONS; those that occur."""

_DATE_TIME = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d"
_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
_MILLISECONDS = r"^-?\d{1,14}$"
_UNREADABLE_FILE = re.compile(
    r"\[(FAILED_READ_FILE|CANNOT_READ_FILE_FOOTER|CANNOT_MERGE_SCHEMAS)[^\]]*\].*"
)
_EXAMPLE_LENGTH = 200


def validate_logs(spark: SparkSession, settings: Settings) -> Counts:
    """Check raw events: clean ones to the table events, bad ones to quarantine, all counted.

    Raises:
        DataRefused: a day has no folder, an unfinished folder without rows, a file that cannot be
            read, or too large a share of bad rows. Then no table is changed.
    """
    folder = settings.logs_folder("events")
    validated = _validated_days(spark, settings)
    span = windows(settings.date, settings.windows).days
    days = [day for day in span if day == settings.date or day not in validated]
    found = raw.day_folders(folder, days)
    lines = Observation()
    with _readable(folder):
        rows = judge(raw.read_events(spark, folder, found), settings)
        rows = rows.observe(lines, F.count("*").alias("lines"))
        before = _kept_before(spark, settings, days, validated)
        outcomes = mark_repeats(rows, before, _by_day(settings, days)).persist()
        try:
            counts = _count(outcomes, days)
            _refuse_unless_all_counted(counts, lines, rows, found)
            _refuse_empty_days(counts, found)
            _refuse_bad_days(counts, outcomes, found, settings)
            _write(spark, settings, outcomes, counts)
        finally:
            outcomes.unpersist()
    return _account(counts)


# Pure functions over frames.


def judge(rows: DataFrame, settings: Settings) -> DataFrame:
    """RAW_ROWS to events and reasons: the columns of `events`, `reason`, `source_file`, `raw`.

    For an event `reason`, `source_file` and `raw` are null, for anything else the event's columns:
    no more is carried on than is needed.
    """
    checks = settings.validation
    times = rows.withColumn("time", parse_time(F.col("event_time"), settings.logs.time_zone))
    zone, late = settings.logs.day_time_zone, round(checks.late_hours * 3600)
    tolerance = F.expr(f"interval {late} seconds")
    day_before, day_after = (
        F.to_date(F.from_utc_timestamp(time, zone))
        for time in (F.col("time") - tolerance, F.col("time") + tolerance)
    )
    place = _given("position")
    holds = [
        *((F.col("fault") == fault, fault) for fault in (BLANK, *UNREADABLE)),
        *((_given(name).isNull(), f"missing_{name}") for name in REQUIRED),
        (~F.col("event_type").isin(*EVENT_TYPES), "unknown_event_type"),
        (F.col("time").isNull(), "bad_time"),
        ((day_before > F.col(DAY)) | (day_after < F.col(DAY)), "outside_day"),
        (~place.rlike(r"^\d{1,9}(\.0+)?$"), "bad_position"),
        (
            F.greatest(*(F.coalesce(F.length(name), F.lit(0)) for name in IDS)) > checks.id_length,
            "id_too_long",
        ),
    ]
    reason = F.lit(None).cast("string")
    for fails, name in reversed(holds):
        reason = F.when(fails, name).otherwise(reason)
    event = {
        **{name: F.col(name) for name in RAW_EVENT.names},
        "event_time": F.col("time"),
        "request_id": _given("request_id"),
        "position": F.substring_index(place, ".", 1).cast("int"),
    }
    is_event = F.col("reason").isNull()
    return times.withColumn("reason", reason).select(
        DAY,
        "reason",
        *(F.when(~is_event, F.col(name)).alias(name) for name in ("source_file", "raw")),
        *(F.when(is_event, column).alias(name) for name, column in event.items()),
    )


def parse_time(text: Column, zone: str) -> Column:
    """A time as ISO 8601 or as milliseconds since 1970; null if it is neither.

    zone: of a time that names none itself.
    """
    text = F.trim(text)
    with_seconds = F.when(text.rlike(rf"{_DATE_TIME}:\d\d(\.\d{{1,9}})?(Z|[+-]|$)"), text).when(
        text.rlike(f"{_DATE_TIME}(Z|[+-]|$)"),
        F.concat(F.substring(text, 1, 16), F.lit(":00"), F.substring(text, 17, 6)),
    )
    time = with_seconds.try_cast("timestamp")
    return (
        F.when(text.rlike(_MILLISECONDS), F.timestamp_millis(text.try_cast("bigint")))
        .when(text.rlike(_ZONE), time)
        .otherwise(F.to_utc_timestamp(time, zone))
    )


def mark_repeats(rows: DataFrame, before: DataFrame | None, by_day: bool) -> DataFrame:
    """Columns of `rows` with `outcome` for `reason`: the reason, clean or repeat.

    Args:
        rows: what `judge` gives.
        before: `dt` and `event_id` of events that were kept before in the days next to these;
            None if only events of one folder can repeat one another.
        by_day: shuffle by day instead of by event.
    """
    # What is no event has no id: a number of its own keeps it from crowding into one partition.
    key = F.when(F.col("reason").isNull(), F.xxhash64("event_id")).otherwise(
        F.monotonically_increasing_id()
    )
    rows = rows.withColumn("key", key).withColumn("kept_before", F.lit(False))
    same = ["key", "event_id"]
    if before is None:
        same.append(DAY)
    else:
        known = before.select(DAY, "event_id", F.xxhash64("event_id").alias("key"))
        known = known.withColumn("kept_before", F.lit(True))
        rows = rows.unionByName(known, allowMissingColumns=True)
    if by_day and before is None:
        rows = rows.repartition(DAY)
    content = ("event_time", "user_id", "event_type", "item_id", "request_id", "position")
    order = Window.partitionBy(*same).orderBy(
        DAY, *content, F.map_keys("context"), F.map_values("context")
    )
    # Days since the previous event of this id: none if it is the first, 0 in the same folder.
    rows = rows.withColumn("gap", F.datediff(DAY, F.lag(DAY).over(order)))
    repeats = F.col("gap").isNotNull()
    if before is not None:
        # An id in the folders of several days in a row: the first is kept, the second repeats
        # it, the third has none kept the day before, and so on.
        first = F.col("kept_before") | F.col("gap").isNull() | (F.col("gap") > 1)
        so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
        since = F.last(F.when(first, F.col(DAY)), ignorenulls=True).over(so_far)
        rows = rows.withColumn("since", since).where(~F.col("kept_before"))
        same_day = F.coalesce(F.col("gap") == 0, F.lit(False))
        repeats = same_day | (F.datediff(DAY, "since") % 2 == 1)
    is_event = F.col("reason").isNull()
    outcome = F.when(~is_event, F.col("reason")).when(repeats, REPEAT).otherwise(CLEAN)
    return rows.select(DAY, outcome.alias("outcome"), "source_file", "raw", *RAW_EVENT.names)


def _given(name: str) -> Column:
    """A field's text; null if it is empty."""
    return F.when(F.trim(name) != "", F.col(name))


# What is read and written around them.


def _validated_days(spark: SparkSession, settings: Settings) -> set[datetime.date]:
    if not tables.is_there(spark, settings.root, VALIDATION):
        return set()
    rows = tables.read(spark, settings.root, VALIDATION, "validate_logs").select("run_date")
    return {row["run_date"] for row in rows.distinct().collect()}


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
    return events.where(F.col(DAY).isin(known)).select(DAY, "event_id")


def _by_day(settings: Settings, days: Sequence[datetime.date]) -> bool:
    return len(days) >= settings.spark.shuffle_partitions


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


def _count(
    outcomes: DataFrame, days: Sequence[datetime.date]
) -> dict[datetime.date, OutcomesOfDay]:
    counts: dict[datetime.date, dict[str, int]] = {day: {} for day in days}
    for row in outcomes.groupBy(DAY, "outcome").agg(F.count("*").alias("rows")).collect():
        counts[row[DAY]][row["outcome"]] = row["rows"]
    return {
        day: {name: of[name] for name in (CLEAN, REPEAT, BLANK, *REASONS) if name in of}
        for day, of in counts.items()
    }


def _refuse_unless_all_counted(
    counts: Mapping[datetime.date, OutcomesOfDay],
    lines: Observation,
    rows: DataFrame,
    folders: Sequence[raw.DayFolder],
) -> None:
    """Nothing may be lost or doubled between the reading and the counting."""
    counted = sum(sum(of.values()) for of in counts.values())
    # Where there are no rows at all, Spark may leave out the observation, and never answer.
    if counted and counted == lines.get["lines"]:
        return
    # A task that Spark ran twice, its first results having been lost, has told its lines twice.
    read = rows.count()
    if counted != read:
        raise DataRefused(
            f"{folders[0].path} to {folders[-1].path}: expected an outcome for each of {read} "
            f"rows, got {counted}; were the files changed meanwhile? Run the job again"
        )


def _refuse_empty_days(
    counts: Mapping[datetime.date, OutcomesOfDay], folders: Sequence[raw.DayFolder]
) -> None:
    lacking = [one for one in folders if not sum(counts[one.day].values()) and not one.finished]
    if lacking:
        raise DataRefused("\n".join(f"{one.day}: {raw.empty(one)}" for one in lacking))


def _refuse_bad_days(
    counts: Mapping[datetime.date, OutcomesOfDay],
    outcomes: DataFrame,
    folders: Sequence[raw.DayFolder],
    settings: Settings,
) -> None:
    """The gate: too large a share of bad rows stops the day."""
    limit = settings.validation.quarantined_share
    bad = [one for one in folders if quarantined_share(counts[one.day]) > limit]
    if not bad:
        return
    problems = [_bad_day(one, counts[one.day], limit) for one in bad]
    worst = max(bad, key=lambda one: quarantined_share(counts[one.day]))
    reason = _largest(counts[worst.day])[0]
    like_it = (F.col(DAY) == worst.day) & (F.col("outcome") == reason)
    example = outcomes.where(like_it).orderBy("source_file", "raw").first()
    if example is not None:
        text = example["raw"]
        shown = text if len(text) <= _EXAMPLE_LENGTH else f"{text[:_EXAMPLE_LENGTH]} …"
        problems.append(f"an example of {reason}, in {example['source_file']}: {shown}")
    raise DataRefused(
        "\n".join(
            [
                *problems,
                "nothing was published; repair the log and run the job again, or, if such rows "
                "may be left out, raise validation.quarantined_share",
            ]
        )
    )


def quarantined(counts: OutcomesOfDay) -> int:
    """Rows that go to quarantine."""
    return sum(counts.get(reason, 0) for reason in REASONS)


def quarantined_share(counts: OutcomesOfDay) -> float:
    """Share of quarantined rows in all that are not blank; 0 where there are none."""
    rows = sum(counts.values()) - counts.get(BLANK, 0)
    return quarantined(counts) / rows if rows else 0.0


def _largest(counts: OutcomesOfDay) -> list[str]:
    return sorted((name for name in REASONS if name in counts), key=lambda name: -counts[name])


def _bad_day(folder: raw.DayFolder, counts: OutcomesOfDay, limit: float) -> str:
    reasons = ", ".join(f"{name} {counts[name]}" for name in _largest(counts)[:5])
    rows = sum(counts.values()) - counts.get(BLANK, 0)
    return (
        f"{folder.day}: expected at most {limit:.4%} of the rows in {folder.path} to be bad "
        f"(validation.quarantined_share), got {quarantined_share(counts):.4%}, "
        f"{quarantined(counts)} of {rows}: {reasons}"
    )


def _write(
    spark: SparkSession,
    settings: Settings,
    outcomes: DataFrame,
    counts: Mapping[datetime.date, OutcomesOfDay],
) -> None:
    days = sorted(counts)
    events = outcomes.where(F.col("outcome") == CLEAN).select(*EVENTS.columns.names)
    tables.replace(events, settings.root, EVENTS, {DAY: days})
    bad = outcomes.where(F.col("outcome").isin(*REASONS)).withColumnRenamed("outcome", "reason")
    bad = bad.select(*QUARANTINE.columns.names)
    tables.replace(bad, settings.root, QUARANTINE, {DAY: days})
    rows = [
        (day, "events", outcome, number)
        for day, of in counts.items()
        for outcome, number in {CLEAN: 0, REPEAT: 0, BLANK: 0, **of}.items()
    ]
    validation = spark.createDataFrame(rows, VALIDATION.columns).coalesce(1)
    tables.replace(validation, settings.root, VALIDATION, {"run_date": days})


def _account(counts: Mapping[datetime.date, OutcomesOfDay]) -> dict[str, int]:
    """The job's counts: outcomes over all days, and the reasons that occur."""
    total = {
        name: number
        for name in (CLEAN, REPEAT, BLANK, *REASONS)
        if (number := sum(of.get(name, 0) for of in counts.values()))
    }
    return {
        "rows": sum(total.values()),
        "clean": total.pop(CLEAN, 0),
        "quarantined": quarantined(total),
        "repeats": total.pop(REPEAT, 0),
        "blank": total.pop(BLANK, 0),
        "days": len(counts),
        **total,
    }
