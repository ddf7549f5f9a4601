"""Common code of the public data sets' sources: convert users' choices to a log of requests.

**Request.** A request holds all choices of one user at one moment. Its candidates are these
choices and negatives: items sampled for them that were not chosen (`mfn.sources.negatives`). Each
candidate gets an impression, and a chosen one also a click if the source says so. Positions on the
page are random and carry no information. Models compared on such candidates learn to distinguish
choices from this sampling distribution; evaluation states this next to every number.

**Snapshots** contain nothing of their own day. What a day's rows say about an item or a user is in
the snapshot of the next day, and only if it differs from the previous values.

Shuffles in addition to those of the negatives: by request to assign positions, and by day so that a
day is one file in a fixed order; `known` needs one by item, and `snapshots` two by item or user.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from mfn.errors import DataRefused
from mfn.logs.raw import DAY
from mfn.settings import Settings
from mfn.sources import negatives

REQUEST = ("dt", "user_id", "moment", "item_id")
"""Key of a choice: day, user, moment (seconds since 1970) and item."""

LAST_SECOND = 253_402_300_799
"""Last second of the year 9999."""

AFTER = {"impression": 0, "click": 1, "cart": 2, "purchase": 2}
"""Milliseconds between the moment of a request and an event, so that a click comes after its
impression and before the next request."""


def span(
    settings: Settings, first: datetime.date | None, last: datetime.date | None
) -> tuple[datetime.date, datetime.date]:
    """First and last day to write: the days of the data from `ingest.first_day` to the run date.

    Args:
        first, last: days of the data; None if there are no data.

    Raises:
        DataRefused: the data have no day in this range.
    """
    since, until = settings.ingest.first_day, settings.date
    if first is None or last is None or last < (since or first) or first > until:
        raise _no_rows(settings, first, last)
    return max(first, since or first), min(last, until)


def _no_rows(
    settings: Settings, first: datetime.date | None, last: datetime.date | None
) -> DataRefused:
    found = (
        "no row has a valid day"
        if first is None
        else f"the rows are of days from {first} to {last}"
    )
    return DataRefused(
        f"{settings.ingest.path}: expected rows of days from "
        f"{settings.ingest.first_day or 'the first one'} (ingest.first_day) to {settings.date} "
        f"(date), but {found}; choose other days"
    )


def day_and_moment(seconds: Column, day_time_zone: str) -> tuple[Column, Column]:
    """`dt` and `moment` from seconds since 1970; both null if that is no valid time."""
    moment = F.when(seconds.between(0, LAST_SECOND), seconds)
    day = F.to_date(F.from_utc_timestamp(F.timestamp_seconds(moment), day_time_zone))
    return day.alias(DAY), moment.alias("moment")


def day_range(rows: DataFrame, settings: Settings) -> tuple[datetime.date, datetime.date, int]:
    """First and last day to write, and the number of rows outside of the requested days.

    Args:
        rows: with `dt`, null if the row has no valid time.

    Raises:
        DataRefused: no row is of a day from `ingest.first_day` to the run date.
    """
    since, until = settings.ingest.first_day, settings.date
    inside = F.col(DAY) <= F.lit(until)
    if since is not None:
        inside &= F.col(DAY) >= F.lit(since)
    found = rows.agg(
        F.min(DAY).alias("first"),
        F.max(DAY).alias("last"),
        F.min(F.when(inside, F.col(DAY))).alias("first_inside"),
        F.max(F.when(inside, F.col(DAY))).alias("last_inside"),
        F.count_if(~inside).alias("outside"),
    ).first()
    assert found is not None
    if found["first_inside"] is None:
        raise _no_rows(settings, found["first"], found["last"])
    return found["first_inside"], found["last_inside"], found["outside"]


def within(rows: DataFrame, first: datetime.date, last: datetime.date) -> DataFrame:
    """Rows of these days; rows without a time get the first day."""
    day = F.coalesce(DAY, F.lit(first))
    return rows.withColumn(DAY, day).where(F.col(DAY).between(F.lit(first), F.lit(last)))


def non_empty(text: Column) -> Column:
    """A text; null if it is empty."""
    return F.when(text != "", text)


def all_present(*names: str) -> Column:
    """Whether none of these columns is null."""
    return reduce(Column.__and__, (F.col(name).isNotNull() for name in names))


def known(chosen: DataFrame) -> DataFrame:
    """Add the column `known`: whether anybody chose the item on an earlier day."""
    first = F.min("dt").over(Window.partitionBy("item_id"))
    return chosen.withColumn("known", first < F.col("dt"))


def candidates(
    chosen: DataFrame, per_choice: int, seed: int, candidate: str | None = None
) -> DataFrame:
    """Candidates of all requests: chosen items and sampled negatives.

    Args:
        chosen: REQUEST and `clicked`, one row for each choice.
        per_choice: negatives to sample for each chosen candidate.
        seed: of the sampling.
        candidate: boolean column that says which choices are candidates; None: all are. Other
            choices still count for popularity and as seen by their user.

    Returns:
        dt, user_id, moment, item_id, clicked, drawn (whether it is a sampled negative).
    """
    positives = chosen if candidate is None else chosen.where(candidate)
    positives = positives.select(*REQUEST, "clicked", F.lit(False).alias("drawn"))
    sampled = negatives.draw(chosen, per_choice, seed, candidate)
    return positives.unionByName(
        sampled.select(*REQUEST, F.lit(False).alias("clicked"), F.lit(True).alias("drawn"))
    )


def events(shown: DataFrame, seed: int) -> DataFrame:
    """Events of candidates: an impression of each, and a click on those that were clicked.

    Args:
        shown: the result of `candidates`.
        seed: of the random positions.

    Returns:
        dt and RAW_EVENT's columns except the context.
    """
    random_place = F.xxhash64(F.lit(seed), F.lit("place"), "user_id", "moment", "item_id")
    page = Window.partitionBy("user_id", "moment").orderBy(random_place, "item_id")
    kinds = F.when(F.col("clicked"), F.array(F.lit("impression"), F.lit("click"))).otherwise(
        F.array(F.lit("impression"))
    )
    return (
        shown.withColumn("request_id", request_id())
        .withColumn("position", F.row_number().over(page) - 1)
        .withColumn("event_type", F.explode(kinds))
        .select(
            "dt",
            event_id(F.col("event_type")).alias("event_id"),
            event_time(F.col("event_type")).alias("event_time"),
            "user_id",
            "event_type",
            "item_id",
            "request_id",
            "position",
        )
    )


def request_id() -> Column:
    """Request id of a choice."""
    return F.concat_ws("-", "user_id", "moment")


def event_id(event_type: Column) -> Column:
    """Event id of a choice; two rows about the same choice and type get the same id."""
    return F.concat_ws("-", request_id(), "item_id", event_type)


def event_time(event_type: Column) -> Column:
    """Time of a choice's event, as text in UTC."""
    after = F.lit(0)
    for name, milliseconds in AFTER.items():
        after = F.when(event_type == name, milliseconds).otherwise(after)
    time = F.timestamp_millis(F.col("moment") * 1000 + after)
    return F.date_format(time, "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")


def snapshots(facts: DataFrame, key: str, columns: Sequence[str], last: datetime.date) -> DataFrame:
    """Rows of each day's snapshot: keys that are new or whose values changed on the day before.

    Args:
        facts: `dt` (the day on which the values became known), `moment`, the key and `columns`. The
            latest moment of a day wins; of several rows of that moment, the greatest wins, so that
            the result is deterministic.
        key: item_id or user_id.
        last: day of the last snapshot; later ones are left to the next run.

    Returns:
        dt, the key and `columns`.
    """
    of_day = facts.groupBy(DAY, key).agg(F.max(F.struct("moment", *columns)).alias("latest"))
    values = F.struct(*(F.col(f"latest.{name}") for name in columns))
    before = F.lag("told").over(Window.partitionBy(key).orderBy(DAY))
    return (
        of_day.select(F.date_add(DAY, 1).alias(DAY), key, values.alias("told"))
        .withColumn("before", before)
        .where(~F.col("told").eqNullSafe(F.col("before")) & (F.col(DAY) <= F.lit(last)))
        .select(DAY, key, "told.*")
    )


def by_day(rows: DataFrame, *order: str) -> DataFrame:
    """Put each day into one partition, in a fixed order, so that its file is always the same.

    Rows that are equal in `order` are sorted by their content.
    """
    content = F.to_json(F.struct(*rows.columns))
    return rows.repartition(DAY).sortWithinPartitions(DAY, *order, content)


def counts(shown: DataFrame, per_choice: int) -> dict[str, int]:
    """Number of candidates, clicks and sampled negatives, and of negatives that are missing."""
    found = shown.agg(
        F.count("*").alias("candidates"),
        F.count_if("clicked").alias("clicks"),
        F.count_if("drawn").alias("drawn"),
    ).first()
    assert found is not None
    chosen = found["candidates"] - found["drawn"]
    return {
        "candidates": found["candidates"],
        "clicks": found["clicks"],
        "drawn_candidates": found["drawn"],
        "not_to_be_drawn": chosen * per_choice - found["drawn"],
    }
