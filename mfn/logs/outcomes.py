"""The outcome of each row of the raw log: pure functions from rows to outcomes.

**Reasons** for quarantine, in the order in which they are checked: wrong_encoding (not UTF-8),
truncated_line (begins like an object but does not end like one), not_json, bad_context (not an
object), nested_id (an id is a list or an object), missing_<field> (absent, null or blank),
unknown_event_type, bad_time (neither ISO 8601 nor milliseconds), outside_day (more than
`validation.late_hours` before the day of its folder), future_time (more than
`validation.early_minutes` after that day), bad_position (not a whole number from 0), id_too_long,
too_many_events (its user already had `validation.max_user_events` events in that folder: a bot).

Times are compared with the folder's day, not with a clock, and a bot is found by its events in the
folder. So the same log always gives the same outcomes.

**Repeats.** Of several events with the same id in a day's folder, the earliest is kept; if several
have that time, the first by content. If late events are allowed, an event is also a repeat if its
id was kept in the folder of the day before. A quarantined row is no event, so it is no repeat and
nothing repeats it; the exception is a bot's events, which can be repeated.

An item that is not in the catalogue is no error: it is an unknown item, and `build_splits` counts
it.

Shuffles: one of hashed event ids, to find ids that occur more than once; one of the events with
these ids; one of users and their counts, to find users with too many events; and one of the events
of these users. All other events stay in the partition they were read in.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from mfn.logs.raw import BLANK, DAY, IDS, UNREADABLE
from mfn.schema import RAW_EVENT
from mfn.settings import Settings

CLEAN, REPEAT = "clean", "repeat"
EVENT_TYPES = ("impression", "click", "cart", "purchase")
REQUIRED = ("event_id", "event_time", "user_id", "event_type", "item_id")
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
"""Why a row goes to quarantine, in the order in which the reasons are checked."""

_DATE = r"^\d{4}-\d\d-\d\d$"
_DATE_TIME = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d"
_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
_USUAL = rf"{_DATE_TIME}:\d\d(\.\d{{1,9}})?Z$"
_MILLISECONDS = r"^-?\d{1,14}$"


def judge(rows: DataFrame, settings: Settings) -> DataFrame:
    """Give each row of RAW_ROWS the reason why it is bad, or parse it as an event.

    Returns:
        dt, reason, source_file, raw, twice, and RAW_EVENT's columns. For a good event `reason` and
        `raw` are null; for any other row `twice` and the event's columns are null, to shuffle and
        cache less.
    """
    checks = settings.validation
    times = rows.withColumn("time", parse_time(F.col("event_time"), settings.logs.time_zone))
    zone = settings.logs.day_time_zone

    def day(seconds: float) -> Column:
        """Day of the event's time plus `seconds`, in the zone of days."""
        moved = F.col("time") + F.expr(f"interval {round(seconds)} seconds")
        time = moved if seconds else F.col("time")
        return F.to_date(time if zone == "UTC" else F.from_utc_timestamp(time, zone))

    longest = F.greatest(*(F.coalesce(F.length(name), F.lit(0)) for name in IDS))
    # Conditions and their reasons; the first condition that holds gives the reason.
    checked = [
        *((F.col("fault") == fault, fault) for fault in (BLANK, *UNREADABLE)),
        *((F.col(name).isNull(), f"missing_{name}") for name in REQUIRED),
        (~F.col("event_type").isin(*EVENT_TYPES), "unknown_event_type"),
        (F.col("time").isNull(), "bad_time"),
        (day(checks.late_hours * 3600) < F.col(DAY), "outside_day"),
        (day(-checks.early_minutes * 60) > F.col(DAY), "future_time"),
        (~F.col("position").rlike(r"^\d{1,9}$"), "bad_position"),
        (longest > checks.max_id_length, "id_too_long"),
    ]
    # One flat CASE: nested ones take the optimizer three times as long.
    (first, of_first), *rest = checked
    reason = F.when(first, of_first)
    for fails, name in rest:
        reason = reason.when(fails, name)
    event = {
        **{name: F.col(name) for name in RAW_EVENT.names},
        "event_time": F.col("time"),
        "position": F.col("position").cast("int"),
    }
    is_event = F.col("reason").isNull()
    return times.withColumn("reason", reason).select(
        DAY,
        "reason",
        "source_file",
        F.when(~is_event, F.col("raw")).alias("raw"),
        F.when(is_event, F.col("twice")).alias("twice"),
        *(F.when(is_event, column).alias(name) for name, column in event.items()),
    )


def parse_time(text: Column, zone: str) -> Column:
    """Parse a time in ISO 8601 or in milliseconds since 1970; null if it is neither.

    A date is its midnight.

    Args:
        zone: time zone of times that do not contain one.
    """
    text = F.trim(text)
    with_seconds = F.when(text.rlike(rf"{_DATE_TIME}:\d\d(\.\d{{1,9}})?(Z|[+-]|$)"), text).when(
        text.rlike(f"{_DATE_TIME}(Z|[+-]|$)"),
        F.concat(F.substring(text, 1, 16), F.lit(":00"), F.substring(text, 17, 6)),
    )
    time = with_seconds.try_cast("timestamp")
    # Nearly all times have the first form: then one pattern is matched instead of four.
    return (
        F.when(text.rlike(_USUAL), text.try_cast("timestamp"))
        .when(text.rlike(_MILLISECONDS), F.timestamp_millis(text.try_cast("bigint")))
        .when(text.rlike(_DATE), F.to_utc_timestamp(text.try_cast("timestamp"), zone))
        .when(text.rlike(_ZONE), time)
        .otherwise(F.to_utc_timestamp(time, zone))
    )


def repeated_ids(rows: DataFrame, before: DataFrame | None) -> DataFrame:
    """Find ids that occur more than once.

    Args:
        rows: the result of `judge`.
        before: see `mark_repeats`.

    Returns:
        key, a hash of the id: hash collisions may add a few ids that occur once. Also dt, if only
        events of the same folder can be repeats of each other.
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
    """Replace `reason` by `outcome`: the reason, clean or repeat.

    Args:
        rows: the result of `judge`.
        repeated: the result of `repeated_ids`.
        before: `dt` and `event_id` of events that earlier runs kept, of the days before the days
            of `rows`; None if only events of the same folder can be repeats of each other.
    """
    rows = rows.withColumn(
        "key", F.when(F.col("reason").isNull(), F.xxhash64("event_id"))
    ).withColumn("kept_before", F.lit(False))
    names = [DAY, "outcome", "source_file", "raw", *RAW_EVENT.names]
    # Rows whose id occurs once: nothing to compare, and no shuffle.
    once = rows.join(repeated, repeated.columns, how="left_anti")
    once = once.withColumn("outcome", F.coalesce("reason", F.lit(CLEAN))).select(*names)
    # Rows whose id occurs more than once, together with the events that earlier runs kept.
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
    # Days since the previous event with this id: null for the first, 0 in the same folder.
    rows = rows.withColumn("gap", F.datediff(DAY, F.lag(DAY).over(order)))
    repeats = F.col("gap").isNotNull()
    if before is not None:
        # An id may be in the folders of several consecutive days. The first day's event is kept;
        # the second day's is a repeat of it; for the third day, no event was kept on the day
        # before, so it is kept again; and so on. `since` is the first of these days.
        first = F.col("kept_before") | F.col("gap").isNull() | (F.col("gap") > 1)
        so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
        since = F.last(F.when(first, F.col(DAY)), ignorenulls=True).over(so_far)
        rows = rows.withColumn("since", since).where(~F.col("kept_before"))
        same_day = F.coalesce(F.col("gap") == 0, F.lit(False))
        repeats = same_day | (F.datediff(DAY, "since") % 2 == 1)
    outcome = F.when(repeats, REPEAT).otherwise(CLEAN)
    return once.unionByName(rows.withColumn("outcome", outcome).select(*names))


def last_allowed(outcomes: DataFrame, user_events: int) -> DataFrame:
    """Find the last allowed event, number `user_events`, of each user with more than that.

    One row for each day's folder and user with too many events, so at most one row for
    `user_events` events of the log: the result is small.

    Args:
        outcomes: the result of `mark_repeats`.

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
    """Set the outcome of events after a user's last allowed one to too_many_events.

    Their `raw` becomes the event as JSON, which can be delivered again unchanged.

    Args:
        outcomes: the result of `mark_repeats`.
        last: the result of `last_allowed`.
    """
    # Comparing structs never gives null. For users without a limit last_id is null, hence the test.
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
