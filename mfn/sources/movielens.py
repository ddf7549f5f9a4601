"""MovieLens as raw logs, from its files in RecBole's atomic format (tab-separated, typed header).

`<name>.inter` holds user_id, item_id, rating, timestamp; `<name>.item` item_id, movie_title,
class (the genres); `<name>.user` user_id, age, gender, occupation.

**Mapping.** All ratings of a user in one second are a request. Each rated movie is a candidate, and
a click if the rating is 4 or more. The first genre is the category; the genres and the words of the
title, without numbers and stop words, are the entities. Profiles hold the decade of the age, the
gender and the occupation.

**Negatives.** The data have no impressions. So for each rated movie, `ingest.negatives` movies that
the user has not rated yet are sampled by popularity on earlier days; see `mfn.sources.negatives`
and `mfn.sources.choices`.

**Snapshots.** The data do not say on which day a movie or a user was added. So there is one
snapshot of movies and one of users, in the folder of the first day, with all of them.

One shuffle in addition to those of `mfn.sources.choices`: by rating, to remove duplicates.
"""

from __future__ import annotations

import datetime

import fsspec
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.errors import DataRefused, NotPublished
from mfn.locations import for_spark
from mfn.logs import raw
from mfn.logs.title_words import stop_words, words
from mfn.settings import Settings
from mfn.sources import choices

CLICK_RATING = 4.0
FILES = {
    "inter": ("user_id", "item_id", "rating", "timestamp"),
    "item": ("item_id", "movie_title", "class"),
    "user": ("user_id", "age", "gender", "occupation"),
}
"""Required columns of each file, by the extension of its name."""

NO_GENRE = "unknown"
"""The genre in MovieLens of a movie without a known genre."""
FETCH = "python scripts/fetch_data.py movielens downloads MovieLens-100k and prints its folder"


def movielens(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """Write the raw logs of all days of the data set; a day without ratings gets an empty folder.

    Raises:
        NotPublished: `ingest.path` is not given, or a file is missing there.
        DataRefused: a file lacks a column, or there are no ratings or invalid ones.
    """
    files = {kind: _read(spark, settings.ingest.path, kind) for kind in FILES}
    rated = ratings(files["inter"], settings.logs.day_time_zone).persist()
    try:
        first, last, lines = _span(rated)
        days = [first + datetime.timedelta(days=n) for n in range((last - first).days + 1)]
        rated_well = F.col("rating") >= CLICK_RATING
        chosen = rated.select(*choices.REQUEST, rated_well.alias("clicked"))
        shown = choices.candidates(chosen, settings.ingest.negatives, settings.ingest.seed)
        shown = shown.persist()
        counted = choices.counts(shown, settings.ingest.negatives)
        log = choices.events(shown, settings.ingest.seed)
        log = choices.by_day(log, "event_time", "event_id")
        raw.write_days(log, settings.logs_folder("events"), days)
        shown.unpersist()
    finally:
        rated.unpersist()
    opening = F.lit(first).alias("dt")
    movies = catalogue(files["item"], stop_words()).select(opening, "*")
    raw.write_days(choices.by_day(movies, "item_id"), settings.logs_folder("items"), [first])
    people = profiles(files["user"]).select(opening, "*")
    raw.write_days(choices.by_day(people, "user_id"), settings.logs_folder("users"), [first])
    return {
        "rows": counted["candidates"] + counted["clicks"],
        "days": len(days),
        **counted,
        "repeated_ratings": lines - counted["candidates"] + counted["drawn_candidates"],
    }


def ratings(rows: DataFrame, day_time_zone: str) -> DataFrame:
    """Parse ratings: `dt`, `user_id`, `item_id`, `moment` (seconds since 1970), `rating`, `lines`.

    If a user rated a movie several times in one second, the highest rating is kept, and `lines` is
    the number of ratings. `moment` or `rating` is null if the text is not a number.
    """
    moment = F.col("timestamp").try_cast("double").try_cast("long")
    return (
        rows.groupBy("user_id", "item_id", moment.alias("moment"))
        .agg(F.max(F.col("rating").try_cast("double")).alias("rating"), F.count("*").alias("lines"))
        .select(
            F.to_date(F.from_utc_timestamp(F.timestamp_seconds("moment"), day_time_zone)).alias(
                "dt"
            ),
            "user_id",
            "item_id",
            "moment",
            "rating",
            "lines",
        )
    )


def catalogue(rows: DataFrame, stop_words: list[str]) -> DataFrame:
    """The columns of RAW_ITEM that MovieLens has; entities are in lower case, genres first."""
    split = F.split(F.coalesce("class", F.lit("")), r"\s+")
    genres = F.filter(split, lambda genre: (genre != "") & (genre != NO_GENRE))
    of_title = words(F.col("movie_title"), stop_words)
    return rows.select(
        "item_id",
        F.get(genres, F.lit(0)).alias("category"),
        F.col("movie_title").alias("title"),
        F.array_distinct(F.concat(F.transform(genres, F.lower), of_title)).alias("entities"),
    )


def profiles(rows: DataFrame) -> DataFrame:
    """RAW_USER's columns; the age by decade, such as 20s."""
    decade = F.concat((F.floor(F.col("age").try_cast("int") / 10) * 10).cast("string"), F.lit("s"))
    return rows.select(
        "user_id", F.struct(decade.alias("age"), "gender", "occupation").alias("profile")
    )


def _span(rated: DataFrame) -> tuple[datetime.date, datetime.date, int]:
    """First day, last day, and number of lines of all ratings; refuse invalid lines."""
    no_key = F.col("user_id").isNull() | F.col("item_id").isNull()
    bad = no_key | F.col("dt").isNull() | F.col("rating").isNull()
    found = rated.agg(
        F.min("dt").alias("first"),
        F.max("dt").alias("last"),
        F.coalesce(F.sum("lines"), F.lit(0)).alias("lines"),
        F.coalesce(F.sum(F.when(bad, F.col("lines"))), F.lit(0)).alias("bad"),
    ).first()
    assert found is not None
    if found["bad"] or not found["lines"]:
        raise DataRefused(
            "*.inter: expected lines with a user, an item, a rating and a timestamp in seconds, "
            f"got {found['lines']} lines, of which {found['bad']} lack one of them; {FETCH}"
        )
    return found["first"], found["last"], found["lines"]


def _read(spark: SparkSession, folder: str | None, kind: str) -> DataFrame:
    """Read the required columns of the file with this extension, as text."""
    if folder is None:
        raise NotPublished(
            f"ingest.path: expected the folder of MovieLens' files, got none; {FETCH}"
        )
    files, path = fsspec.url_to_fs(folder)
    found = sorted(files.glob(f"{path}/*.{kind}"))
    if len(found) != 1:
        raise NotPublished(
            f"ingest.path: expected one file *.{kind} in {folder}, got {len(found)}; {FETCH}"
        )
    file = f"{folder}/{found[0].rpartition('/')[2]}"
    rows = spark.read.csv(for_spark(file), sep="\t", header=True, quote="")
    typed = {name.partition(":")[0]: name for name in rows.columns}
    lacking = [name for name in FILES[kind] if name not in typed]
    if lacking:
        raise DataRefused(
            f"{file}: expected the columns {', '.join(FILES[kind])} in its first line, but "
            f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing, got "
            f"{', '.join(rows.columns)}; {FETCH}"
        )
    return rows.select(*(F.col(f"`{typed[name]}`").alias(name) for name in FILES[kind]))
