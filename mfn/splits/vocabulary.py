"""Vocabularies: an index for every value of every field, for ever.

The Delta table `vocabularies` only grows. Days are folded into it in their order: the keys that a
day brings in are sorted and get the next indices, and each entry tells the day. Those known by a
day are therefore the first ones of the table as it is on any later day, and an old day that is
built again finds the indices that it found before. A day that is folded is never folded again:
keys that turn up in it afterwards are unknown until a later day has them.

What a run for D may know: fields of the catalogue up to and including D (its opening snapshot),
fields of events and profiles of the days before D only.

**Fingerprint** of a vocabulary's first n indices: its entries, in the order of their indices, are
cut into blocks of 65,536; each block's SHA-256 is taken over its keys, every key preceded by its
length in characters and a colon; the fingerprint is the SHA-256 of the blocks' hexadecimal
digests, one after the other. So Spark computes it without bringing the keys to one place, and an
artifact's (n, fingerprint) can be held against the first n entries of any later vocabulary.

Folding costs one shuffle by (field, key) for the first day of each key, one to leave out known
keys (unless they fit a broadcast) and one by field to number the new ones.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from mfn import tables
from mfn.errors import DataRefused
from mfn.indices import FIRST_INDEX
from mfn.schema import VOCABULARIES
from mfn.settings import Settings
from mfn.storage import check_claims

CATALOGUE_FIELDS = ("item", "category", "shop", "brand", "entity")
ITEM, ITEM_ID = "item", "item_id"
LONG_AGO = datetime.date(1900, 1, 1)
BLOCK_BITS = 16
BLOCK = 1 << BLOCK_BITS

_KEYS = "array<struct<field:string,key:string,place:int>>"
_OF_ATTRIBUTES = {"item": "item_id", "category": "category", "shop": "shop", "brand": "brand"}


class IndexedMeanwhile(DataRefused):
    """Another run has indexed since this one looked; what it has to index is to be found anew."""


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a vocabulary's first entries: `size` is the largest index plus 1."""

    size: int
    digest: str

    def as_json(self) -> dict[str, int | str]:
        """The form in which manifests keep it."""
        return {"size": self.size, "fingerprint": self.digest}


def catalogue_keys(items: DataFrame, *carried: str) -> DataFrame:
    """Every value of every catalogue field of each row of `items`.

    Args:
        items: columns item_id, category, shop, brand, entities, and those `carried` along.

    Returns:
        carried columns, field, key, place (of an entity among the item's, from 0; else null).
    """
    single = [
        F.struct(
            F.lit(field).alias("field"),
            F.nullif(F.col(name), F.lit("")).alias("key"),
            F.lit(None).cast("int").alias("place"),
        )
        for field, name in _OF_ATTRIBUTES.items()
    ]
    entities = F.array_distinct(
        F.filter("entities", lambda entity: entity.isNotNull() & (entity != ""))
    )
    several = F.transform(
        entities,
        lambda entity, place: F.struct(
            F.lit("entity").alias("field"), entity.alias("key"), place.alias("place")
        ),
    )
    every = F.concat(F.array(*single), F.coalesce(several, F.array().cast(_KEYS)))
    return (
        items.select(*carried, F.inline(every))
        .where(F.col("key").isNotNull())
        .select(*carried, "field", "key", "place")
    )


def event_fields(settings: Settings) -> list[str]:
    """Fields that are learnt from events and profiles, of the days before the run date only."""
    users = [f"user.{name}" for name in settings.splits.user_fields]
    return [ITEM_ID, *users, *(f"context.{name}" for name in settings.splits.context_fields)]


def map_keys(frame: DataFrame, values: str, prefix: str, names: Sequence[str]) -> DataFrame:
    """Values of these keys of a map column, under the field names `prefix.name`.

    Args:
        frame: columns day and `values`, a map of strings.

    Returns:
        day, field, key.
    """
    pairs = [
        F.struct(
            F.lit(f"{prefix}.{name}").alias("field"),
            F.nullif(F.col(values)[name], F.lit("")).alias("key"),
        )
        for name in names
    ]
    return (
        frame.select("day", F.inline(F.array(*pairs)))
        .where(F.col("key").isNotNull())
        .select("day", "field", "key")
    )


def last_folded(spark: SparkSession, root: str) -> dict[str, datetime.date]:
    """For each field that has entries, the last day that is folded into it.

    The catalogue's fields are folded together, so that they share the latest of their days.
    """
    if not tables.is_there(spark, root, VOCABULARIES):
        return {}
    rows = (
        tables.read(spark, root, VOCABULARIES, "build_splits")
        .groupBy("field")
        .agg(F.max("indexed_on").alias("day"))
        .collect()
    )
    last: dict[str, datetime.date] = {row["field"]: row["day"] for row in rows}
    catalogue = [last[field] for field in CATALOGUE_FIELDS if field in last]
    return last | (dict.fromkeys(CATALOGUE_FIELDS, max(catalogue)) if catalogue else {})


def fold(
    spark: SparkSession,
    root: str,
    keys: Sequence[DataFrame],
    last: Mapping[str, datetime.date],
) -> int:
    """Append the keys of days after `last[field]`, all days in one pass and one commit.

    Args:
        keys: frames of day, field, key; a key may come often.
        last: as `last_folded` gave it before these frames were made.

    Returns:
        How many entries were appended.

    Raises:
        IndexedMeanwhile: another run has appended since `last` was looked at.
        Superseded: another run of the same job has begun.
    """
    if not keys:
        return 0
    there = tables.is_there(spark, root, VOCABULARIES)
    fresh = (
        reduce(DataFrame.unionByName, keys)
        .where(F.col("day") > F.coalesce(_by_field(last), F.lit(LONG_AGO)))
        .groupBy("field", "key")
        .agg(F.min("day").alias("indexed_on"))
    )
    sizes: dict[str, int] = {}
    if there:
        known = tables.read(spark, root, VOCABULARIES, "build_splits")
        fresh = fresh.join(known.select("field", "key"), ["field", "key"], how="left_anti")
        sizes = {row["field"]: row["count"] for row in known.groupBy("field").count().collect()}
    number = F.row_number().over(Window.partitionBy("field").orderBy("indexed_on", "key"))
    entries = fresh.select(
        "field",
        "key",
        (number + F.coalesce(_by_field(sizes), F.lit(0)) + (FIRST_INDEX - 1)).alias("index"),
        "indexed_on",
    ).persist()
    try:
        added = entries.count()
        if added:
            append(spark, root, entries, sum(sizes.values()))
    finally:
        entries.unpersist()
    return added


def append(spark: SparkSession, root: str, entries: DataFrame, before: int) -> None:
    """Append in one commit, unless the table no longer has the `before` entries it was read with.

    Delta skips a transaction version that it has seen, and refuses one that is being written.

    Raises:
        IndexedMeanwhile: another run has appended other entries in the meantime; nothing was.
        Superseded: another run of the same job has begun.
    """
    check_claims()
    if not before:
        tables.append(spark.createDataFrame([], VOCABULARIES.columns), root, VOCABULARIES)
    writer = (
        entries.write.format("delta")
        .option("txnAppId", VOCABULARIES.name)
        .option("txnVersion", before)
        .mode("append")
    )
    refused = IndexedMeanwhile(
        f"{tables.path_of(root, VOCABULARIES)}: another run indexed at the same time; "
        "run this one again"
    )
    try:
        writer.save(tables.path_of(root, VOCABULARIES))
    except Exception as error:
        if "DELTA_CONCURRENT_TRANSACTION" not in str(error):
            raise
        raise refused from error
    table = tables.read(spark, root, VOCABULARIES, "build_splits")
    if not entries.join(table, [*table.columns], how="left_anti").isEmpty():
        raise refused


def usable(
    spark: SparkSession, root: str, date: datetime.date, other_fields: Sequence[str]
) -> DataFrame:
    """Entries that a run for `date` may know, of the catalogue and of `other_fields`.

    Returns:
        field, key, index.
    """
    entries = tables.read(spark, root, VOCABULARIES, "build_splits")
    catalogue = F.col("field").isin(*CATALOGUE_FIELDS) & (F.col("indexed_on") <= date)
    others = F.col("field").isin(*other_fields) & (F.col("indexed_on") < date)
    return entries.where(catalogue | others).select("field", "key", "index")


def refuse_if_begun_later(
    folded: Iterable[str], sizes: Mapping[str, Fingerprint], date: datetime.date, root: str
) -> None:
    """Refuse a date whose items were not indexed when the vocabularies began.

    Args:
        folded: fields that have entries.
        sizes: what `date` may use, as `fingerprints` gives it.

    Raises:
        DataRefused: a field of items has entries, but all of them are later than `date` allows.
    """
    for field, allowed in ((ITEM, "on or before"), (ITEM_ID, "before")):
        if field in folded and field not in sizes:
            raise DataRefused(
                f"date: expected entries of the vocabulary {field} indexed {allowed} {date}, but "
                f"those in {tables.path_of(root, VOCABULARIES)} began later, and earlier days are "
                "never indexed afterwards; choose a later date, or build this one under another "
                "root"
            )


def fingerprints(entries: DataFrame) -> dict[str, Fingerprint]:
    """Size and fingerprint of each field, in one pass; fields without entries are not in it.

    Args:
        entries: field, key, index.

    Raises:
        DataRefused: a field's indices are not 3, 4, 5, … each once.
    """
    keys = F.transform(
        F.sort_array(F.collect_list(F.struct("index", "key"))),
        lambda entry: F.concat(F.length(entry["key"]), F.lit(":"), entry["key"]),
    )
    blocks = (
        entries.groupBy(
            "field", F.shiftright(F.col("index") - FIRST_INDEX, BLOCK_BITS).alias("block")
        )
        .agg(
            F.count("*").alias("count"),
            F.max("index").alias("largest"),
            F.sha2(F.concat_ws("", keys), 256).alias("digest"),
        )
        .orderBy("field", "block")
        .collect()
    )
    found = {}
    for field, group in itertools.groupby(blocks, key=lambda row: str(row["field"])):
        of_field = list(group)
        largest = max(row["largest"] for row in of_field)
        entries_of_field = sum(row["count"] for row in of_field)
        if entries_of_field != largest - FIRST_INDEX + 1:
            raise DataRefused(
                f"vocabulary {field}: expected the indices {FIRST_INDEX} to {largest} each once, "
                f"got {entries_of_field} entries; restore the table {VOCABULARIES.name} to its "
                "version from before it was changed by hand"
            )
        digest = hashlib.sha256("".join(row["digest"] for row in of_field).encode())
        found[field] = Fingerprint(largest + 1, digest.hexdigest())
    return found


def fingerprint(entries: DataFrame, size: int) -> str:
    """Fingerprint of the first indices, up to but without `size`, of one field's vocabulary.

    Args:
        entries: key, index of one field.
        size: a size that `fingerprints` gave for it or for an earlier state of it.

    Raises:
        ValueError: the vocabulary is smaller than that.
    """
    prefix = entries.where(F.col("index") < size).withColumn("field", F.lit("one"))
    found = fingerprints(prefix).get("one", Fingerprint(FIRST_INDEX, fingerprint_of([])))
    if found.size != size:
        raise ValueError(f"size: expected at most {found.size}, the vocabulary's own, got {size}")
    return found.digest


def fingerprint_of(keys: Sequence[str]) -> str:
    """The fingerprint of a vocabulary that has these keys, in this order, from the first index."""
    blocks = itertools.groupby(enumerate(keys), key=lambda entry: entry[0] // BLOCK)
    digests = (
        hashlib.sha256("".join(f"{len(key)}:{key}" for _, key in block).encode()).hexdigest()
        for _, block in blocks
    )
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _by_field(values: Mapping[str, datetime.date] | Mapping[str, int]) -> Column:
    """The value of each row's field; null for fields that have none."""
    if not values:
        return F.lit(None)
    return F.create_map(*(F.lit(part) for pair in values.items() for part in pair))[F.col("field")]
