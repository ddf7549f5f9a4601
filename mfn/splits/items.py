"""The item table: every item of the catalogue as a row of indices.

One shuffle by item for the latest snapshot of each, one by item to bring the indices of its values
together, and one that leaves the table in one sorted file; where the vocabularies are too large to
broadcast, also one by item and one by (field, key) to look things up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from mfn.logs.raw import DAY
from mfn.schema import FIRST_INDEX, ITEM_FIELDS, ITEM_ROWS, MISSING, PADDING, UNKNOWN
from mfn.splits.vocabulary import ITEM, ITEM_ID, Fingerprint, catalogue_keys, fingerprint_of
from mfn.splits.writing import write_one_file

ENTITY = "entity"
_ATTRIBUTES = ("category", "shop", "brand", "price", "entities")


@dataclass(frozen=True)
class PriceBuckets:
    """Quantile buckets of the price: bucket b holds prices from boundaries[b-1] to below
    boundaries[b]. What an index means is its rank in the catalogue, not an amount of money.
    """

    boundaries: tuple[float, ...]
    count: int

    @property
    def fingerprint(self) -> Fingerprint:
        """As of a vocabulary whose keys are the buckets' numbers."""
        return Fingerprint(
            FIRST_INDEX + self.count, fingerprint_of([str(bucket) for bucket in range(self.count)])
        )

    def index(self, price: Column) -> Column:
        """The index of a price; MISSING where there is none."""
        bucket = sum((F.when(price >= edge, 1).otherwise(0) for edge in self.boundaries), F.lit(0))
        return F.when(_is_price(price), F.lit(FIRST_INDEX) + bucket).otherwise(MISSING)


NO_BUCKETS = PriceBuckets((), 0)
"""Of a catalogue without prices."""


@dataclass(frozen=True)
class Catalogue:
    """What one look at the catalogue tells before its rows are made.

    items: different ids in it.
    rows_without_id: rows of snapshots that are of no use, unreadable lines among them.
    """

    items: int
    rows_without_id: int
    buckets: PriceBuckets


@dataclass(frozen=True)
class ItemTable:
    """What is in an item table that was written.

    varying: fields of which it has at least two values, in the order of ITEM_FIELDS, then entity.
    constant: the others.
    in_snapshots: items that are in a snapshot.
    """

    varying: tuple[str, ...]
    constant: tuple[str, ...]
    in_snapshots: int


def latest_attributes(snapshots: DataFrame) -> DataFrame:
    """Each item's attributes from its latest snapshot.

    An item that one snapshot has twice takes one of them, always the same.

    Args:
        snapshots: RAW_ITEM's columns and dt.

    Returns:
        item_id (null in one row that stands for all without), category, shop, brand, price,
        entities, snapshot_rows (that it has in all snapshots).
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


def look_at(attributes: DataFrame, price_buckets: int) -> Catalogue:
    """One aggregate over `latest_attributes`: counts, and the exact quantiles of the prices."""
    shares = [place / price_buckets for place in range(1, price_buckets)]
    named = F.col("item_id").isNotNull()
    price = F.when(named & _is_price(F.col("price")), F.col("price"))
    found = attributes.agg(
        F.count("item_id"),
        F.sum(F.when(~named, F.col("snapshot_rows")).otherwise(0)),
        F.count(price),
        F.percentile(price, shares or [0.5]),
    ).first()
    assert found is not None
    items, rows_without_id, prices, edges = found
    buckets = PriceBuckets(tuple(edges[: len(shares)]), price_buckets) if prices else NO_BUCKETS
    return Catalogue(items, rows_without_id or 0, buckets)


def item_rows(
    spark: SparkSession,
    attributes: DataFrame,
    entries: DataFrame,
    buckets: PriceBuckets,
    entities: int,
) -> DataFrame:
    """The item table in one partition, sorted by `item`, its first rows the reserved ones.

    An item that is in the vocabulary and in no snapshot any more has its row, and misses all
    attributes.

    Args:
        attributes: as `latest_attributes` gives them.
        entries: field, key, index of the vocabularies.
        buckets: of the price.
        entities: how many entities a row holds.

    Returns:
        ITEM_ROWS and in_snapshot, whether a snapshot has the item.
    """
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
    # The item's own key is looked up among those that events brought in: it has an embedding of
    # its own only then.
    keys = catalogue_keys(of_item, *carried).withColumn(
        "field", F.when(F.col("field") == ITEM, ITEM_ID).otherwise(F.col("field"))
    )
    index = F.coalesce("index", F.lit(UNKNOWN))
    single = {
        name: F.coalesce(F.max(F.when(F.col("field") == name, index)), F.lit(MISSING))
        for name in ITEM_FIELDS
        if name != "price"
    }
    several = F.when(F.col("field") == ENTITY, F.struct("place", index.alias("index")))
    rows = (
        keys.where(F.col("place").isNull() | (F.col("place") < entities))
        .join(entries, ["field", "key"], how="left")
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


def write(rows: DataFrame, folder: str) -> ItemTable:
    """Write `item_rows` to a folder, and say what is in them."""
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


def _is_price(price: Column) -> Column:
    return price.isNotNull() & ~F.isnan(price) & (F.abs(price) != math.inf)


def _padded(indices: Column, width: int) -> Column:
    given = F.when(F.size(indices) > 0, indices).otherwise(F.array(F.lit(MISSING)))
    return F.slice(F.concat(given, F.array_repeat(F.lit(PADDING), width)), 1, width)


def _reserved(spark: SparkSession, entities: int) -> DataFrame:
    rows = [
        (index, None, *[index] * len(ITEM_FIELDS), [index] + [PADDING] * (entities - 1))
        for index in (PADDING, MISSING, UNKNOWN)
    ]
    return spark.createDataFrame(rows, ITEM_ROWS).withColumn("in_snapshot", F.lit(False))
