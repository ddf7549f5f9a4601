"""Clean events, indexed and brought together by user: what requests and histories are made of.

One shuffle, by user; `learn_buckets` looks at the training window's numbers before. Looking up item
rows adds one by item id where the item vocabulary is too large to broadcast.
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
from mfn.splits.requests import (
    CLICK,
    EVENTS_BY_USER,
    IMPRESSION,
    OTHER,
    PROFILE,
    SPLITS,
    RequestRules,
)
from mfn.splits.vocabulary import ITEM
from mfn.windows import Windows

ONE_DAY = datetime.timedelta(days=1)
_MINUTE = 60_000_000


@dataclass(frozen=True)
class Span:
    """Moments that bound what is read, in microseconds since 1970.

    first: when the first window begins, which may only feed histories.
    starts: when each of SPLITS begins, and then the end of the run date.
    attribution: the attribution window.
    last_folder: the run date. Of later folders only clicks are read, for labels.
    """

    first: int
    starts: tuple[int, ...]
    attribution: int
    last_folder: datetime.date

    @classmethod
    def of(cls, windows: Windows, settings: Settings) -> Span:
        """The span of these windows, with days cut at midnight in logs.day_time_zone."""
        zone = ZoneInfo(settings.logs.day_time_zone)
        days = [getattr(windows, split)[0] for split in SPLITS]
        return cls(
            midnight(windows.days[0], zone),
            tuple(midnight(day, zone) for day in [*days, settings.date + ONE_DAY]),
            settings.splits.attribution_minutes * _MINUTE,
            settings.date,
        )

    @property
    def end(self) -> int:
        """The end of the run date."""
        return self.starts[-1]

    @property
    def folders_ahead(self) -> datetime.date:
        """The last folder that may hold clicks within the attribution window of a request."""
        days = -(-self.attribution // (24 * 60 * _MINUTE))
        return self.last_folder + days * ONE_DAY


@dataclass(frozen=True)
class Facts:
    """What one look at the events tells before they are worked on.

    last_moment: of the latest event in folders after the run date; None without such.
    unnamed_clicks: clicks that carry no request id.
    """

    last_moment: int | None
    unnamed_clicks: int


def midnight(day: datetime.date, zone: ZoneInfo) -> int:
    """Microseconds since 1970 at which a day begins in a time zone."""
    start = datetime.datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(start.timestamp()) * 1_000_000


def day_of(time_zone: str) -> Column:
    """The day by which an event counts as known: its folder's, or its own if that is later."""
    return F.greatest(F.col("dt"), F.to_date(F.from_utc_timestamp("event_time", time_zone)))


def facts(events: DataFrame, span: Span) -> Facts:
    """One aggregate over the events of the windows' folders and those ahead."""
    later = F.col("dt") > span.last_folder
    unnamed = (F.col("event_type") == "click") & _request_id().isNull()
    found = events.agg(
        F.max(F.when(later, F.unix_micros("event_time"))), F.count_if(unnamed)
    ).first()
    assert found is not None
    return Facts(found[0], found[1])


def rules(span: Span, seen: Facts, candidates: int, context_fields: int) -> RequestRules:
    """The rules for requests: events are complete to the run date's end, or further if seen."""
    complete = span.end - 1
    return RequestRules(
        span.attribution,
        candidates,
        span.starts,
        complete if seen.last_moment is None else max(complete, seen.last_moment),
        context_fields,
    )


def learn_buckets(
    events: DataFrame, users: DataFrame | None, span: Span, settings: Settings
) -> dict[str, Buckets]:
    """Quantile buckets of the fields that are numbers, from what the training window shows.

    That are the contexts of its impressions, and the profiles of snapshots up to its last day; a
    user counts once a snapshot. One aggregate of each, if there are such fields.

    Args:
        events: EVENTS' columns, of the windows' folders.
        users: RAW_USER's columns and dt; None where no field of the profile is used.
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
    entries: DataFrame,
    span: Span,
    chosen: SplitSettings,
    buckets: Mapping[str, Buckets],
) -> DataFrame:
    """EVENTS_BY_USER's columns of the events that bear on a row, in any order.

    What a kind of row does not need is null, to be cheap to move.

    Args:
        events: EVENTS' columns, of the windows' folders and those ahead.
        entries: field, key, index of the vocabularies.
        span: of these events.
        chosen: which behaviours enter histories, which fields of the context are used.
        buckets: of those that are numbers.
    """
    needed = _needed(events, span, chosen.behaviours)
    items = entries.where(F.col("field") == ITEM).select(
        F.col("key").alias("item_id"), F.col("index").alias("item")
    )
    rows = needed.join(items, "item_id", how="left")
    is_impression = F.col("kind") == IMPRESSION
    rows, indices = _look_up(rows, entries, "context", "context", chosen.context_fields)
    numbers = _bucket_indices(buckets, "context", "context", chosen.context_numbers)
    # Equal times are ordered by event id, in histories and where a request's context is chosen.
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
        F.coalesce("item", F.lit(UNKNOWN)).alias("item"),
        F.when(is_impression, F.col("position")).alias("position"),
        F.when(ordered, F.col("event_id")).alias("event_id"),
        _spared(chosen).alias("spared"),
        F.when(is_impression, fields).otherwise(F.array().cast("array<int>")).alias("fields"),
    )


def _spared(chosen: SplitSettings) -> Column:
    """Whether a candidate stays in a training row although nobody clicked on it."""
    if chosen.negative_sampling_rate == 1:
        return F.lit(True)
    parts = 1 << 20
    drawn = F.xxhash64(F.lit(chosen.seed), F.lit("negative"), "user_id", "request", "item_id")
    return F.pmod(drawn, F.lit(parts)) < round(chosen.negative_sampling_rate * parts)


def by_user(rows: DataFrame, span: Span, seen: Facts, partitions: int) -> DataFrame:
    """EVENTS_BY_USER, each user in one partition, sorted so that a request is a run of rows.

    Args:
        rows: EVENTS_BY_USER's columns.
        span, seen: of the events.
        partitions: of the shuffle by user.
    """
    rows = rows.repartition(partitions, "user_id")
    if seen.unnamed_clicks:
        rows = _named_clicks(rows, span.attribution)
    # The hash comes first because it is cheap to compare; as a column it is computed once a row.
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
    """The moment from which on a snapshot is known: the beginning of its day."""
    return F.to_utc_timestamp(F.col(DAY).cast("timestamp"), time_zone)


def profiles(
    users: DataFrame,
    entries: DataFrame,
    chosen: SplitSettings,
    buckets: Mapping[str, Buckets],
    time_zone: str,
) -> DataFrame:
    """Profiles as EVENTS_BY_USER, each known from the beginning of its snapshot's day.

    Args:
        users: RAW_USER's columns and dt.
        entries: field, key, index of the vocabularies.
        chosen: which fields of the profile are used.
        buckets: of those that are numbers.
        time_zone: in which the days are cut.
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
        F.lit(None).cast("int").alias("position"),
        F.lit(None).cast("string").alias("event_id"),
        F.lit(True).alias("spared"),
        F.array(*indices).cast("array<int>").alias("fields"),
    )


def _request_id() -> Column:
    return F.nullif(F.col("request_id"), F.lit(""))


def _needed(events: DataFrame, span: Span, behaviours: Sequence[str]) -> DataFrame:
    """The events that bear on a row: kind, behaviour, time and request beside their columns."""
    time = F.col("time")
    kind = (
        F.when(F.col("event_type") == "impression", IMPRESSION)
        .when(F.col("event_type") == "click", CLICK)
        .otherwise(OTHER)
    )
    on_time = F.col("dt") <= span.last_folder
    # Requests that begin just before the first window are needed to know that they do.
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
    """`frame` with the indices of some keys of its map `values` joined, and these columns."""
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


def _named_clicks(rows: DataFrame, attribution: int) -> DataFrame:
    """Clicks without request id take that of the nearest earlier impression of user and item."""
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
