"""Prepare clean events so that they can become requests: look up indices, group and sort by user.

This takes one shuffle, by user. Before that, `learn_buckets` reads the numeric fields of the
training window to find their buckets. If the rows of the items are too many to broadcast, looking
them up adds one shuffle by item id.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from mfn.indices import MISSING, UNKNOWN
from mfn.logs.raw import DAY
from mfn.settings import Settings, SplitSettings
from mfn.splits.buckets import Buckets, edges, rounded
from mfn.splits.items import row_on
from mfn.splits.requests import (
    CLICK,
    EVENTS_BY_USER,
    IMPRESSION,
    OTHER,
    PROFILE,
    SPLITS,
    RequestRules,
)
from mfn.windows import Windows, days_between

ONE_DAY = datetime.timedelta(days=1)
_MINUTE = 60_000_000


@dataclass(frozen=True)
class Span:
    """The time range of the events to read; times in microseconds since 1970.

    first: start of the first window, which may be the one for histories only.
    starts: start of each of SPLITS, and then the end of the run date.
    midnights: start of each day of SPLITS.
    attribution: length of the attribution window, in microseconds.
    last_folder: the run date. From later folders only clicks are read, for labels.
    """

    first: int
    starts: tuple[int, ...]
    midnights: tuple[int, ...]
    attribution: int
    last_folder: datetime.date

    @classmethod
    def of(cls, windows: Windows, settings: Settings) -> Span:
        """The span of these windows; a day starts at midnight in logs.day_time_zone."""
        zone = ZoneInfo(settings.logs.day_time_zone)
        days = [getattr(windows, split)[0] for split in SPLITS]
        return cls(
            midnight(windows.days[0], zone),
            tuple(midnight(day, zone) for day in [*days, settings.date + ONE_DAY]),
            tuple(midnight(day, zone) for day in days_between((days[0], settings.date))),
            settings.splits.attribution_minutes * _MINUTE,
            settings.date,
        )

    @property
    def end(self) -> int:
        """The end of the run date."""
        return self.starts[-1]

    @property
    def folders_ahead(self) -> datetime.date:
        """The last folder that can have clicks within the attribution window of a request."""
        days = -(-self.attribution // (24 * 60 * _MINUTE))
        return self.last_folder + days * ONE_DAY


@dataclass(frozen=True)
class EventSummary:
    """Statistics of the events, needed before they are processed.

    last_time: time of the latest event in folders after the run date; None if there is none.
    unnamed_clicks: number of clicks without request id.
    """

    last_time: int | None
    unnamed_clicks: int


def midnight(day: datetime.date, zone: ZoneInfo) -> int:
    """The start of a day in a time zone, in microseconds since 1970."""
    start = datetime.datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(start.timestamp()) * 1_000_000


def day_of(time_zone: str) -> Column:
    """The day from which an event counts as known: that of its folder, or of its time if later."""
    return F.greatest(F.col("dt"), F.to_date(F.from_utc_timestamp("event_time", time_zone)))


def summarize(events: DataFrame, span: Span) -> EventSummary:
    """One aggregate over the events of the windows' folders and the folders ahead."""
    later = F.col("dt") > span.last_folder
    unnamed = (F.col("event_type") == "click") & _request_id().isNull()
    found = events.agg(
        F.max(F.when(later, F.unix_micros("event_time"))), F.count_if(unnamed)
    ).first()
    assert found is not None
    return EventSummary(found[0], found[1])


def rules(span: Span, summary: EventSummary, listed_from: int, settings: Settings) -> RequestRules:
    """The rules for requests; events are known to the run date's end, or to a later event."""
    complete, chosen = span.end - 1, settings.splits
    return RequestRules(
        span.attribution,
        chosen.candidates,
        span.starts,
        span.midnights,
        listed_from,
        complete if summary.last_time is None else max(complete, summary.last_time),
        len(chosen.all_context_fields),
    )


def learn_buckets(
    events: DataFrame, users: DataFrame | None, span: Span, settings: Settings
) -> dict[str, Buckets]:
    """Quantile buckets of the numeric fields, from the data of the training window.

    These are the contexts of its impressions, and the profiles of snapshots up to its last day: a
    user counts once per snapshot. One aggregate over events and one over profiles, if there are
    numeric fields of theirs.

    Args:
        events: EVENTS' columns, of the windows' folders.
        users: RAW_USER's columns and dt; None if no field of the profile is used.
        span: of these events.
        settings: names the numeric fields and the number of buckets.

    Returns:
        Buckets by field name, such as context.seconds.
    """
    chosen = settings.splits
    first, end = (span.starts[SPLITS.index(name)] for name in ("train", "test"))
    time = F.unix_micros("event_time")
    shown = events.where((F.col("event_type") == "impression") & (time >= first) & (time < end))
    found = _learn(shown, "context", "context", chosen.context_numbers, chosen.number_buckets)
    if users is not None:
        known = users.where(F.unix_micros(_snapshot_begins(settings.logs.day_time_zone)) < end)
        found |= _learn(known, "profile", "user", chosen.user_numbers, chosen.number_buckets)
    return found


def _learn(
    frame: DataFrame, values: str, prefix: str, names: Sequence[str], count: int
) -> dict[str, Buckets]:
    if not names:
        return {}
    row = frame.agg(*(edges(rounded(_number(values, name)), count) for name in names)).first()
    assert row is not None
    return {
        f"{prefix}.{name}": Buckets.of(of_name, count)
        for name, of_name in zip(names, row, strict=True)
    }


def _number(values: str, name: str) -> Column:
    return F.col(values)[name].try_cast("double")


def indexed(
    events: DataFrame,
    items: DataFrame,
    entries: DataFrame,
    span: Span,
    settings: Settings,
    buckets: Mapping[str, Buckets],
) -> DataFrame:
    """EVENTS_BY_USER's columns of the events that affect a request row, in any order.

    Values that a kind of row does not need are null, so that the shuffle moves less data.

    Args:
        events: EVENTS' columns, of the windows' folders and the folders ahead.
        items: the rows of each item, from `items.rows_of_items`.
        entries: field, key, index of the vocabularies.
        span: of these events.
        settings: behaviours that enter histories, fields of the context, zone of the days.
        buckets: of the numeric fields.
    """
    # The item's row on the day of the event, and one attribution window earlier.
    chosen, zone = settings.splits, settings.logs.day_time_zone
    needed = _needed(events, span, chosen.behaviours)
    rows = needed.join(items, "item_id", how="left")

    def day_of_time(time: Column) -> Column:
        return F.to_date(F.from_utc_timestamp(F.timestamp_micros(time), zone))

    on_day = row_on(day_of_time(F.col("time")))
    before = row_on(day_of_time(F.col("time") - span.attribution))
    # Indices of the context's fields: from the vocabularies, then from the buckets.
    is_impression = F.col("kind") == IMPRESSION
    rows, indices = _look_up(rows, entries, "context", "context", chosen.context_fields)
    numbers = _bucket_indices(buckets, "context", "context", chosen.context_numbers)
    # Event ids order equal times, in histories and where the context of a request is chosen.
    with_context = bool(chosen.all_context_fields)
    ordered = F.col("behaviour") | (is_impression & F.lit(with_context))
    fields = F.array(*indices, *numbers).cast("array<int>")
    return rows.select(
        "user_id",
        "time",
        "kind",
        "behaviour",
        "named",
        "request",
        F.when(F.col("kind") != OTHER, F.col("item_id")).alias("item_id"),
        on_day.alias("item"),
        F.when(is_impression, before).alias("item_before"),
        F.when(is_impression, F.col("position")).alias("position"),
        F.when(ordered, F.col("event_id")).alias("event_id"),
        _kept_without_click(chosen).alias("spared"),
        F.when(is_impression, fields).otherwise(F.array().cast("array<int>")).alias("fields"),
    )


def _kept_without_click(chosen: SplitSettings) -> Column:
    """Whether a candidate without a click stays in training rows; decided by a hash."""
    if chosen.negative_sampling_rate == 1:
        return F.lit(True)
    parts = 1 << 20
    hashed = F.xxhash64(F.lit(chosen.seed), F.lit("negative"), "user_id", "request", "item_id")
    return F.pmod(hashed, F.lit(parts)) < round(chosen.negative_sampling_rate * parts)


def by_user(rows: DataFrame, span: Span, summary: EventSummary, partitions: int) -> DataFrame:
    """EVENTS_BY_USER, each user in one partition, sorted so that a request is one block of rows.

    Args:
        rows: EVENTS_BY_USER's columns.
        span, summary: of the events.
        partitions: number of partitions of the shuffle by user.
    """
    rows = rows.repartition(partitions, "user_id")
    if summary.unnamed_clicks:
        rows = _with_request_of_clicks(rows, span.attribution)
    # The hash is first because it is cheap to compare; as a column it is computed once per row.
    return (
        rows.withColumn("hash", F.xxhash64("user_id", "request"))
        .sortWithinPartitions(
            "hash",
            "user_id",
            "request",
            "named",
            "item_id",
            "time",
            "kind",
            F.col("position").asc_nulls_last(),
            "event_id",
        )
        .select(*EVENTS_BY_USER.names)
    )


def _snapshot_begins(time_zone: str) -> Column:
    """The time from which a snapshot counts as known: the start of its day."""
    return F.to_utc_timestamp(F.col(DAY).cast("timestamp"), time_zone)


def profiles(
    users: DataFrame,
    entries: DataFrame,
    chosen: SplitSettings,
    buckets: Mapping[str, Buckets],
    time_zone: str,
) -> DataFrame:
    """Profiles as EVENTS_BY_USER, each with the start of its snapshot's day as time.

    Args:
        users: RAW_USER's columns and dt.
        entries: field, key, index of the vocabularies.
        chosen: settings: fields of the profile.
        buckets: of the numeric fields.
        time_zone: in which days start at midnight.
    """
    start = F.unix_micros(_snapshot_begins(time_zone))
    rows = users.where(F.nullif(F.col("user_id"), F.lit("")).isNotNull())
    rows, indices = _look_up(rows, entries, "profile", "user", chosen.user_fields)
    indices += _bucket_indices(buckets, "profile", "user", chosen.user_numbers)
    return rows.select(
        "user_id",
        start.alias("time"),
        F.lit(PROFILE).cast("tinyint").alias("kind"),
        F.lit(False).alias("behaviour"),
        F.lit(False).alias("named"),
        F.lit(None).cast("string").alias("request"),
        F.lit(None).cast("string").alias("item_id"),
        F.lit(UNKNOWN).alias("item"),
        F.lit(None).cast("int").alias("item_before"),
        F.lit(None).cast("int").alias("position"),
        F.lit(None).cast("string").alias("event_id"),
        F.lit(True).alias("spared"),
        F.array(*indices).cast("array<int>").alias("fields"),
    )


def _request_id() -> Column:
    return F.nullif(F.col("request_id"), F.lit(""))


def _needed(events: DataFrame, span: Span, behaviours: Sequence[str]) -> DataFrame:
    """The events that affect a request row, with kind, behaviour, time, named and request added."""
    time = F.col("time")
    kind = (
        F.when(F.col("event_type") == "impression", IMPRESSION)
        .when(F.col("event_type") == "click", CLICK)
        .otherwise(OTHER)
    )
    on_time = F.col("dt") <= span.last_folder
    # An attribution window earlier than the first split: a request that starts there and has more
    # impressions in the split does not belong to the split.
    around = time >= span.starts[0] - span.attribution
    impression = (F.col("kind") == IMPRESSION) & on_time & around & (time < span.end)
    click = (F.col("kind") == CLICK) & around & (time < span.end + span.attribution + 1)
    behaviour = (
        F.col("event_type").isin(*behaviours) & on_time & (time >= span.first) & (time < span.end)
    )
    return (
        events.withColumn("time", F.unix_micros("event_time"))
        .withColumn("kind", kind.cast("tinyint"))
        .withColumn("behaviour", behaviour)
        .where(impression | click | F.col("behaviour"))
        .withColumn("named", _request_id().isNotNull())
        .withColumn(
            "request",
            F.coalesce(_request_id(), F.when(F.col("kind") == IMPRESSION, F.col("event_id"))),
        )
    )


def _look_up(
    frame: DataFrame, entries: DataFrame, values: str, prefix: str, names: Sequence[str]
) -> tuple[DataFrame, list[Column]]:
    """Join the indices of some keys of the map `values`; returns the frame and these columns."""
    columns = []
    for place, name in enumerate(names):
        key, index = f"key_{place}", f"index_{place}"
        known = entries.where(F.col("field") == f"{prefix}.{name}").select(
            F.col("key").alias(key), F.col("index").alias(index)
        )
        frame = frame.withColumn(key, F.nullif(F.col(values)[name], F.lit("")))
        frame = frame.join(F.broadcast(known), key, how="left")
        missing = F.when(F.col(key).isNull(), MISSING).otherwise(UNKNOWN)
        columns.append(F.coalesce(F.col(index), missing))
    return frame, columns


def _bucket_indices(
    buckets: Mapping[str, Buckets], values: str, prefix: str, names: Iterable[str]
) -> list[Column]:
    return [buckets[f"{prefix}.{name}"].index(_number(values, name)) for name in names]


def _with_request_of_clicks(rows: DataFrame, attribution: int) -> DataFrame:
    """Give clicks without request id that of the nearest earlier impression of user and item."""
    nearest = F.last(
        F.when(F.col("kind") == IMPRESSION, F.struct("time", "named", "request")), ignorenulls=True
    ).over(
        Window.partitionBy("user_id", "item_id")
        .orderBy("time", "kind", "named", "request", "event_id")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    takes = (
        (F.col("kind") == CLICK)
        & F.col("request").isNull()
        & (F.col("time") - F.col("nearest.time") <= attribution)
    )
    return (
        rows.withColumn("nearest", nearest)
        .withColumn("takes", F.coalesce(takes, F.lit(False)))
        .withColumn(
            "named", F.when(F.col("takes"), F.col("nearest.named")).otherwise(F.col("named"))
        )
        .withColumn(
            "request", F.when(F.col("takes"), F.col("nearest.request")).otherwise(F.col("request"))
        )
        .select(*EVENTS_BY_USER.names)
    )
