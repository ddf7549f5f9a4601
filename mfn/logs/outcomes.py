"""What becomes of each row of the raw log: pure functions from rows to outcomes.

**Reasons** for quarantine, in the order in which they are looked for: wrong_encoding (no UTF-8),
truncated_line (begins as an object and does not end as one), not_json, bad_context (no object),
missing_<field> (lacking, null or empty; missing_item_id is an action without item),
unknown_event_type, bad_time (neither ISO 8601 nor milliseconds), outside_day (further before the
day of its folder than `validation.late_hours`), future_time (further after it than
`validation.early_minutes`), bad_position (no whole number from 0), id_too_long, too_many_events
(of a user who had `validation.max_user_events` events in that folder before it: a bot).

What is late or of the future is told by the folder's day, not by a clock, and what makes a bot by
the events before: the same log has the same outcomes whenever it is looked at.

**Repeats.** Of events with one id in a day's folder the earliest is kept; if several are of that
time, the first by their content. Where late events are tolerated, an event whose id was kept in
the folder of the day before is a repeat too. What is quarantined for itself is no event and
repeats nothing; a bot's events can be repeated like others'.

An item that the catalogue lacks is no error: it is an unknown item, and `build_splits` counts it.

Shuffles: one of hashed event ids alone, to find those that come more than once, and one of these
events; one of users and counts alone, to find the users with too many events, and one of these
users' events. All other events stay in the partition that they were read in.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from mfn.logs.raw import BLANK, DAY, UNREADABLE
from mfn.schema import RAW_EVENT
from mfn.settings import Settings

CLEAN, REPEAT = "clean", "repeat"
EVENT_TYPES = ("impression", "click", "cart", "purchase")
REQUIRED = ("event_id", "event_time", "user_id", "event_type", "item_id")
IDS = ("event_id", "user_id", "item_id", "request_id")
TOO_MANY_EVENTS = "too_many_events"
REASONS = (
    *UNREADABLE,
    *(f"missing_{name}" for name in REQUIRED),
    "unknown_event_type",
    "bad_time",
    "outside_day",
    "future_time",
    "bad_position",
    "id_too_long",
    TOO_MANY_EVENTS,
)
"""Why a row goes to quarantine, in the order in which the reasons are looked for."""

_DATE_TIME = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d"
_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
_USUAL = rf"{_DATE_TIME}:\d\d(\.\d{{1,9}})?Z$"
_MILLISECONDS = r"^-?\d{1,14}$"


def judge(rows: DataFrame, settings: Settings) -> DataFrame:
    """RAW_ROWS to events and reasons: the columns of `events`, `reason`, `source_file`, `raw`.

    `reason` is null for an event, and so is `raw`; for anything else the event's columns are: no
    more is carried on than is needed.
    """
    checks = settings.validation
    times = rows.withColumn("time", parse_time(F.col("event_time"), settings.logs.time_zone))
    zone = settings.logs.day_time_zone

    def day(seconds: float) -> Column:
        """Of the event's time, moved by so much."""
        moved = F.col("time") + F.expr(f"interval {round(seconds)} seconds")
        time = moved if seconds else F.col("time")
        return F.to_date(time if zone == "UTC" else F.from_utc_timestamp(time, zone))

    place = _given("position")
    longest = F.greatest(*(F.coalesce(F.length(name), F.lit(0)) for name in IDS))
    holds = [
        *((F.col("fault") == fault, fault) for fault in (BLANK, *UNREADABLE)),
        *((_given(name).isNull(), f"missing_{name}") for name in REQUIRED),
        (~F.col("event_type").isin(*EVENT_TYPES), "unknown_event_type"),
        (F.col("time").isNull(), "bad_time"),
        (day(checks.late_hours * 3600) < F.col(DAY), "outside_day"),
        (day(-checks.early_minutes * 60) > F.col(DAY), "future_time"),
        (~place.rlike(r"^\d{1,9}(\.0+)?$"), "bad_position"),
        (longest > checks.max_id_length, "id_too_long"),
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
        "source_file",
        F.when(~is_event, F.col("raw")).alias("raw"),
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
    # Nearly all times are of the first form: one pattern tells, where four would be tried.
    return (
        F.when(text.rlike(_USUAL), text.try_cast("timestamp"))
        .when(text.rlike(_MILLISECONDS), F.timestamp_millis(text.try_cast("bigint")))
        .when(text.rlike(_ZONE), time)
        .otherwise(F.to_utc_timestamp(time, zone))
    )


def repeated_ids(rows: DataFrame, before: DataFrame | None) -> DataFrame:
    """Ids that come more than once, as `key` (a hash, so that a few others are among them).

    Args:
        rows: what `judge` gives.
        before: as `mark_repeats` has it.

    Returns:
        key, and dt where only events of one folder can repeat one another.
    """
    key = F.xxhash64("event_id").alias("key")
    events = rows.where(F.col("reason").isNull()).select(DAY, key)
    if before is None:
        counted = events.groupBy(DAY, "key")
    else:
        counted = events.unionByName(before.select(DAY, key)).groupBy("key")
    ids = counted.agg(F.count("*").alias("rows")).where(F.col("rows") > 1)
    return ids.drop("rows")


def mark_repeats(rows: DataFrame, repeated: DataFrame, before: DataFrame | None) -> DataFrame:
    """Columns of `rows` with `outcome` for `reason`: the reason, clean or repeat.

    Args:
        rows: what `judge` gives.
        repeated: what `repeated_ids` gives.
        before: `dt` and `event_id` of events that were kept before in the days next to these;
            None if only events of one folder can repeat one another.
    """
    rows = rows.withColumn(
        "key", F.when(F.col("reason").isNull(), F.xxhash64("event_id"))
    ).withColumn("kept_before", F.lit(False))
    names = [DAY, "outcome", "source_file", "raw", *RAW_EVENT.names]
    seldom = rows.join(repeated, repeated.columns, how="left_anti")
    seldom = seldom.withColumn("outcome", F.coalesce("reason", F.lit(CLEAN))).select(*names)
    rows = rows.join(repeated, repeated.columns, how="left_semi")
    same = ["key", "event_id"]
    if before is None:
        same.append(DAY)
    else:
        known = before.select(DAY, "event_id", F.xxhash64("event_id").alias("key"))
        known = known.withColumn("kept_before", F.lit(True))
        rows = rows.unionByName(known, allowMissingColumns=True)
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
    outcome = F.when(repeats, REPEAT).otherwise(CLEAN)
    return seldom.unionByName(rows.withColumn("outcome", outcome).select(*names))


def last_allowed(outcomes: DataFrame, user_events: int) -> DataFrame:
    """The last event of a day's folder that each user with more than `user_events` may have.

    A row a user with too many events, so at most one for so many events of the log.

    Args:
        outcomes: as `mark_repeats` gives them.

    Returns:
        dt, user_id, last_time, last_id.
    """
    clean = outcomes.where(F.col("outcome") == CLEAN)
    busy = clean.groupBy(DAY, "user_id").agg(F.count("*").alias("events"))
    busy = busy.where(F.col("events") > user_events).select(DAY, "user_id")
    so_far = Window.partitionBy(DAY, "user_id").orderBy("event_time", "event_id")
    return (
        clean.select(DAY, "user_id", "event_time", "event_id")
        .join(F.broadcast(busy), [DAY, "user_id"], how="left_semi")
        .withColumn("place", F.row_number().over(so_far))
        .where(F.col("place") == user_events)
        .select(
            DAY,
            "user_id",
            F.col("event_time").alias("last_time"),
            F.col("event_id").alias("last_id"),
        )
    )


def limit_users(outcomes: DataFrame, last: DataFrame) -> DataFrame:
    """`outcomes` with events after a user's last allowed one as too_many_events.

    Their `raw` is the event as JSON, which can be delivered again as it is.

    Args:
        outcomes: as `mark_repeats` gives them.
        last: as `last_allowed` gives it.
    """
    # Structs compare where they hold nulls, too: of users without a limit there are only such.
    after = F.struct("event_time", "event_id") > F.struct("last_time", "last_id")
    too_many = (F.col("outcome") == CLEAN) & F.col("last_id").isNotNull() & after
    text = {
        **{name: F.col(name) for name in RAW_EVENT.names},
        "event_time": F.date_format("event_time", "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'"),
    }
    as_json = F.to_json(F.struct(*(column.alias(name) for name, column in text.items())))
    return outcomes.join(F.broadcast(last), [DAY, "user_id"], how="left").select(
        DAY,
        F.when(too_many, TOO_MANY_EVENTS).otherwise(F.col("outcome")).alias("outcome"),
        "source_file",
        F.when(too_many, as_json).otherwise(F.col("raw")).alias("raw"),
        *RAW_EVENT.names,
    )


def _given(name: str) -> Column:
    """A field's text; null if it is empty."""
    return F.when(F.trim(name) != "", F.col(name))
