"""From what was chosen to a log of requests: what the public data sets' sources have in common.

**Request.** What one user chose at one moment. Its candidates are those choices and, drawn beside
them by the law of `mfn.sources.negatives`, items that nobody chose there: an impression each, and a
click on the chosen ones where the source says so. The place on the page is drawn too, and says
nothing. Whoever compares models on such candidates should know that it is this law that they tell
choices from; evaluation says so beside every number.

**Snapshots** know nothing of their own day: what the rows of a day tell of an item or a user stands
in the snapshot of the next morning, and only if it differs from what was known before.

Shuffles beside those of the negatives: by request to place the candidates, by day so that a day
is one file in a fixed order; `known` takes one by item, and `snapshots` two by item or user.
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
"""What names a choice: the day, who, when (seconds since 1970), and what."""

LAST_SECOND = 253_402_300_799
"""Of the year 9999."""

AFTER = {"impression": 0, "click": 1, "cart": 2, "purchase": 2}
"""Milliseconds by which an event follows the moment of its request, so that a click comes after its
impression and before the next request."""


def span(
    settings: Settings, first: datetime.date | None, last: datetime.date | None
) -> tuple[datetime.date, datetime.date]:
    """First and last day to write: what the data have from `ingest.first_day` to the run date.

    Raises:
        DataRefused: the data have nothing in these days.
    """
    since, until = settings.ingest.first_day, settings.date
    if first is None or last is None or last < (since or first) or first > until:
        raise _nothing(settings, first, last)
    return max(first, since or first), min(last, until)


def _nothing(
    settings: Settings, first: datetime.date | None, last: datetime.date | None
) -> DataRefused:
    return DataRefused(
        f"{settings.ingest.path}: expected rows of days from "
        f"{settings.ingest.first_day or 'the first one'} (ingest.first_day) to {settings.date} "
        f"(date), but the rows there are of "
        f"{'no day at all' if first is None else f'other days, from {first} to {last}'}; "
        "choose other days"
    )


def when(seconds: Column, day_time_zone: str) -> tuple[Column, Column]:
    """`dt` and `moment` of a number of seconds since 1970; null where that is no time."""
    moment = F.when(seconds.between(0, LAST_SECOND), seconds)
    day = F.to_date(F.from_utc_timestamp(F.timestamp_seconds(moment), day_time_zone))
    return day.alias(DAY), moment.alias("moment")


def look_at(rows: DataFrame, settings: Settings) -> tuple[datetime.date, datetime.date, int]:
    """First and last day to write, and how many rows are of days before or after them.

    rows: with `dt`, null where there is no time.

    Raises:
        DataRefused: no row is of these days.
    """
    since, until = settings.ingest.first_day, settings.date
    inside = (F.col(DAY) <= F.lit(until)) & (F.col(DAY) >= F.lit(since or datetime.date.min))
    found = rows.agg(
        F.min(DAY).alias("first"),
        F.max(DAY).alias("last"),
        F.min(F.when(inside, F.col(DAY))).alias("first_inside"),
        F.max(F.when(inside, F.col(DAY))).alias("last_inside"),
        F.count_if(~inside).alias("outside"),
    ).first()
    assert found is not None
    if found["first_inside"] is None:
        raise _nothing(settings, found["first"], found["last"])
    return found["first_inside"], found["last_inside"], found["outside"]


def within(rows: DataFrame, first: datetime.date, last: datetime.date) -> DataFrame:
    """Rows of these days; those without a time as if they were of the first."""
    day = F.coalesce(DAY, F.lit(first))
    return rows.withColumn(DAY, day).where(F.col(DAY).between(F.lit(first), F.lit(last)))


def given(text: Column) -> Column:
    """A text; null if it is empty."""
    return F.when(text != "", text)


def all_there(*names: str) -> Column:
    """Whether none of these columns is null."""
    return reduce(Column.__and__, (F.col(name).isNotNull() for name in names))


def known(chosen: DataFrame) -> DataFrame:
    """`chosen` and `known`: whether anybody chose the item on an earlier day."""
    first = F.min("dt").over(Window.partitionBy("item_id"))
    return chosen.withColumn("known", first < F.col("dt"))


def candidates(chosen: DataFrame, each: int, seed: int, candidate: str | None = None) -> DataFrame:
    """Chosen and drawn candidates: `dt`, `user_id`, `moment`, `item_id`, `clicked`, `drawn`.

    Args:
        chosen: REQUEST and `clicked`, each choice once.
        each: items drawn for each candidate that was chosen.
        seed: of what is drawn.
        candidate: the boolean column that says which choices are candidates; None: all are. The
            others count as popularity, and as seen by their user.
    """
    asked = chosen if candidate is None else chosen.where(candidate)
    own = asked.select(*REQUEST, "clicked", F.lit(False).alias("drawn"))
    unseen = negatives.draw(chosen, each, seed, candidate)
    return own.unionByName(
        unseen.select(*REQUEST, F.lit(False).alias("clicked"), F.lit(True).alias("drawn"))
    )


def events(shown: DataFrame, seed: int) -> DataFrame:
    """RAW_EVENT's columns and `dt`: an impression of each candidate, and a click where it was one.

    shown: what `candidates` gives.
    """
    drawn_place = F.xxhash64(F.lit(seed), F.lit("place"), "user_id", "moment", "item_id")
    page = Window.partitionBy("user_id", "moment").orderBy(drawn_place, "item_id")
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
    """The id of a choice's request."""
    return F.concat_ws("-", "user_id", "moment")


def event_id(event_type: Column) -> Column:
    """The id of a choice's event: the same for a row that says the same again."""
    return F.concat_ws("-", request_id(), "item_id", event_type)


def event_time(event_type: Column) -> Column:
    """When a choice's event was, as text in UTC."""
    after = F.lit(0)
    for name, milliseconds in AFTER.items():
        after = F.when(event_type == name, milliseconds).otherwise(after)
    time = F.timestamp_millis(F.col("moment") * 1000 + after)
    return F.date_format(time, "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")


def snapshots(facts: DataFrame, key: str, columns: Sequence[str], last: datetime.date) -> DataFrame:
    """What each morning's snapshot adds: `dt`, the key and `columns`, where they are new or differ.

    Args:
        facts: `dt`, the day that they became known on; `moment`, the key and `columns`. Of a
            day's the latest counts; of those of one moment the greatest, always the same.
        key: item_id or user_id.
        last: day of the last snapshot; what comes after it is the next run's.
    """
    of_day = facts.groupBy(DAY, key).agg(F.max(F.struct("moment", *columns)).alias("latest"))
    told = F.struct(*(F.col(f"latest.{name}") for name in columns))
    before = F.lag("told").over(Window.partitionBy(key).orderBy(DAY))
    return (
        of_day.select(F.date_add(DAY, 1).alias(DAY), key, told.alias("told"))
        .withColumn("before", before)
        .where(~F.col("told").eqNullSafe(F.col("before")) & (F.col(DAY) <= F.lit(last)))
        .select(DAY, key, "told.*")
    )


def by_day(rows: DataFrame, *order: str) -> DataFrame:
    """Each day in one partition and in a fixed order, so that its file is always the same.

    Rows that are alike in `order` come in the order of their content.
    """
    content = F.to_json(F.struct(*rows.columns))
    return rows.repartition(DAY).sortWithinPartitions(DAY, *order, content)


def counts(shown: DataFrame, each: int) -> dict[str, int]:
    """How many candidates there are, and how many of them were clicked and drawn."""
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
        "not_to_be_drawn": chosen * each - found["drawn"],
    }
