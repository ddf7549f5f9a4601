"""Vocabularies: every value of every field gets an index that never changes.

The Delta table `vocabularies` only grows, unless somebody restores an earlier version of it. Days
are indexed in order: the new keys of a day are sorted and get the next indices, and each entry has
its day. The entries known by a day are therefore the first entries of the table on any later day,
and an old day that is built again finds the same indices as before. A day is never indexed twice:
keys that are added to it afterwards stay unknown until a later day has them.

A run for the date D uses the values of catalogue fields up to and including D (the snapshot at the
start of D), and the values of event and profile fields of the days before D only.

**Fingerprint** of the first n indices of a vocabulary: the entries, sorted by index, are split
into blocks of 65,536. The digest of a block is the SHA-256 of its keys, each with its length in
characters and a colon before it. The fingerprint is the SHA-256 of the hexadecimal digests of all
blocks, joined. Spark can compute it without collecting the keys in one place, and the (n,
fingerprint) of an artifact can be compared with the first n entries of any later vocabulary.

Indexing needs one shuffle by (field, key) to find the first day of each key, one to drop known
keys (unless they fit into a broadcast), and one by field to number the new keys.
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

CATALOGUE_FIELDS = ("category", "shop", "brand", "entity")
ITEM_ID = "item_id"
LONG_AGO = datetime.date(1900, 1, 1)
BLOCK_BITS = 16
BLOCK = 1 << BLOCK_BITS

_KEYS = "array<struct<field:string,key:string,place:int>>"
_OF_ONE_VALUE = (ITEM_ID, "category", "shop", "brand")


_TRANSACTIONS = f"{VOCABULARIES.name}, by version of the table"
"""Name of the series of transaction versions."""


class IndexingConflict(DataRefused):
    """Another run has indexed keys since this run read the table; find the new keys again."""


@dataclass(frozen=True)
class Fingerprint:
    """Identifies the first entries of a vocabulary; `size` is their largest index plus 1."""

    size: int
    digest: str

    def as_json(self) -> dict[str, int | str]:
        """The form in manifests."""
        return {"size": self.size, "fingerprint": self.digest}


@dataclass(frozen=True)
class Indexed:
    """What the table of vocabularies held when it was read.

    Attributes:
        version: of the table; None if there was none.
        last: the last indexed day of each field that has entries.
        sizes: the number of entries of each such field.
    """

    version: int | None
    last: Mapping[str, datetime.date]
    sizes: Mapping[str, int]


def catalogue_keys(items: DataFrame, *carried: str) -> DataFrame:
    """Every value of every catalogue field of each row of `items`, and its id as ITEM_ID.

    Args:
        items: columns item_id, category, shop, brand, entities, and the `carried` ones.
        carried: columns to copy to the result.

    Returns:
        carried columns, field, key, place (number of an entity within its item, from 0; null for
        other fields).
    """
    # Fields with one value.
    single = [
        F.struct(
            F.lit(field).alias("field"),
            F.nullif(F.col(field), F.lit("")).alias("key"),
            F.lit(None).cast("int").alias("place"),
        )
        for field in _OF_ONE_VALUE
    ]
    # Entities, each once, in the item's order.
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
    """Fields of events and profiles; a run uses their values of days before the run date only."""
    users = [f"user.{name}" for name in settings.splits.user_fields]
    return [ITEM_ID, *users, *(f"context.{name}" for name in settings.splits.context_fields)]


def map_keys(frame: DataFrame, values: str, prefix: str, names: Sequence[str]) -> DataFrame:
    """The values of some keys of a map column, as keys of the fields `prefix.name`.

    Args:
        frame: columns day and `values`.
        values: the map column, strings to strings.
        prefix: first part of the field names.
        names: keys of the map.

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


def indexed(spark: SparkSession, root: str) -> Indexed:
    """What the table holds now.

    The catalogue's fields are indexed together and therefore share the latest of their days.
    """
    version = tables.version(spark, root, VOCABULARIES)
    if version is None:
        return Indexed(None, {}, {})
    rows = (
        tables.read(spark, root, VOCABULARIES, "build_splits", version)
        .groupBy("field")
        .agg(F.max("indexed_on").alias("day"), F.count("*").alias("entries"))
        .collect()
    )
    last: dict[str, datetime.date] = {row["field"]: row["day"] for row in rows}
    catalogue = [last[field] for field in CATALOGUE_FIELDS if field in last]
    last |= dict.fromkeys(CATALOGUE_FIELDS, max(catalogue)) if catalogue else {}
    return Indexed(version, last, {row["field"]: row["entries"] for row in rows})


def extend(spark: SparkSession, root: str, keys: Sequence[DataFrame], before: Indexed) -> int:
    """Index the keys of days after a field's last one, all days in one pass and one commit.

    Args:
        spark, root: where the table is.
        keys: frames of day, field, key; a key may occur many times.
        before: result of `indexed`, from before these frames were made.

    Returns:
        The number of new entries.

    Raises:
        IndexingConflict: another run has added entries since `before` was read.
        Superseded: a later run of the same job has started.
    """
    if not keys:
        return 0
    # field, key and the first day of each key that is not known yet.
    fresh = (
        reduce(DataFrame.unionByName, keys)
        .where(F.col("day") > F.coalesce(_by_field(before.last), F.lit(LONG_AGO)))
        .groupBy("field", "key")
        .agg(F.min("day").alias("indexed_on"))
    )
    if before.version is not None:
        known = tables.read(spark, root, VOCABULARIES, "build_splits", before.version)
        fresh = fresh.join(known.select("field", "key"), ["field", "key"], how="left_anti")
    # Numbers continue after the entries that the field has.
    number = F.row_number().over(Window.partitionBy("field").orderBy("indexed_on", "key"))
    entries = fresh.select(
        "field",
        "key",
        (number + F.coalesce(_by_field(before.sizes), F.lit(0)) + (FIRST_INDEX - 1)).alias("index"),
        "indexed_on",
    ).persist()
    try:
        added = entries.count()
        if added:
            append(spark, root, entries, before.version)
    finally:
        entries.unpersist()
    return added


def append(spark: SparkSession, root: str, entries: DataFrame, read_at: int | None) -> None:
    """Append entries in one commit, provided that no run has appended others since `read_at`.

    The version of the table that was read gives the transaction version: Delta skips one that is
    not above the last committed one, and refuses one that another writer is committing. A table's
    version rises with every commit, also when somebody restores an earlier state or deletes rows,
    so the next run's is above that of every earlier append.

    Args:
        spark, root: where the table is.
        entries: VOCABULARIES' columns.
        read_at: the version of the table that the indices continue; None: there was no table.

    Raises:
        IndexingConflict: another run has appended other entries since; these were not appended.
        Superseded: a later run of the same job has started.
    """
    check_claims()
    if read_at is None:
        tables.append(spark.createDataFrame([], VOCABULARIES.columns), root, VOCABULARIES)
    writer = (
        entries.write.format("delta")
        .option("txnAppId", _TRANSACTIONS)
        .option("txnVersion", 0 if read_at is None else read_at + 1)
        .mode("append")
    )
    conflict = IndexingConflict(
        f"{tables.path_of(root, VOCABULARIES)}: another run added entries at the same time; "
        "run this job again"
    )
    try:
        writer.save(tables.path_of(root, VOCABULARIES))
    except Exception as error:
        if "DELTA_CONCURRENT_TRANSACTION" not in str(error):
            raise
        raise conflict from error
    # Delta reports no error for a version that it skips: check that the entries are there.
    table = tables.read(spark, root, VOCABULARIES, "build_splits")
    if not entries.join(table, VOCABULARIES.columns.names, how="left_anti").isEmpty():
        raise conflict


def usable(
    spark: SparkSession, root: str, date: datetime.date, other_fields: Sequence[str]
) -> DataFrame:
    """Entries that a run for `date` may use, of the catalogue's fields and of `other_fields`.

    Returns:
        field, key, index.
    """
    entries = tables.read(spark, root, VOCABULARIES, "build_splits")
    catalogue = F.col("field").isin(*CATALOGUE_FIELDS) & (F.col("indexed_on") <= date)
    others = F.col("field").isin(*other_fields) & (F.col("indexed_on") < date)
    return entries.where(catalogue | others).select("field", "key", "index")


def refuse_too_early_date(
    indexed: Iterable[str], sizes: Mapping[str, Fingerprint], date: datetime.date, root: str
) -> None:
    """Refuse a date that is earlier than the first indexed day of the catalogue or of item ids.

    Args:
        indexed: fields that have entries.
        sizes: result of `fingerprints` for the entries that `date` may use.

    Raises:
        DataRefused: the catalogue's fields or the item ids have entries, but only of days that
            `date` may not use.
    """
    fields = set(indexed)
    for names, allowed in ((CATALOGUE_FIELDS, "on or before"), ((ITEM_ID,), "before")):
        if fields.intersection(names) and not sizes.keys() & set(names):
            raise DataRefused(
                f"date: expected entries of the vocabulary {names[0]} "
                f"indexed {allowed} {date}, but "
                f"all in {tables.path_of(root, VOCABULARIES)} are of later days, and earlier days "
                "cannot be indexed afterwards; choose a later date, or build this date under "
                "another root"
            )


def fingerprints(entries: DataFrame) -> dict[str, Fingerprint]:
    """Size and fingerprint of each field that has entries, in one pass.

    Args:
        entries: field, key, index.

    Raises:
        DataRefused: a field's indices are not 3, 4, 5, … once each.
    """
    # Each key with its length, by index; the digest of each block of each field.
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
    # The digest of all blocks of a field.
    found = {}
    for field, group in itertools.groupby(blocks, key=lambda row: str(row["field"])):
        of_field = list(group)
        largest = max(row["largest"] for row in of_field)
        entries_of_field = sum(row["count"] for row in of_field)
        if entries_of_field != largest - FIRST_INDEX + 1:
            raise DataRefused(
                f"vocabulary {field}: expected the indices {FIRST_INDEX} to {largest} once each, "
                f"got {entries_of_field} entries; restore the version of the table "
                f"{VOCABULARIES.name} from before it was changed by hand"
            )
        digest = hashlib.sha256("".join(row["digest"] for row in of_field).encode())
        found[field] = Fingerprint(largest + 1, digest.hexdigest())
    return found


def fingerprint(entries: DataFrame, size: int) -> str:
    """Fingerprint of one field's indices below `size`.

    Args:
        entries: key, index of one field.
        size: the size of this vocabulary, or of an earlier state of it, from `fingerprints`.

    Raises:
        ValueError: the vocabulary is smaller than `size`.
    """
    prefix = entries.where(F.col("index") < size).withColumn("field", F.lit("one"))
    found = fingerprints(prefix).get("one", Fingerprint(FIRST_INDEX, fingerprint_of([])))
    if found.size != size:
        raise ValueError(f"size: expected at most {found.size}, the vocabulary's size, got {size}")
    return found.digest


def fingerprint_of(keys: Sequence[str]) -> str:
    """The fingerprint of a vocabulary with these keys, in this order, from FIRST_INDEX on."""
    blocks = itertools.groupby(enumerate(keys), key=lambda entry: entry[0] // BLOCK)
    digests = (
        hashlib.sha256("".join(f"{len(key)}:{key}" for _, key in block).encode()).hexdigest()
        for _, block in blocks
    )
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _by_field(values: Mapping[str, datetime.date] | Mapping[str, int]) -> Column:
    """The value of each row's field; null if there is none."""
    if not values:
        return F.lit(None)
    return F.create_map(*(F.lit(part) for pair in values.items() for part in pair))[F.col("field")]
