"""Amazon's reviews with metadata as raw logs, of one of their categories or of several.

Published as Amazon Reviews'23 (Hou et al., 2024), https://amazon-reviews-2023.github.io: a folder
of JSON lines, gzipped or not. A review has user_id, parent_asin (or asin), rating and timestamp (in
milliseconds); files meta_*.jsonl have parent_asin, title, main_category, categories, price (number,
text or null) and store. The names of the edition of 2018, https://nijianmo.github.io/amazon, are
read too: reviewerID, asin, overall and unixReviewTime (in seconds); brand and category.

**What stands for what.** What a user reviews in one second is a request; a reviewed product is one
of its candidates, and a click where the rating is 4 or more. Further candidates are drawn: see
`mfn.sources.choices`. Of several ratings of a product by a user in one second the highest counts,
and the others are counted. A review that lacks anything, or is no JSON, is an event that lacks it
too, with its line in `context`, so that validation finds it.

**Days.** Reviews of days before `ingest.first_day` or after the run date are left out and counted;
the data reach back to 1996. A review without a time is in the first day's folder.

**Snapshots.** Nobody knows on which day metadata became what they are: the one snapshot, in the
folder of the first day, holds every product. Its price is of the day the data were collected, so
that it may tell a little of later days. The category is the last, most specific level of
`categories` (where that is no longer than 60 characters, or else main_category); the brand is the
store; entities are the other levels and the words of the title.

One shuffle beside those of `mfn.sources.choices`: by review, for those that are there twice.
"""

from __future__ import annotations

import fsspec
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.errors import NotPublished
from mfn.logs import raw
from mfn.logs.raw import DAY
from mfn.logs.words import stop_words, words
from mfn.settings import Settings
from mfn.sources import choices
from mfn.windows import days_between

CLICK_RATING = 4.0
LONGEST_CATEGORY = 60
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
REVIEW = (
    "user_id string, reviewerID string, parent_asin string, asin string, rating string, "
    "overall string, timestamp string, unixReviewTime string"
)
PRODUCT = (
    "parent_asin string, asin string, title string, main_category string, "
    "categories array<string>, category array<string>, price string, store string, brand string"
)
PRICE = r"^\s*(?:from\s+)?\$?\s*(\d[\d,]*(?:\.\d+)?)"
FETCH = "see README.md, Public data sets, for how to get them"


def amazon(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """Write the raw logs of all days from `ingest.first_day` to the run date.

    Raises:
        NotPublished: `ingest.path` is not given, or lacks files of reviews or of metadata.
        DataRefused: no review is of these days.
    """
    of_reviews, of_products = _files(settings.ingest.path)
    read = reviews(spark.read.text(of_reviews), settings.logs.day_time_zone)
    first, last, outside = choices.look_at(read, settings)
    days, ingest = days_between((first, last)), settings.ingest
    rows = choices.within(read, first, last).persist()
    try:
        rated = ratings(rows)
        shown = choices.candidates(rated, ingest.negatives, ingest.seed).persist()
        log = choices.events(shown, ingest.seed)
        log = log.unionByName(bad_events(rows), allowMissingColumns=True)
        log = choices.by_day(log, "event_time", "event_id")
        raw.write_days(log, settings.logs_folder("events"), days)
        counted = choices.counts(shown, ingest.negatives)
        found = rows.agg(F.count("*").alias("read"), F.count_if(~_is_rating()).alias("bad")).first()
        assert found is not None
        shown.unpersist()
    finally:
        rows.unpersist()
    products = catalogue(spark.read.text(of_products), stop_words())
    products = products.select(F.lit(first).alias(DAY), "*")
    raw.write_days(choices.by_day(products, "item_id"), settings.logs_folder("items"), [first])
    kept = counted["candidates"] - counted["drawn_candidates"]
    return {
        "rows": counted["candidates"] + counted["clicks"] + found["bad"],
        "days": len(days),
        "rows_read": found["read"],
        "rows_outside_days": outside,
        "rows_bad": found["bad"],
        "repeated_ratings": found["read"] - found["bad"] - kept,
        **counted,
    }


def reviews(lines: DataFrame, day_time_zone: str) -> DataFrame:
    """Lines, `value`, to `dt` and `moment` (null where there is no time) and what they say.

    That is `user_id`, `item_id`, `rating` (null where it is no number from 0 to 5), the text
    `time`, and `line`.
    """
    of = lines.select("value", F.from_json("value", REVIEW).alias("of"))
    rating = F.coalesce("of.rating", "of.overall").try_cast("double")
    milliseconds = F.col("of.timestamp").try_cast("long")
    seconds = F.coalesce(F.floor(milliseconds / 1000), F.col("of.unixReviewTime").try_cast("long"))
    return of.select(
        *choices.when(seconds, day_time_zone),
        _first_given("of.user_id", "of.reviewerID").alias("user_id"),
        _first_given("of.parent_asin", "of.asin").alias("item_id"),
        F.when(rating.between(0, 5), rating).alias("rating"),
        F.coalesce("of.timestamp", "of.unixReviewTime").alias("time"),
        F.col("value").alias("line"),
    )


def ratings(rows: DataFrame) -> DataFrame:
    """Choices: `choices.REQUEST` and `clicked`, whether the highest rating of it is a click."""
    return (
        rows.where(_is_rating())
        .groupBy(*choices.REQUEST)
        .agg((F.max("rating") >= CLICK_RATING).alias("clicked"))
        .select(*choices.REQUEST, "clicked")
    )


def bad_events(rows: DataFrame) -> DataFrame:
    """RAW_EVENT's columns that there are, and `dt`: an event of each line that lacks something."""
    kind = F.when(F.col("rating") >= CLICK_RATING, "click").when(
        F.col("rating").isNotNull(), "impression"
    )
    in_time = F.col("moment").isNotNull()
    return rows.where(~_is_rating()).select(
        DAY,
        F.concat(F.lit("bad-"), F.xxhash64("line")).alias("event_id"),
        F.when(in_time, choices.event_time(kind)).otherwise(F.col("time")).alias("event_time"),
        "user_id",
        kind.alias("event_type"),
        "item_id",
        F.struct("line").alias("context"),
    )


def catalogue(lines: DataFrame, stop_words: list[str]) -> DataFrame:
    """Lines, `value`, to RAW_ITEM's columns that the metadata have."""
    of = lines.select(F.from_json("value", PRODUCT).alias("of")).select("of.*")
    path = F.transform(
        F.coalesce("categories", "category", F.array().cast("array<string>")), F.trim
    )
    path = F.filter(path, lambda level: F.length(level).between(1, LONGEST_CATEGORY))
    others = F.transform(F.slice(path, 1, F.greatest(F.size(path) - 1, F.lit(0))), F.lower)
    price = F.regexp_replace(F.regexp_extract("price", PRICE, 1), ",", "").try_cast("double")
    return of.select(
        _first_given("parent_asin", "asin").alias("item_id"),
        F.coalesce(F.try_element_at(path, F.lit(-1)), _first_given("main_category")).alias(
            "category"
        ),
        _first_given("store", "brand").alias("brand"),
        price.alias("price"),
        "title",
        F.array_distinct(F.concat(others, words(F.col("title"), stop_words))).alias("entities"),
    )


def _is_rating() -> Column:
    """Whether a line is a review that has all it needs."""
    return choices.all_there("user_id", "item_id", "moment", "rating")


def _first_given(*names: str) -> Column:
    return F.coalesce(*(choices.given(F.trim(name)) for name in names))


def _files(folder: str | None) -> tuple[list[str], list[str]]:
    """The folder's files of reviews, and those of metadata."""
    if folder is None:
        raise NotPublished(
            f"ingest.path: expected the folder of Amazon's reviews and metadata, got none; {FETCH}"
        )
    files, path = fsspec.url_to_fs(folder)
    listed = files.ls(path, detail=False) if files.exists(path) else []
    names = sorted(one.rstrip("/").rpartition("/")[2] for one in listed)
    data = [name for name in names if name.endswith(ENDINGS) and not name.startswith(("_", "."))]
    of_products = [f"{folder}/{name}" for name in data if name.startswith("meta_")]
    of_reviews = [f"{folder}/{name}" for name in data if not name.startswith("meta_")]
    if not of_products or not of_reviews:
        raise NotPublished(
            f"ingest.path: expected in {folder} a file meta_*.jsonl and one of reviews, gzipped or "
            f"not, got {', '.join(data) or 'none'}; {FETCH}"
        )
    return of_reviews, of_products
