"""Amazon's reviews with metadata as raw logs, of one or several of their categories.

Published as Amazon Reviews'23 (Hou et al., 2024), https://amazon-reviews-2023.github.io: a folder
of JSON lines, gzipped or not. A review has user_id, parent_asin (or asin), rating and timestamp (in
milliseconds); files meta_*.jsonl have parent_asin, title, main_category, categories, price (number,
text or null) and store. The field names of the 2018 edition, https://nijianmo.github.io/amazon, are
accepted too: reviewerID, asin, overall and unixReviewTime (in seconds); brand and category.

**Mapping.** All reviews of a user in one second are a request. Each reviewed product is a
candidate, and a click if the rating is 4 or more. Negatives are sampled: see `mfn.sources.choices`.
If a user rated a product several times in one second, the highest rating is used; the others are
counted as repeats. A review with a missing or invalid field, or that is not JSON, becomes an event
without that field, with its line in `context`; validation then quarantines it.

**Days.** Reviews before `ingest.first_day` or after the run date are skipped and counted; the data
begin in 1996. A review without a time goes to the first day's folder.

**Snapshots.** The data do not say on which day metadata changed. So there is one snapshot, in the
folder of the first day, with every product. Prices are of the day when the data were collected, so
they may leak a little about later days. The category is the last, most specific level of
`categories` that has at most 60 characters, or main_category if there is none; the brand is the
store; the entities are the other levels and the words of the title.

One shuffle in addition to those of `mfn.sources.choices`: by review, to remove duplicates.
"""

from __future__ import annotations

import fsspec
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.errors import NotPublished
from mfn.locations import for_spark
from mfn.logs import raw
from mfn.logs.raw import DAY
from mfn.logs.title_words import stop_words, words
from mfn.settings import Settings
from mfn.sources import choices
from mfn.windows import days_between

CLICK_RATING = 4.0
MAX_CATEGORY_LENGTH = 60
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
FETCH = "see docs/data-sets.md for how to get them"


def amazon(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """Write the raw logs of all days from `ingest.first_day` to the run date.

    Raises:
        NotPublished: `ingest.path` is not given, or has no files of reviews or of metadata.
        DataRefused: no review is of these days.
    """
    review_files, product_files = _files(settings.ingest.path)
    read = reviews(
        spark.read.text([for_spark(file) for file in review_files]), settings.logs.day_time_zone
    )
    first, last, outside = choices.day_range(read, settings)
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
    products = catalogue(spark.read.text([for_spark(file) for file in product_files]), stop_words())
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
    """Parse reviews.

    Args:
        lines: JSON lines, column `value`.

    Returns:
        dt and moment (null without a valid time), user_id, item_id, rating (null if it is not a
        number from 0 to 5), time (the text), line.
    """
    parsed = lines.select("value", F.from_json("value", REVIEW).alias("of"))
    rating = F.coalesce("of.rating", "of.overall").try_cast("double")
    milliseconds = F.col("of.timestamp").try_cast("long")
    seconds = F.coalesce(F.floor(milliseconds / 1000), F.col("of.unixReviewTime").try_cast("long"))
    return parsed.select(
        *choices.day_and_moment(seconds, day_time_zone),
        _first_non_empty("of.user_id", "of.reviewerID").alias("user_id"),
        _first_non_empty("of.parent_asin", "of.asin").alias("item_id"),
        F.when(rating.between(0, 5), rating).alias("rating"),
        F.coalesce("of.timestamp", "of.unixReviewTime").alias("time"),
        F.col("value").alias("line"),
    )


def ratings(rows: DataFrame) -> DataFrame:
    """Choices: `choices.REQUEST` and `clicked`, whether its highest rating counts as a click."""
    return (
        rows.where(_is_rating())
        .groupBy(*choices.REQUEST)
        .agg((F.max("rating") >= CLICK_RATING).alias("clicked"))
        .select(*choices.REQUEST, "clicked")
    )


def bad_events(rows: DataFrame) -> DataFrame:
    """An event for each line that lacks a field: `dt` and the columns of RAW_EVENT it has."""
    kind = F.when(F.col("rating") >= CLICK_RATING, "click").when(
        F.col("rating").isNotNull(), "impression"
    )
    has_time = F.col("moment").isNotNull()
    return rows.where(~_is_rating()).select(
        DAY,
        F.concat(F.lit("bad-"), F.xxhash64("line")).alias("event_id"),
        F.when(has_time, choices.event_time(kind)).otherwise(F.col("time")).alias("event_time"),
        "user_id",
        kind.alias("event_type"),
        "item_id",
        F.struct("line").alias("context"),
    )


def catalogue(lines: DataFrame, stop_words: list[str]) -> DataFrame:
    """The columns of RAW_ITEM that the metadata have, from JSON lines (column `value`)."""
    parsed = lines.select(F.from_json("value", PRODUCT).alias("of")).select("of.*")
    path = F.transform(
        F.coalesce("categories", "category", F.array().cast("array<string>")), F.trim
    )
    path = F.filter(path, lambda level: F.length(level).between(1, MAX_CATEGORY_LENGTH))
    others = F.transform(F.slice(path, 1, F.greatest(F.size(path) - 1, F.lit(0))), F.lower)
    price = F.regexp_replace(F.regexp_extract("price", PRICE, 1), ",", "").try_cast("double")
    return parsed.select(
        _first_non_empty("parent_asin", "asin").alias("item_id"),
        F.coalesce(F.try_element_at(path, F.lit(-1)), _first_non_empty("main_category")).alias(
            "category"
        ),
        _first_non_empty("store", "brand").alias("brand"),
        price.alias("price"),
        "title",
        F.array_distinct(F.concat(others, words(F.col("title"), stop_words))).alias("entities"),
    )


def _is_rating() -> Column:
    """Whether a line is a review with all required fields."""
    return choices.all_present("user_id", "item_id", "moment", "rating")


def _first_non_empty(*names: str) -> Column:
    return F.coalesce(*(choices.non_empty(F.trim(name)) for name in names))


def _files(folder: str | None) -> tuple[list[str], list[str]]:
    """Paths of the folder's review files, and of its metadata files."""
    if folder is None:
        raise NotPublished(
            f"ingest.path: expected the folder of Amazon's reviews and metadata, got none; {FETCH}"
        )
    files, path = fsspec.url_to_fs(folder)
    listed = files.ls(path, detail=False) if files.exists(path) else []
    names = sorted(one.rstrip("/").rpartition("/")[2] for one in listed)
    data = [name for name in names if name.endswith(ENDINGS) and not name.startswith(("_", "."))]
    product_files = [f"{folder}/{name}" for name in data if name.startswith("meta_")]
    review_files = [f"{folder}/{name}" for name in data if not name.startswith("meta_")]
    if not product_files or not review_files:
        raise NotPublished(
            f"ingest.path: expected in {folder} a file meta_*.jsonl and one of reviews, gzipped or "
            f"not, got {', '.join(data) or 'none'}; {FETCH}"
        )
    return review_files, product_files
