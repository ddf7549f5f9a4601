"""Indices are for ever: folding, what a date may know, fingerprints."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn import tables
from mfn.errors import DataRefused
from mfn.indices import FIRST_INDEX
from mfn.schema import VOCABULARIES
from mfn.settings import Settings
from mfn.splits import vocabulary
from mfn.splits.vocabulary import BLOCK, Fingerprint, fingerprint, fingerprint_of, fingerprints

Keys = Iterable[tuple[int, str, str]]


def keys(spark: SparkSession, rows: Keys) -> list[DataFrame]:
    """Keys as (day of March, field, key)."""
    schema = "day date, field string, key string"
    return [spark.createDataFrame([(datetime.date(2026, 3, d), f, k) for d, f, k in rows], schema)]


def fold(spark: SparkSession, root: str, rows: Keys) -> int:
    last = vocabulary.last_folded(spark, root)
    return vocabulary.fold(spark, root, keys(spark, rows), last)


def stored(spark: SparkSession, root: str) -> list[tuple[str, int, str, int]]:
    """Entries as (field, index, key, day)."""
    rows = tables.read(spark, root, VOCABULARIES, "build_splits").collect()
    return sorted((r["field"], r["index"], r["key"], r["indexed_on"].day) for r in rows)


DAYS = [
    (1, "item", "b"),
    (1, "item", "a"),
    (1, "brand", "x"),
    (2, "item", "b"),
    (2, "item", "A"),
    (3, "item", "é"),
    (3, "item", "0"),
    (3, "brand", "w"),
]


def test_new_keys_of_a_day_follow_those_of_earlier_days_in_order_of_the_key(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    """However days are bundled into runs, and however often a run is repeated."""
    expected = [
        ("brand", 3, "x", 1),
        ("brand", 4, "w", 3),
        ("item", 3, "a", 1),
        ("item", 4, "b", 1),
        ("item", 5, "A", 2),
        ("item", 6, "0", 3),
        ("item", 7, "é", 3),
    ]
    whole, daily = make_settings().root, f"{make_settings().root}/daily"
    assert fold(spark, whole, DAYS) == 7
    assert fold(spark, whole, DAYS) == 0
    for day in (1, 2, 3):
        fold(spark, daily, [row for row in DAYS if row[0] <= day])
    assert stored(spark, whole) == stored(spark, daily) == expected


def test_a_folded_day_is_never_folded_again_and_a_field_begins_with_its_first_day(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    root = make_settings().root
    fold(spark, root, DAYS)
    late = [(2, "item", "late"), (1, "user.age", "9"), (2, "brand", "of a catalogue of before")]
    assert fold(spark, root, [*late, (4, "item", "late")]) == 2
    entries = stored(spark, root)
    assert ("item", 8, "late", 4) in entries
    assert ("user.age", 3, "9", 1) in entries


def test_a_date_knows_the_catalogue_of_its_day_and_the_events_of_earlier_days(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    root = make_settings().root
    fold(spark, root, [(d, field, f"k{d}") for d in (1, 2, 3) for field in ("item", "item_id")])

    def known(day: int) -> dict[str, int]:
        date = datetime.date(2026, 3, day)
        entries = vocabulary.usable(spark, root, date, ["item_id"])
        return {field: print_.size for field, print_ in fingerprints(entries).items()}

    assert known(3) == {"item": FIRST_INDEX + 3, "item_id": FIRST_INDEX + 2}
    assert known(2) == {"item": FIRST_INDEX + 2, "item_id": FIRST_INDEX + 1}
    assert known(1) == {"item": FIRST_INDEX + 1}


def test_a_date_from_before_the_vocabularies_is_refused_and_a_new_table_is_not() -> None:
    date, some = datetime.date(2026, 3, 1), Fingerprint(4, "")
    vocabulary.refuse_if_begun_later([], {}, date, "root")
    vocabulary.refuse_if_begun_later(["item"], {"item": some}, date, "root")
    with pytest.raises(DataRefused, match=r"vocabulary item_id indexed before 2026-03-01"):
        vocabulary.refuse_if_begun_later(["item", "item_id"], {"item": some}, date, "root")
    with pytest.raises(DataRefused, match=r"vocabulary item indexed on or before 2026-03-01"):
        vocabulary.refuse_if_begun_later(["item"], {}, date, "root")


def test_a_fingerprint_is_that_of_the_same_keys_in_the_same_order_and_of_a_prefix_too(
    spark: SparkSession,
) -> None:
    """Over the edge of a block, and with keys that could be cut in two ways."""
    names = ["ab", "c", "a", "bc", "", "é", *(str(n) for n in range(BLOCK))]
    frame = spark.createDataFrame(
        [(key, FIRST_INDEX + place) for place, key in enumerate(names)], "key string, index int"
    )
    shuffled = frame.repartition(7).withColumn("field", F.lit("f"))
    whole = fingerprints(shuffled)["f"]
    assert whole == Fingerprint(FIRST_INDEX + len(names), fingerprint_of(names))
    for size in (0, 3, BLOCK, BLOCK + 1):
        assert fingerprint(frame, FIRST_INDEX + size) == fingerprint_of(names[:size])
    assert fingerprint_of(["ab", "c"]) != fingerprint_of(["a", "bc"])
    assert fingerprint_of(["a", "b"]) != fingerprint_of(["b", "a"])
    with pytest.raises(ValueError, match=r"expected at most"):
        fingerprint(frame, FIRST_INDEX + len(names) + 1)


def test_indices_with_a_gap_or_twice_are_refused(spark: SparkSession) -> None:
    def of(*indices: int) -> DataFrame:
        rows = [("f", f"k{n}", index) for n, index in enumerate(indices)]
        return spark.createDataFrame(rows, "field string, key string, index int")

    assert fingerprints(of(3, 4))["f"].size == 5
    for indices in ((3, 5), (3, 4, 4)):
        with pytest.raises(DataRefused, match=r"vocabulary f: expected the indices 3 to"):
            fingerprints(of(*indices))


def test_of_two_runs_that_index_at_the_same_time_one_is_refused(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    """Both have read the table with one entry; run again, the loser comes after the winner."""
    root = make_settings().root
    fold(spark, root, [(1, "item", "a")])
    day = datetime.date(2026, 3, 2)
    frames = [spark.createDataFrame([("item", key, 4, day)], VOCABULARIES.columns) for key in "xy"]

    def run(frame: DataFrame) -> str:
        try:
            vocabulary.append(spark, root, frame, before=1)
        except vocabulary.IndexedMeanwhile:
            return "refused"
        return "done"

    with ThreadPoolExecutor() as both:
        assert sorted(both.map(run, frames)) == ["done", "refused"]
    assert [index for _, index, _, _ in stored(spark, root)] == [3, 4]
    # What is there already is no conflict, whoever wrote it.
    assert sorted(run(frame) for frame in frames) == ["done", "refused"]
    last = {"item": datetime.date(2026, 3, 1)}
    rows = [(2, "item", "x"), (2, "item", "y")]
    assert vocabulary.fold(spark, root, keys(spark, rows), last) == 1
    assert [index for _, index, _, _ in stored(spark, root)] == [3, 4, 5]


def test_empty_values_are_no_keys_and_entities_come_once(spark: SparkSession) -> None:
    items = spark.createDataFrame(
        [
            ("i1", "c", "", None, ["red", "", None, "red", "wool"], 1),
            ("i2", "c", "s", "b", None, 2),
        ],
        "item_id string, category string, shop string, brand string, entities array<string>, n int",
    )
    found = vocabulary.catalogue_keys(items, "n").collect()
    assert sorted((r["n"], r["field"], r["key"], r["place"]) for r in found if r["n"] == 1) == [
        (1, "category", "c", None),
        (1, "entity", "red", 0),
        (1, "entity", "wool", 1),
        (1, "item", "i1", None),
    ]
    assert {r["field"] for r in found if r["n"] == 2} == {"category", "item", "shop", "brand"}
