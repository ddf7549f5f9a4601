"""Taobao's user behaviour as raw logs: nine days of page views, carts, favourites and purchases.

Published as User Behavior Data from Taobao for Recommendation by Alibaba's Tianchi,
https://tianchi.aliyun.com/dataset/649: UserBehavior.csv, a line each of user_id, item_id,
category_id, behaviour (pv, cart, fav or buy) and seconds since 1970, without a header. The users
live in China: set `logs.day_time_zone` to Asia/Shanghai.

**Every line becomes an event**; validation finds lines with missing or invalid fields. pv is a
`click`, cart a `cart`, buy a `purchase`. fav, a bookmark, is a `cart` too: the event type of a user
who may come back to buy; `context` keeps the original word. Any other word is kept as it is.
Identical lines get the same id, so that validation counts them as repeats.

**Candidates.** A page view is also a candidate with a click, at the same moment: see
`mfn.sources.choices`. An item without any behaviour on an earlier day gets its event, but is no
candidate: sampled negatives always have earlier behaviour, so a model could recognize a click by
that difference. So the first day has no candidates.

**Days.** Lines before `ingest.first_day` or after the run date are skipped and counted; the data
contain a few times of other years, so set it (to 2017-11-25). A line without a valid time goes to
the first day's folder, with its time as written.

**Snapshots** hold each item's category, and contain nothing of their own day.

Two shuffles in addition to those of `mfn.sources.choices`: by choice, to merge lines about the same
choice, and by item for `choices.known`.
"""

from __future__ import annotations

import fsspec
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.errors import NotPublished
from mfn.locations import for_spark
from mfn.logs import raw
from mfn.logs.raw import DAY
from mfn.settings import Settings
from mfn.sources import choices
from mfn.windows import days_between

FILES = ("UserBehavior.csv", "UserBehavior.csv.gz")
COLUMNS = ("user_id", "item_id", "category_id", "behaviour", "seconds")
EVENT_TYPES = {"pv": "click", "cart": "cart", "fav": "cart", "buy": "purchase"}
FETCH = "see docs/data-sets.md for how to get it"


def taobao(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """Write the raw logs of all days from `ingest.first_day` to the run date.

    Raises:
        NotPublished: `ingest.path` is not given, or the file is missing there.
        DataRefused: no line is of these days.
    """
    ingest = settings.ingest
    read = lines(_read(spark, ingest.path), settings.logs.day_time_zone)
    first, last, outside = choices.day_range(read, settings)
    days = days_between((first, last))
    rows = choices.within(read, first, last).persist()
    try:
        seen = choices.known(behaviours(rows))
        seen = seen.withColumn("candidate", F.col("clicked") & F.col("known")).persist()
        shown = choices.candidates(seen, ingest.negatives, ingest.seed, "candidate").persist()
        impressions = choices.events(shown, ingest.seed).where(F.col("event_type") != "click")
        log = impressions.unionByName(events(rows), allowMissingColumns=True)
        log = choices.by_day(log, "event_time", "event_id")
        raw.write_days(log, settings.logs_folder("events"), days)
        items = choices.snapshots(catalogue(rows), "item_id", ("category",), last)
        raw.write_days(choices.by_day(items, "item_id"), settings.logs_folder("items"), days)
        counted = choices.counts(shown, ingest.negatives)
        read_rows = rows.count()
        unknown = seen.where(F.col("clicked") & ~F.col("known")).count()
        shown.unpersist()
        seen.unpersist()
    finally:
        rows.unpersist()
    return {
        "rows": read_rows + counted["candidates"],
        "days": len(days),
        "rows_read": read_rows,
        "rows_outside_days": outside,
        "first_views_of_an_item": unknown,
        **counted,
    }


def lines(rows: DataFrame, day_time_zone: str) -> DataFrame:
    """Parse lines.

    Args:
        rows: COLUMNS as text.

    Returns:
        dt and moment (both null without a valid time), user_id, item_id, category, event_type,
        behaviour, seconds (the text).
    """
    known = F.create_map(*(F.lit(text) for pair in EVENT_TYPES.items() for text in pair))
    word = choices.non_empty(F.trim("behaviour"))
    return rows.select(
        *choices.day_and_moment(F.col("seconds").try_cast("long"), day_time_zone),
        choices.non_empty(F.trim("user_id")).alias("user_id"),
        choices.non_empty(F.trim("item_id")).alias("item_id"),
        choices.non_empty(F.trim("category_id")).alias("category"),
        F.coalesce(F.try_element_at(known, word), "behaviour").alias("event_type"),
        "behaviour",
        "seconds",
    )


def behaviours(rows: DataFrame) -> DataFrame:
    """Choices: `choices.REQUEST` and `clicked`, whether one of the lines is a page view."""
    return (
        rows.where(_is_behaviour())
        .groupBy(*choices.REQUEST)
        .agg((F.count_if(F.col("behaviour") == "pv") > 0).alias("clicked"))
        .select(*choices.REQUEST, "clicked")
    )


def events(rows: DataFrame) -> DataFrame:
    """An event for each line, good or bad: `dt` and RAW_EVENT's columns except the position."""
    kind, good = F.col("event_type"), _is_behaviour()
    view = good & (kind == "click")
    # A favourite and a cart at one moment are two events of the same type: ids must differ.
    named = choices.event_id(F.when(view, kind).otherwise(F.col("behaviour")))
    bad = F.concat_ws("-", "user_id", "seconds", "item_id", "behaviour", F.lit("bad"))
    return rows.select(
        DAY,
        F.when(good, named).otherwise(bad).alias("event_id"),
        F.when(F.col("moment").isNotNull(), choices.event_time(kind))
        .otherwise(F.col("seconds"))
        .alias("event_time"),
        "user_id",
        "event_type",
        "item_id",
        F.when(view, choices.request_id()).alias("request_id"),
        F.struct("behaviour").alias("context"),
    )


def catalogue(rows: DataFrame) -> DataFrame:
    """Item facts from all good lines: `dt`, `moment`, `item_id` and `category`."""
    with_category = rows.where(_is_behaviour() & F.col("category").isNotNull())
    return with_category.select(DAY, "moment", "item_id", "category")


def _is_behaviour() -> Column:
    """Whether a line is an event that validation will accept."""
    complete = choices.all_present("user_id", "item_id", "moment")
    return complete & F.col("behaviour").isin(*EVENT_TYPES)


def _read(spark: SparkSession, folder: str | None) -> DataFrame:
    """Every line of the file as text. Extra columns stay in `seconds`, which is then invalid."""
    if folder is None:
        raise NotPublished(f"ingest.path: expected the folder of {FILES[0]}, got none; {FETCH}")
    files, path = fsspec.url_to_fs(folder)
    found = [name for name in FILES if files.exists(f"{path}/{name}")]
    if not found:
        raise NotPublished(
            f"ingest.path: expected {' or '.join(FILES)} in {folder}, which has neither; {FETCH}"
        )
    text = F.split("value", ",", len(COLUMNS))
    return spark.read.text(for_spark(f"{folder}/{found[0]}")).select(
        *(F.get(text, F.lit(place)).alias(name) for place, name in enumerate(COLUMNS))
    )
