"""The item table: every item of the catalogue as a row of indices.

Shuffles: one by item to find its latest snapshot, one by item to collect the indices of its
values, and one to write the table as one sorted file. If the vocabularies are too large to
broadcast, also one by item and one by (field, key) to look up indices. `with_own_embedding` has
two more.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from mfn.indices import FIRST_INDEX, ITEM_FIELDS, MISSING, PADDING, UNKNOWN
from mfn.logs.raw import DAY
from mfn.logs.title_words import stop_words, words
from mfn.schema import ITEM_ROWS
from mfn.splits.buckets import Buckets, edges
from mfn.splits.vocabulary import ITEM, ITEM_ID, catalogue_keys
from mfn.splits.writing import write_one_file

ENTITY = "entity"
_ATTRIBUTES = ("category", "shop", "brand", "price", "entities")


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
    in_snapshots: number of items that are in a snapshot.
    """

    varying: tuple[str, ...]
    constant: tuple[str, ...]
    in_snapshots: int


def with_title_words(snapshots: DataFrame) -> DataFrame:
    """RAW_ITEM's columns and dt; items without entities get the words of their title."""
    given = F.filter("entities", lambda entity: entity != "")
    of_title = F.array_distinct(words(F.col("title"), stop_words()))
    lacking = F.coalesce(F.size(given), F.lit(0)) <= 0
    return snapshots.withColumn("entities", F.when(lacking, of_title).otherwise(given))


def latest_attributes(snapshots: DataFrame) -> DataFrame:
    """Each item's attributes from its latest snapshot.

    If a snapshot has an item twice, the larger row counts, so that the choice is deterministic.

    Args:
        snapshots: RAW_ITEM's columns and dt.

    Returns:
        item_id (null in the one row for all rows without id), category, shop, brand, price,
        entities, snapshot_rows (number of its rows in all snapshots).
    """
    return (
        snapshots.withColumn("item_id", F.nullif(F.col("item_id"), F.lit("")))
        .groupBy("item_id")
        .agg(F.max(F.struct(DAY, *_ATTRIBUTES)).alias("latest"), F.count("*").alias("rows"))
        .select(
            "item_id",
            *(F.col(f"latest.{name}").alias(name) for name in _ATTRIBUTES),
            F.col("rows").alias("snapshot_rows"),
        )
    )


def summarize(attributes: DataFrame, price_buckets: int) -> CatalogueSummary:
    """One aggregate over `latest_attributes`: counts, and the exact quantiles of the prices."""
    named = F.col("item_id").isNotNull()
    price = F.when(named, F.col("price"))
    found = attributes.agg(
        F.count("item_id"),
        F.sum(F.when(~named, F.col("snapshot_rows")).otherwise(0)),
        edges(price, price_buckets),
    ).first()
    assert found is not None
    items, rows_without_id, of_price = found
    return CatalogueSummary(items, rows_without_id or 0, Buckets.of(of_price, price_buckets))


def item_rows(
    spark: SparkSession,
    attributes: DataFrame,
    entries: DataFrame,
    own: DataFrame,
    buckets: Buckets,
    entities: int,
) -> DataFrame:
    """The item table in one partition, sorted by `item`, the reserved indices first.

    An item of the vocabulary that is in no snapshot any more has a row too, with all attributes
    missing.

    Args:
        spark: the session.
        attributes: result of `latest_attributes`.
        entries: field, key, index of the vocabularies.
        own: the entries that have their own embedding; all other values become unknown.
        buckets: of the price.
        entities: number of entities of a row.

    Returns:
        ITEM_ROWS, and in_snapshot: whether a snapshot has the item.
    """
    # One row per item of the vocabulary, with its attributes.
    rows_of_items = entries.where(F.col("field") == ITEM).select(
        F.col("index").alias("item"), F.col("key").alias("item_id")
    )
    of_item = rows_of_items.join(attributes, "item_id", how="left").select(
        "item",
        "item_id",
        F.col("item_id").alias("of_log"),
        F.col("snapshot_rows").isNotNull().alias("in_snapshot"),
        buckets.index(F.col("price")).alias("bucket"),
        *(name for name in _ATTRIBUTES if name != "price"),
    )
    carried = ("item", "of_log", "in_snapshot", "bucket")
    # One row per value of an item. The item's own id is looked up in the vocabulary of ids from
    # events: only those have their own embedding.
    keys = catalogue_keys(of_item, *carried).withColumn(
        "field", F.when(F.col("field") == ITEM, ITEM_ID).otherwise(F.col("field"))
    )
    # Back to one row per item: a column for each field, and the entities sorted by their place.
    index = F.coalesce("index", F.lit(UNKNOWN))
    single = {
        name: F.coalesce(F.max(F.when(F.col("field") == name, index)), F.lit(MISSING))
        for name in ITEM_FIELDS
        if name != "price"
    }
    several = F.when(F.col("field") == ENTITY, F.struct("place", index.alias("index")))
    rows = (
        keys.where(F.col("place").isNull() | (F.col("place") < entities))
        .join(own, ["field", "key"], how="left")
        .groupBy("item")
        .agg(
            F.max("of_log").alias("key"),
            F.max("in_snapshot").alias("in_snapshot"),
            F.max("bucket").alias("price"),
            *(column.alias(name) for name, column in single.items()),
            F.sort_array(F.collect_list(several)).alias("found"),
        )
        .withColumn("entities", _padded(F.col("found.index"), entities))
        .select(*ITEM_ROWS.names, "in_snapshot")
    )
    return (
        rows.unionByName(_reserved(spark, entities))
        .repartition(1)
        .sortWithinPartitions("item")
        .select(*ITEM_ROWS.names, "in_snapshot")
    )


def with_own_embedding(
    entries: DataFrame,
    attributes: DataFrame,
    events: DataFrame,
    min_events: int,
    min_items: int,
) -> DataFrame:
    """The entries of values that occur often enough to have their own embedding.

    Two shuffles, by item and by (field, key), unless both minimums are 1.

    Args:
        entries: field, key, index of the vocabularies.
        attributes: result of `latest_attributes`.
        events: the events that models learn from.
        min_events: minimum number of events of an item, for its id.
        min_items: minimum number of items with a value of a catalogue field, for that value.
    """
    if min_events == min_items == 1:
        return entries
    ids = events.select(F.lit(ITEM_ID).alias("field"), F.col("item_id").alias("key"))
    ids = ids.groupBy("field", "key").agg(F.count("*").alias("number"))
    named = attributes.where(F.col("item_id").isNotNull())
    values = catalogue_keys(named).groupBy("field", "key").agg(F.count("*").alias("number"))
    often = ids.where(F.col("number") >= min_events).unionByName(
        values.where((F.col("number") >= min_items) & (F.col("field") != ITEM))
    )
    return entries.join(often.select("field", "key"), ["field", "key"], how="left_semi")


def write(rows: DataFrame, folder: str) -> ItemTable:
    """Write `item_rows` to a folder, and summarize them in the same pass."""
    observed = Observation()
    columns = [F.count_if("in_snapshot").alias("in_snapshots")]
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
        found["in_snapshots"],
    )


def _padded(indices: Column, width: int) -> Column:
    """An array of length `width`: indices and then padding; MISSING if there are no indices."""
    given = F.when(F.size(indices) > 0, indices).otherwise(F.array(F.lit(MISSING)))
    return F.slice(F.concat(given, F.array_repeat(F.lit(PADDING), width)), 1, width)


def _reserved(spark: SparkSession, entities: int) -> DataFrame:
    """The rows of PADDING, MISSING and UNKNOWN: each has its own index in all fields."""
    rows = [
        (index, None, *[index] * len(ITEM_FIELDS), [index] + [PADDING] * (entities - 1))
        for index in (PADDING, MISSING, UNKNOWN)
    ]
    return spark.createDataFrame(rows, ITEM_ROWS).withColumn("in_snapshot", F.lit(False))
