"""The item table: every item of the catalogue as a row of indices.

One shuffle by item for the latest snapshot of each, one by (field, key) to look its values up
unless the vocabularies fit a broadcast, one by item to bring them together, and one that leaves
the table in one sorted file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from mfn.schema import FIRST_INDEX, ITEM_FIELDS, ITEM_ROWS, MISSING, PADDING, UNKNOWN
from mfn.splits.snapshots import DAY
from mfn.splits.vocabulary import ITEM, ITEM_ID, Fingerprint, catalogue_keys, fingerprint_of

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


def latest_attributes(snapshots: DataFrame) -> DataFrame:
    """Each item's attributes from its latest snapshot.

    An item that one snapshot has twice takes one of them, always the same.

    Args:
        snapshots: RAW_ITEM's columns and dt; rows without item_id are left out.

    Returns:
        item_id, category, shop, brand, price, entities.
    """
    latest = F.max(F.struct(DAY, *_ATTRIBUTES))
    return (
        snapshots.where(F.nullif(F.col("item_id"), F.lit("")).isNotNull())
        .groupBy("item_id")
        .agg(latest.alias("latest"))
        .select("item_id", *(F.col(f"latest.{name}") for name in _ATTRIBUTES))
    )


def price_buckets(attributes: DataFrame, count: int) -> PriceBuckets:
    """Boundaries at the exact quantiles of the catalogue's prices; no buckets without prices."""
    shares = [place / count for place in range(1, count)] or [0.5]
    found = attributes.where(_is_price(F.col("price"))).agg(F.percentile("price", shares)).first()
    edges: Sequence[float] | None = found[0] if found else None
    if edges is None:
        return PriceBuckets((), 0)
    return PriceBuckets(tuple(edges) if count > 1 else (), count)


def item_rows(
    spark: SparkSession,
    attributes: DataFrame,
    entries: DataFrame,
    buckets: PriceBuckets,
    entities: int,
) -> DataFrame:
    """The item table in one partition, sorted by `item`, its first rows the reserved ones.

    Args:
        attributes: as `latest_attributes` gives them.
        entries: field, key, index of the vocabularies.
        buckets: of the price.
        entities: how many entities a row holds.

    Returns:
        ITEM_ROWS; an item that is in the vocabulary and in no snapshot has missing attributes.
    """
    priced = attributes.withColumn("bucket", buckets.index(F.col("price"))).withColumn(
        "log_id", F.col("item_id")
    )
    # The item's own key is looked up among those that events brought in: it has an embedding of
    # its own only then.
    keys = catalogue_keys(priced, "log_id", "bucket").withColumn(
        "field", F.when(F.col("field") == ITEM, ITEM_ID).otherwise(F.col("field"))
    )
    single = [name for name in ITEM_FIELDS if name != "price"]
    index = F.coalesce("index", F.lit(UNKNOWN))
    found = (
        keys.where(F.col("place").isNull() | (F.col("place") < entities))
        .join(entries, ["field", "key"], how="left")
        .groupBy("log_id")
        .agg(
            F.max("bucket").alias("price"),
            *(F.max(F.when(F.col("field") == name, index)).alias(name) for name in single),
            F.sort_array(
                F.collect_list(
                    F.when(F.col("field") == ENTITY, F.struct("place", index.alias("entity")))
                )
            ).alias("of_item"),
        )
    )
    rows = (
        entries.where(F.col("field") == ITEM)
        .select(F.col("index").alias("item"), F.col("key").alias("log_id"))
        .join(found, "log_id", how="left")
        .select(
            "item",
            F.col("log_id").alias("key"),
            *(F.coalesce(name, F.lit(MISSING)).alias(name) for name in ITEM_FIELDS),
            _padded(F.col("of_item.entity"), entities).alias("entities"),
        )
    )
    return (
        rows.unionByName(_reserved(spark, entities))
        .repartition(1)
        .sortWithinPartitions("item")
        .select(*ITEM_ROWS.names)
    )


def variation() -> list[Column]:
    """For each item field, whether the table has two of its values: columns for `observe`."""
    columns = []
    for name in ITEM_FIELDS:
        real = F.when(F.col(name) >= FIRST_INDEX, F.col(name))
        columns.append((F.max(real) > F.min(real)).alias(name))
    real = F.filter("entities", lambda index: index >= FIRST_INDEX)
    varies = F.max(F.array_max(real)) > F.min(F.array_min(real))
    return [*columns, varies.alias(ENTITY)]


def varying(observed: Observation) -> tuple[list[str], list[str]]:
    """Fields that vary and fields that do not, in ITEM_FIELDS' order, entities last."""
    found = observed.get
    fields = [*ITEM_FIELDS, ENTITY]
    return [f for f in fields if found[f]], [f for f in fields if not found[f]]


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
    return spark.createDataFrame(rows, ITEM_ROWS)
