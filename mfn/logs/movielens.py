"""MovieLens as raw logs, from its files in RecBole's atomic format (tab-separated, typed header).

`<name>.inter` holds user_id, item_id, rating, timestamp; `<name>.item` item_id, movie_title,
class (the genres); `<name>.user` user_id, age, gender, occupation.

**What stands for what.** The ratings of a user in one second are a request. A rated movie is one of
its candidates, and a click where the rating is 4 or more. The first genre is the category, the
words of the title and the genres are the entities.

**Negatives.** The data have no impressions, so candidates that were not chosen are drawn: for each
rated movie `ingest.negatives` times, among the movies that somebody had rated before the request's
day, as often as they had been rated by then. A draw that hits a movie which the user has rated by
then, or one that is on the page already, is dropped: a page may hold fewer. The law is the same in
every window, and looks at nothing later than the request: what a user rates tomorrow, or never,
makes no difference today. So a popular movie is a candidate more often; whoever compares models
should know that popularity alone, which the draw follows, tells negatives nothing.

Shuffles: by item (popularity by day), by day (the draws), by user and item (what is rated already)
and by day again, in which each day's rows are written in order.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import fsspec
import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from mfn.logs import raw
from mfn.schema import DATE, INTEGER, LONG, STRING
from mfn.settings import BadSettings, IngestSettings

CLICK_RATING = 4.0
FILES = {
    "inter": ("user_id", "item_id", "rating", "timestamp"),
    "item": ("item_id", "movie_title", "class"),
    "user": ("user_id", "age", "gender", "occupation"),
}
"""The columns that are needed of each file, by the end of its name."""

DRAWN = StructType(
    [
        StructField("dt", DATE, False),
        StructField("user_id", STRING, False),
        StructField("second", LONG, False),
        StructField("item_id", STRING, False),
    ]
)
_DRAW_BITS = 53


def movielens(
    spark: SparkSession, settings: IngestSettings, folders: dict[str, str]
) -> dict[str, int]:
    """Write the raw logs of all days of the data set, one of which may be empty.

    Args:
        folders: where the raw logs of events, items and users go.

    Raises:
        BadSettings: `ingest.path` is not given, or lacks a file or a column.
    """
    rated = ratings(_read(spark, settings, "inter")).persist()
    try:
        first, last = _days(rated)
        days = [first + datetime.timedelta(days=n) for n in range((last - first).days + 1)]
        shown = candidates(rated, settings.negatives, settings.seed).persist()
        counted = shown.agg(
            F.count("*"), F.sum("clicked"), F.count_if(F.col("rating").isNull())
        ).first()
        assert counted is not None
        raw.write_days(_by_day(events(shown, settings.seed)), folders["events"], days)
        shown.unpersist()
    finally:
        rated.unpersist()
    opening = F.lit(first).alias("dt")
    movies = catalogue(_read(spark, settings, "item"))
    raw.write_days(_by_day(movies.select(opening, "*")), folders["items"], [first])
    people = profiles(_read(spark, settings, "user"))
    raw.write_days(_by_day(people.select(opening, "*")), folders["users"], [first])
    return {
        "rows": int(counted[0] + counted[1]),
        "days": len(days),
        "candidates": int(counted[0]),
        "clicks": int(counted[1]),
        "drawn_candidates": int(counted[2]),
    }


def ratings(rows: DataFrame) -> DataFrame:
    """user_id, item_id, second (since 1970), rating, dt; of a pair rated twice, the first."""
    second = F.col("timestamp").cast("double").cast("long")
    return (
        rows.select(
            "user_id",
            "item_id",
            second.alias("second"),
            F.col("rating").cast("double").alias("rating"),
            F.to_date(F.timestamp_seconds(second)).alias("dt"),
        )
        .groupBy("user_id", "item_id")
        .agg(
            F.min_by(F.struct("second", "rating", "dt"), F.struct("second", "rating")).alias("one")
        )
        .select("user_id", "item_id", "one.*")
    )


def candidates(rated: DataFrame, negatives: int, seed: int) -> DataFrame:
    """Rated and drawn movies by request: dt, user_id, second, item_id, rating (null if drawn)."""
    own = rated.select("dt", "user_id", "second", "item_id", "rating")
    drawn = draw(rated, negatives, seed)
    already = rated.select("user_id", "item_id", F.col("second").alias("rated_at"))
    unseen = (
        drawn.join(already, ["user_id", "item_id"], how="left")
        .where(F.col("rated_at").isNull() | (F.col("rated_at") > F.col("second")))
        .select(*own.columns[:-1], F.lit(None).cast("double").alias("rating"))
    )
    clicked = (F.coalesce("rating", F.lit(0.0)) >= CLICK_RATING).cast("int")
    return own.unionByName(unseen).withColumn("clicked", clicked)


def draw(rated: DataFrame, negatives: int, seed: int) -> DataFrame:
    """Movies drawn for each request by popularity of earlier days (DRAWN), each once."""
    slots = F.explode(F.sequence(F.lit(1), F.col("rated") * negatives))
    requests = (
        rated.groupBy("dt", "user_id", "second")
        .agg(F.count("*").cast("int").alias("rated"))
        .where(F.lit(negatives) > 0)
        .withColumn("slot", slots)
        .withColumn(
            "uniform", _uniform(F.lit(seed), F.col("user_id"), F.col("second"), F.col("slot"))
        )
        .select("dt", "user_id", "second", "uniform")
    )
    popularity = popularity_before(rated)
    chosen = requests.groupBy("dt").cogroup(popularity.groupBy("day")).applyInPandas(_choose, DRAWN)
    return chosen.distinct()


def popularity_before(rated: DataFrame) -> DataFrame:
    """day, item_id, count: how often a movie had been rated before each day with a rating."""
    days = rated.select(F.col("dt").alias("day")).distinct()
    by_day = rated.groupBy("item_id", F.col("dt").alias("rated_on")).count()
    return (
        days.join(F.broadcast(by_day), F.col("rated_on") < F.col("day"), how="inner")
        .groupBy("day", "item_id")
        .agg(F.sum("count").cast("int").alias("count"))
        .select("day", "item_id", "count")
    )


def _choose(requests: pd.DataFrame, popularity: pd.DataFrame) -> pd.DataFrame:
    """For each row of one day's requests a movie, by where `uniform` falls in the counts."""
    if popularity.empty or requests.empty:
        return pd.DataFrame(columns=DRAWN.names)
    popularity = popularity.sort_values("item_id")
    ends = np.cumsum(popularity["count"].to_numpy())
    places = np.searchsorted(ends, requests["uniform"].to_numpy() * ends[-1], side="right")
    items = popularity["item_id"].to_numpy()[np.minimum(places, len(ends) - 1)]
    return requests.assign(item_id=items)[DRAWN.names]


def events(shown: DataFrame, seed: int) -> DataFrame:
    """RAW_EVENT's columns and dt: an impression of each candidate, and a click where it was one.

    Both are of the request's second; the place on the page is drawn, and says nothing.
    """
    request = F.concat_ws("-", F.lit("u"), "user_id", F.col("second").cast("string"))
    page = Window.partitionBy("user_id", "second").orderBy(
        _uniform(F.lit(seed), F.lit("place"), F.col("user_id"), F.col("second"), F.col("item_id")),
        "item_id",
    )
    kinds = F.when(F.col("clicked") == 1, F.array(F.lit("impression"), F.lit("click"))).otherwise(
        F.array(F.lit("impression"))
    )
    return (
        shown.withColumn("request_id", request)
        .withColumn("position", (F.row_number().over(page) - 1).cast(INTEGER))
        .withColumn("event_type", F.explode(kinds))
        .select(
            "dt",
            F.concat_ws("-", "request_id", "item_id", "event_type").alias("event_id"),
            F.date_format(F.timestamp_seconds("second"), "yyyy-MM-dd'T'HH:mm:ss'Z'").alias(
                "event_time"
            ),
            "user_id",
            "event_type",
            "item_id",
            "request_id",
            "position",
        )
    )


def catalogue(rows: DataFrame) -> DataFrame:
    """RAW_ITEM's columns that MovieLens has; words are lower case, numbers are no words."""
    genres = F.filter(F.split(F.coalesce("class", F.lit("")), " "), lambda word: word != "")
    words = F.regexp_extract_all(
        F.lower(F.coalesce("movie_title", F.lit(""))), F.lit("[a-z']{2,}"), 0
    )
    return rows.select(
        "item_id",
        F.get(genres, F.lit(0)).alias("category"),
        F.col("movie_title").alias("title"),
        F.array_distinct(F.concat(genres, words)).alias("entities"),
    )


def profiles(rows: DataFrame) -> DataFrame:
    """RAW_USER's columns; the age by decade."""
    decade = F.concat((F.floor(F.col("age").cast("int") / 10) * 10).cast("string"), F.lit("s"))
    return rows.select(
        "user_id", F.struct(decade.alias("age"), "gender", "occupation").alias("profile")
    )


def _uniform(*values: Column) -> Column:
    """A number in [0, 1) that is a pure function of the values."""
    return F.shiftrightunsigned(F.xxhash64(*values), 64 - _DRAW_BITS) / F.lit(float(2**_DRAW_BITS))


def _by_day(rows: DataFrame) -> DataFrame:
    """Each day in one partition and in a fixed order, so that its file is always the same."""
    order: Sequence[str] = [name for name in rows.columns if name.endswith("_id")]
    return rows.repartition("dt").sortWithinPartitions("dt", *order)


def _days(rated: DataFrame) -> tuple[datetime.date, datetime.date]:
    found = rated.agg(F.min("dt"), F.max("dt")).first()
    if found is None or found[0] is None:
        raise BadSettings("ingest.path: expected ratings in the .inter file, got none")
    return found[0], found[1]


def _read(spark: SparkSession, settings: IngestSettings, kind: str) -> DataFrame:
    """The needed columns of the one file of a kind, as text."""
    if settings.path is None:
        raise BadSettings("ingest.path: expected the folder with the data set's files, got none")
    files, path = fsspec.url_to_fs(settings.path)
    found = sorted(files.glob(f"{path}/*.{kind}"))
    if len(found) != 1:
        raise BadSettings(
            f"ingest.path: expected one file *.{kind} in {settings.path!r}, got {len(found)}; "
            "`python scripts/fetch_movielens.py` downloads MovieLens-100k and prints its folder"
        )
    rows = spark.read.csv(files.unstrip_protocol(found[0]), sep="\t", header=True, quote="")
    typed = {name.partition(":")[0]: name for name in rows.columns}
    lacking = [name for name in FILES[kind] if name not in typed]
    if lacking:
        raise BadSettings(
            f"ingest.path: expected the columns {', '.join(FILES[kind])} in {found[0]}, got "
            f"{', '.join(rows.columns)}"
        )
    return rows.select(*(F.col(f"`{typed[name]}`").alias(name) for name in FILES[kind]))
