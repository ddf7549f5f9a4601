"""The item table: every version of every item as a row of indices.

**Version.** What the catalogue said of an item from one day on, until a snapshot changed a field.
The snapshot of a day is known from the start of that day. With `splits.item_fields: as_of_request`
a candidate refers to the version of its request's day, and a behaviour to the version of its own
day: so no row reads a catalogue of a later day. With `as_of_test_day` each item has one version,
that of the run date's snapshot.

- Versions that end before the first day of the windows are left out: no row refers to them.
- The first snapshot of all also holds for the days before it, since nothing earlier is known. So a
  single snapshot gives one version of each item.
- An item that a snapshot does not list any more keeps its last version.
- An item that the log shows on days on which no snapshot up to then lists it has a row without
  catalogue: its own id, and all other fields missing.
- Boundaries of the price's buckets come from the versions up to the first day of the training
  window, as those of other numbers come from that window.

**Rows** are numbered for each build: rows without catalogue first, then versions by their first day
and the item's id. A later snapshot can only add rows at the end. Indices of values are those of the
vocabularies and never change.

Shuffles: one by item and day to find a day's version, one by item to compare it with the one
before, one to number the rows, one by row to collect the indices of its values, and one to write
the table as one sorted file. If the vocabularies are too large to broadcast, also one by item and
one by (field, key) to look up indices. `with_own_embedding` has two more.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Observation, SparkSession, Window
from pyspark.sql import functions as F

from mfn.indices import FIRST_INDEX, ITEM_FIELDS, MISSING, PADDING, UNKNOWN
from mfn.logs.raw import DAY
from mfn.logs.title_words import stop_words, words
from mfn.schema import ITEM_ROWS
from mfn.splits.buckets import Buckets, edges
from mfn.splits.vocabulary import ITEM_ID, LONG_AGO, catalogue_keys
from mfn.splits.writing import write_one_file

ENTITY = "entity"
_SINGLE = ("category", "shop", "brand")
_ATTRIBUTES = (*_SINGLE, "price", "entities")


@dataclass(frozen=True)
class CatalogueSummary:
    """Statistics of the catalogue.

    items: number of distinct item ids.
    rows_without_id: number of unusable rows of snapshots, which include unreadable lines.
    buckets: of the price.
    """

    items: int
    rows_without_id: int
    buckets: Buckets


@dataclass(frozen=True)
class ItemTable:
    """Summary of a written item table.

    varying: fields with at least two values in it, in the order of ITEM_FIELDS, then entity.
    constant: all other fields.
    rows: number of its rows, with the reserved ones.
    listed_from: its first row that comes from the catalogue.
    """

    varying: tuple[str, ...]
    constant: tuple[str, ...]
    rows: int
    listed_from: int


def with_title_words(snapshots: DataFrame) -> DataFrame:
    """RAW_ITEM's columns and dt; items without entities get the words of their title."""
    given = F.filter("entities", lambda entity: entity != "")
    of_title = F.array_distinct(words(F.col("title"), stop_words()))
    lacking = F.coalesce(F.size(given), F.lit(0)) <= 0
    return snapshots.withColumn("entities", F.when(lacking, of_title).otherwise(given))


def versions(snapshots: DataFrame, known_from: datetime.date) -> DataFrame:
    """The versions of each item, compared by the catalogue's own values.

    If a snapshot has an item twice, the larger row counts, so that the choice is deterministic.

    Args:
        snapshots: RAW_ITEM's columns and dt.
        known_from: the versions of this day hold for all earlier days too.

    Returns:
        item_id, day (its first day; LONG_AGO if it holds for all earlier days), category, shop,
        brand, price, entities, snapshot_rows (number of its rows in the snapshots up to the next
        version; not all of them for items). Rows without id are there with the id null.
    """
    early = F.col(DAY) <= F.lit(known_from)
    of_day = (
        snapshots.withColumn("item_id", F.nullif(F.col("item_id"), F.lit("")))
        .withColumn("day", F.when(early, F.lit(LONG_AGO)).otherwise(F.col(DAY)))
        .groupBy("item_id", "day")
        .agg(F.max(F.struct(DAY, *_ATTRIBUTES)).alias("latest"), F.count("*").alias("rows"))
        .select(
            "item_id",
            "day",
            *(F.col(f"latest.{name}").alias(name) for name in _ATTRIBUTES),
            F.col("rows").alias("snapshot_rows"),
        )
    )
    return _changed(of_day, _ATTRIBUTES)


def _changed(versions: DataFrame, names: Sequence[str]) -> DataFrame:
    """The versions that differ from the item's version before; and all rows without item id."""
    values = F.struct(*names)
    before = F.lag(values).over(Window.partitionBy("item_id").orderBy("day"))
    return (
        versions.withColumn("same", values.eqNullSafe(before))
        .where(~F.col("same") | F.col("item_id").isNull())
        .select(*versions.columns)
    )


def summarize(
    versions: DataFrame, price_buckets: int, learnt_on: datetime.date
) -> CatalogueSummary:
    """One aggregate over `versions`: counts, and the exact quantiles of the prices.

    Args:
        versions: result of `versions`.
        price_buckets: number of buckets of the price.
        learnt_on: the last day whose prices count; if there are none, all count.
    """
    named = F.col("item_id").isNotNull()
    price = F.when(named, F.col("price"))
    found = versions.agg(
        F.count_distinct("item_id"),
        F.sum(F.when(~named, F.col("snapshot_rows")).otherwise(0)),
        edges(F.when(F.col("day") <= F.lit(learnt_on), price), price_buckets),
        edges(price, price_buckets),
    ).first()
    assert found is not None
    items, rows_without_id, of_early_prices, of_prices = found
    buckets = Buckets.of(of_early_prices or of_prices, price_buckets)
    return CatalogueSummary(items, rows_without_id or 0, buckets)


def numbered(versions: DataFrame, entries: DataFrame, buckets: Buckets, entities: int) -> DataFrame:
    """The rows of the item table with their values, not yet indexed; without the reserved rows.

    Args:
        versions: result of `versions`.
        entries: field, key, index of the vocabularies.
        buckets: of the price.
        entities: number of entities of a row.

    Returns:
        item (the row's number), item_id, day, listed (whether it is a version of the catalogue),
        category, shop, brand, bucket, entities.
    """
    given = F.array_distinct(F.filter("entities", lambda entity: entity != ""))
    listed = _changed(
        versions.where(F.col("item_id").isNotNull()).select(
            "item_id",
            "day",
            F.lit(True).alias("listed"),
            *(F.nullif(F.col(name), F.lit("")).alias(name) for name in _SINGLE),
            buckets.index(F.col("price")).alias("bucket"),
            F.slice(F.coalesce(given, F.array().cast("array<string>")), 1, entities).alias(
                "entities"
            ),
        ),
        (*_SINGLE, "bucket", "entities"),
    )
    # Items of the log without a version that holds from the first day on.
    from_the_first_day = listed.where(F.col("day") == F.lit(LONG_AGO)).select("item_id")
    not_listed = (
        entries.where(F.col("field") == ITEM_ID)
        .select(F.col("key").alias("item_id"))
        .join(from_the_first_day, "item_id", how="left_anti")
        .select("item_id", F.lit(LONG_AGO).alias("day"), F.lit(False).alias("listed"))
    )
    number = F.row_number().over(Window.orderBy("listed", "day", "item_id"))
    return (
        listed.unionByName(not_listed, allowMissingColumns=True)
        .withColumn("bucket", F.coalesce("bucket", F.lit(MISSING)))
        .withColumn("item", number + (FIRST_INDEX - 1))
        .select("item", *listed.columns)
    )


def rows_of_items(numbered: DataFrame) -> DataFrame:
    """The rows of each item: item_id, and versions, an array of (day, item), newest first."""
    return numbered.groupBy("item_id").agg(
        F.sort_array(F.collect_list(F.struct("day", "item")), asc=False).alias("versions")
    )


def row_on(day: Column) -> Column:
    """The row of an item on a day, from the column `versions` of `rows_of_items`.

    UNKNOWN if the item has none: neither the catalogue nor earlier days know it.
    """
    newest = F.get("versions", F.lit(0))
    until = F.get(F.filter("versions", lambda one: one["day"] <= day), F.lit(0))
    row = F.when(newest["day"] <= day, newest["item"]).otherwise(until["item"])
    return F.coalesce(row, F.lit(UNKNOWN))


def item_rows(spark: SparkSession, numbered: DataFrame, own: DataFrame, entities: int) -> DataFrame:
    """The item table in one partition, sorted by `item`, the reserved indices first.

    Args:
        spark: the session.
        numbered: result of `numbered`.
        own: the entries that have their own embedding; all other values become unknown.
        entities: number of entities of a row.

    Returns:
        ITEM_ROWS.
    """
    since = F.nullif(F.col("day"), F.lit(LONG_AGO))
    # One row per value of an item; its id is one of them, so that no item is lost.
    keys = catalogue_keys(numbered.withColumn("valid_from", since), "item", "valid_from", "bucket")
    # Back to one row per version: a column for each field, and the entities sorted by their place.
    index = F.coalesce("index", F.lit(UNKNOWN))
    single = {
        name: F.coalesce(F.max(F.when(F.col("field") == name, index)), F.lit(MISSING))
        for name in ITEM_FIELDS
        if name != "price"
    }
    several = F.when(F.col("field") == ENTITY, F.struct("place", index.alias("index")))
    rows = (
        keys.join(own, ["field", "key"], how="left")
        .groupBy("item")
        .agg(
            F.max(F.when(F.col("field") == ITEM_ID, F.col("key"))).alias("key"),
            F.max("valid_from").alias("valid_from"),
            F.max("bucket").alias("price"),
            *(column.alias(name) for name, column in single.items()),
            F.sort_array(F.collect_list(several)).alias("found"),
        )
        .withColumn("entities", _padded(F.col("found.index"), entities))
        .select(*ITEM_ROWS.names)
    )
    return (
        rows.unionByName(_reserved(spark, entities))
        .repartition(1)
        .sortWithinPartitions("item")
        .select(*ITEM_ROWS.names)
    )


def with_own_embedding(
    entries: DataFrame,
    versions: DataFrame,
    events: DataFrame,
    min_events: int,
    min_items: int,
) -> DataFrame:
    """The entries of values that occur often enough to have their own embedding.

    Two shuffles, by item and by (field, key), unless both minimums are 1.

    Args:
        entries: field, key, index of the vocabularies.
        versions: result of `versions`.
        events: the events that models learn from.
        min_events: minimum number of events of an item, for its id.
        min_items: minimum number of items with a value of a catalogue field, for that value.
    """
    if min_events == min_items == 1:
        return entries
    ids = events.select(F.lit(ITEM_ID).alias("field"), F.col("item_id").alias("key"))
    ids = ids.groupBy("field", "key").agg(F.count("*").alias("number"))
    named = versions.where(F.col("item_id").isNotNull())
    values = (
        catalogue_keys(named, "item_id")
        .where(F.col("field") != ITEM_ID)
        .groupBy("field", "key")
        .agg(F.count_distinct("item_id").alias("number"))
    )
    often = ids.where(F.col("number") >= min_events).unionByName(
        values.where(F.col("number") >= min_items)
    )
    return entries.join(often.select("field", "key"), ["field", "key"], how="left_semi")


def write(rows: DataFrame, folder: str, listed_from: int) -> ItemTable:
    """Write `item_rows` to a folder, and summarize them in the same pass.

    `listed_from` is the first row that comes from the catalogue.
    """
    observed = Observation()
    columns = [F.count("*").alias("rows")]
    for name in ITEM_FIELDS:
        real = F.when(F.col(name) >= FIRST_INDEX, F.col(name))
        columns.append((F.max(real) > F.min(real)).alias(name))
    real = F.filter("entities", lambda index: index >= FIRST_INDEX)
    varies = F.max(F.array_max(real)) > F.min(F.array_min(real))
    rows = rows.observe(observed, *columns, varies.alias(ENTITY))
    write_one_file(rows.select(*ITEM_ROWS.names), folder)
    found, fields = observed.get, (*ITEM_FIELDS, ENTITY)
    return ItemTable(
        tuple(name for name in fields if found[name]),
        tuple(name for name in fields if not found[name]),
        found["rows"],
        listed_from,
    )


def _padded(indices: Column, width: int) -> Column:
    """An array of length `width`: indices and then padding; MISSING if there are no indices."""
    given = F.when(F.size(indices) > 0, indices).otherwise(F.array(F.lit(MISSING)))
    return F.slice(F.concat(given, F.array_repeat(F.lit(PADDING), width)), 1, width)


def _reserved(spark: SparkSession, entities: int) -> DataFrame:
    """The rows of PADDING, MISSING and UNKNOWN: each has its own index in all fields."""
    rows = [
        (index, None, None, *[index] * len(ITEM_FIELDS), [index] + [PADDING] * (entities - 1))
        for index in (PADDING, MISSING, UNKNOWN)
    ]
    return spark.createDataFrame(rows, ITEM_ROWS)
