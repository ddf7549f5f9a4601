"""Indices never change: how keys are indexed, what a date may use, fingerprints."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

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
    """A frame of keys from rows (day of March, field, key)."""
    schema = "day date, field string, key string"
    return [spark.createDataFrame([(datetime.date(2026, 3, d), f, k) for d, f, k in rows], schema)]


def extend(spark: SparkSession, root: str, rows: Keys) -> int:
    before = vocabulary.indexed(spark, root)
    return vocabulary.extend(spark, root, keys(spark, rows), before)


def stored(spark: SparkSession, root: str) -> list[tuple[str, int, str, int]]:
    """All entries as (field, index, key, day), sorted."""
    rows = tables.read(spark, root, VOCABULARIES, "build_splits").collect()
    return sorted((r["field"], r["index"], r["key"], r["indexed_on"].day) for r in rows)


DAYS = [
    (1, "shop", "b"),
    (1, "shop", "a"),
    (1, "brand", "x"),
    (2, "shop", "b"),
    (2, "shop", "A"),
    (3, "shop", "é"),
    (3, "shop", "0"),
    (3, "brand", "w"),
]


def test_new_keys_of_a_day_follow_those_of_earlier_days_in_order_of_the_key(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    """For all days in one run, for one run per day, and for a repeated run."""
    expected = [
        ("brand", 3, "x", 1),
        ("brand", 4, "w", 3),
        ("shop", 3, "a", 1),
        ("shop", 4, "b", 1),
        ("shop", 5, "A", 2),
        ("shop", 6, "0", 3),
        ("shop", 7, "é", 3),
    ]
    whole, daily = make_settings().root, f"{make_settings().root}/daily"
    assert extend(spark, whole, DAYS) == 7
    assert extend(spark, whole, DAYS) == 0
    for day in (1, 2, 3):
        extend(spark, daily, [row for row in DAYS if row[0] <= day])
    assert stored(spark, whole) == stored(spark, daily) == expected


def test_an_indexed_day_gets_no_new_keys_and_a_new_field_can_start_on_any_day(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    root = make_settings().root
    extend(spark, root, DAYS)
    late = [(2, "shop", "late"), (1, "user.age", "9"), (2, "brand", "of an earlier catalogue")]
    assert extend(spark, root, [*late, (4, "shop", "late")]) == 2
    entries = stored(spark, root)
    assert ("shop", 8, "late", 4) in entries
    assert ("user.age", 3, "9", 1) in entries


def test_a_date_uses_the_catalogue_of_its_day_and_events_of_earlier_days_only(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    root = make_settings().root
    extend(spark, root, [(d, field, f"k{d}") for d in (1, 2, 3) for field in ("shop", "item_id")])

    def known(day: int) -> dict[str, int]:
        date = datetime.date(2026, 3, day)
        entries = vocabulary.usable(spark, root, date, ["item_id"])
        return {field: print_.size for field, print_ in fingerprints(entries).items()}

    assert known(3) == {"shop": FIRST_INDEX + 3, "item_id": FIRST_INDEX + 2}
    assert known(2) == {"shop": FIRST_INDEX + 2, "item_id": FIRST_INDEX + 1}
    assert known(1) == {"shop": FIRST_INDEX + 1}


def test_a_date_before_the_first_indexed_day_is_refused_and_an_empty_table_is_not() -> None:
    date, some = datetime.date(2026, 3, 1), Fingerprint(4, "")
    vocabulary.refuse_too_early_date([], {}, date, "root")
    vocabulary.refuse_too_early_date(["brand", "shop"], {"shop": some}, date, "root")
    with pytest.raises(DataRefused, match=r"vocabulary item_id indexed before 2026-03-01"):
        vocabulary.refuse_too_early_date(["brand", "item_id"], {"brand": some}, date, "root")
    with pytest.raises(DataRefused, match=r"vocabulary category indexed on or before 2026-03-01"):
        vocabulary.refuse_too_early_date(["brand"], {}, date, "root")


def test_a_fingerprint_depends_on_keys_and_order_and_works_for_a_prefix(
    spark: SparkSession,
) -> None:
    """With more than one block, and with keys whose plain concatenation is ambiguous."""
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


def test_indices_with_a_gap_or_a_duplicate_are_refused(spark: SparkSession) -> None:
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
    """Both have read the table with one entry; a repeated run of the refused one succeeds."""
    root = make_settings().root
    extend(spark, root, [(1, "shop", "a")])
    before = vocabulary.indexed(spark, root)
    day = datetime.date(2026, 3, 2)
    frames = [spark.createDataFrame([("shop", key, 4, day)], VOCABULARIES.columns) for key in "xy"]

    def run(frame: DataFrame) -> str:
        try:
            vocabulary.append(spark, root, frame, before.version)
        except vocabulary.IndexingConflict:
            return "refused"
        return "done"

    with ThreadPoolExecutor() as both:
        assert sorted(both.map(run, frames)) == ["done", "refused"]
    assert [index for _, index, _, _ in stored(spark, root)] == [3, 4]
    # Entries that the table has already are no conflict, whichever run wrote them.
    assert sorted(run(frame) for frame in frames) == ["done", "refused"]
    now = vocabulary.indexed(spark, root)
    again = replace(now, last=before.last)
    rows = [(2, "shop", "x"), (2, "shop", "y")]
    assert vocabulary.extend(spark, root, keys(spark, rows), again) == 1
    assert [index for _, index, _, _ in stored(spark, root)] == [3, 4, 5]


@pytest.mark.parametrize(
    "undo",
    [
        "RESTORE TABLE {} TO VERSION AS OF {}",
        "DELETE FROM {} WHERE indexed_on > '2026-03-01'",
    ],
)
def test_indexing_goes_on_after_a_restored_table_and_after_deleted_entries(
    spark: SparkSession, make_settings: Callable[..., Settings], undo: str
) -> None:
    """The keys of the bad day are free again."""
    root = make_settings().root
    extend(spark, root, [(1, "shop", "a"), (1, "shop", "b")])
    good = vocabulary.indexed(spark, root)
    table = f"delta.`{tables.path_of(root, VOCABULARIES)}`"
    extend(spark, root, [(2, "shop", "bad"), (2, "shop", "c"), (3, "shop", "d")])
    spark.sql(undo.format(table, good.version))
    assert extend(spark, root, [(2, "shop", "c"), (2, "shop", "b")]) == 1
    assert [entry[:3] for entry in stored(spark, root)] == [
        ("shop", 3, "a"),
        ("shop", 4, "b"),
        ("shop", 5, "c"),
    ]


def test_a_run_that_read_the_table_before_another_run_indexed_is_refused(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    root = make_settings().root
    extend(spark, root, [(1, "shop", "a")])
    first = vocabulary.indexed(spark, root)
    extend(spark, root, [(2, "shop", "b")])
    with pytest.raises(vocabulary.IndexingConflict):
        vocabulary.extend(spark, root, keys(spark, [(2, "shop", "late")]), first)
    assert [key for _, _, key, _ in stored(spark, root)] == ["a", "b"]


def test_empty_values_are_no_keys_and_repeated_entities_count_once(spark: SparkSession) -> None:
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
        (1, "item_id", "i1", None),
    ]
    assert {r["field"] for r in found if r["n"] == 2} == {"category", "item_id", "shop", "brand"}
