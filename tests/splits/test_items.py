"""The item table: a row for each version of an item, and for items that only the log shows."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn.errors import DataRefused
from mfn.indices import ITEM_FIELDS, MISSING, PADDING, UNKNOWN
from mfn.logs import snapshots
from mfn.schema import RAW_ITEM
from mfn.splits import items
from mfn.splits.buckets import Buckets
from mfn.splits.vocabulary import LONG_AGO
from tests.conftest import RUN_DATE
from tests.logs_on_disk import DAY

ENTRIES = [
    ("item_id", "i1", 3),
    ("item_id", "log only", 4),
    ("item_id", "i4", 5),
    ("category", "c1", 3),
    ("category", "c2", 4),
    ("shop", "s", 3),
    ("entity", "red", 3),
    ("entity", "wool", 4),
]
FIRST: list[dict[str, Any]] = [
    {"item_id": "i1", "category": "c1", "shop": "s", "price": 1.0, "entities": ["wool", "red"]},
    {"item_id": "i2", "category": "old", "price": 2.0},
    {"item_id": "i3", "category": "c1", "shop": "", "price": 3.0, "entities": ["new", "red", "x"]},
]
# Nothing that a row shows is new: the price is in the same bucket, and the third entity left out.
BETWEEN: list[dict[str, Any]] = [
    FIRST[0],
    {"item_id": "i3", "category": "c1", "price": 3.5, "entities": ["new", "red", "y"]},
]
LATER: list[dict[str, Any]] = [
    {"item_id": "i2", "category": "c2", "shop": "s", "price": 4.0, "entities": []},
    {"item_id": "i4"},
    {"item_id": "not indexed", "price": 1.5},
    {"category": "c1"},
]
RESERVED = [(n, None, None, *[n] * len(ITEM_FIELDS), [n, PADDING]) for n in range(3)]
Rows = list[tuple[Any, ...]]


def write_lines(folder: Path, day: Any, rows: list[dict[str, Any]]) -> None:
    path = Path(folder, f"dt={day}")
    path.mkdir(parents=True)
    text = "\n".join(json.dumps(row) for row in rows)
    Path(path, "part-0.json").write_text(f"{text}\nno JSON\n" if day == RUN_DATE else f"{text}\n")


def write_table(folder: Path, day: Any, rows: list[dict[str, Any]]) -> None:
    """Write Parquet as pandas does: `brand` has no column, and prices are integers."""
    path = Path(folder, f"dt={day}")
    path.mkdir(parents=True)
    names = ("item_id", "category", "shop", "price", "entities")
    columns = {name: [row.get(name) for row in rows] for name in names}
    columns["price"] = [None if price is None else int(price) for price in columns["price"]]
    pq.write_table(pa.table(columns), Path(path, "part-0.parquet"))


def item_table(
    spark: SparkSession, folder: Path, known_from: datetime.date
) -> tuple[Rows, items.CatalogueSummary, items.ItemTable]:
    """The item table of the snapshots in `folder`, and what is said of it."""
    raw = str(folder / "raw")
    days = snapshots.days_of(raw, RUN_DATE)
    versions = items.versions(snapshots.read(spark, raw, days, RAW_ITEM), known_from)
    summary = items.summarize(versions, price_buckets=2, learnt_on=RUN_DATE - 3 * DAY)
    entries = spark.createDataFrame(ENTRIES, "field string, key string, index int")
    numbered = items.numbered(versions, entries, summary.buckets, entities=2)
    listed_from = 3 + numbered.where("NOT listed").count()
    rows = items.item_rows(spark, numbered, entries, entities=2)
    table = items.write(rows, str(folder / "items"), listed_from)
    columns = ("item", "key", "valid_from", *ITEM_FIELDS, "entities")
    found = pq.read_table(folder / "items").to_pylist()
    assert [path.name for path in folder.glob("items/*.parquet")] == ["part-00000.parquet"]
    return [tuple(row[name] for name in columns) for row in found], summary, table


@pytest.mark.parametrize("write_first", [write_lines, write_table])
def test_item_rows_of_the_test_day_have_the_values_of_the_latest_snapshot(
    spark: SparkSession, tmp_path: Path, write_first: Any
) -> None:
    write_first(tmp_path / "raw", RUN_DATE - 3 * DAY, FIRST)
    write_lines(tmp_path / "raw", RUN_DATE, LATER)
    write_lines(tmp_path / "raw", RUN_DATE + DAY, [{"item_id": "i1", "category": "tomorrow"}])
    found, summary, table = item_table(spark, tmp_path, RUN_DATE)
    assert (summary.items, summary.rows_without_id) == (5, 2)
    # The median of 1, 1.5, 3 and 4 is 2.25.
    assert summary.buckets == Buckets((2.25,), 2)
    no_entity = [MISSING, PADDING]
    assert found == [
        *RESERVED,
        (3, "log only", None, 4, MISSING, MISSING, MISSING, MISSING, no_entity),
        # item_id, category, shop, brand, price, entities in the order of the catalogue
        (4, "i1", None, 3, 3, 3, MISSING, 3, [4, 3]),
        (5, "i2", None, UNKNOWN, 4, 3, MISSING, 4, no_entity),
        (6, "i3", None, UNKNOWN, 3, MISSING, MISSING, 4, [UNKNOWN, 3]),
        (7, "i4", None, 5, MISSING, MISSING, MISSING, MISSING, no_entity),
        (8, "not indexed", None, UNKNOWN, MISSING, MISSING, MISSING, 3, no_entity),
    ]
    assert table == items.ItemTable(
        varying=("item_id", "category", "price", "entity"),
        constant=("shop", "brand"),
        rows=9,
        listed_from=4,
    )


def test_an_item_has_a_row_for_each_day_on_which_a_field_changed(
    spark: SparkSession, tmp_path: Path
) -> None:
    """i4 is in the log before the catalogue lists it; "not indexed" is not."""
    for day, rows in ((-9, FIRST[1:2]), (-3, FIRST), (-1, BETWEEN), (0, LATER)):
        write_lines(tmp_path / "raw", RUN_DATE + day * DAY, rows)
    found, summary, table = item_table(spark, tmp_path, RUN_DATE - 2 * DAY)
    # The median of the first prices, 1, 2 and 3.
    assert summary.buckets == Buckets((2.0,), 2)
    no_entity = [MISSING, PADDING]
    assert found == [
        *RESERVED,
        (3, "i4", None, 5, MISSING, MISSING, MISSING, MISSING, no_entity),
        (4, "log only", None, 4, MISSING, MISSING, MISSING, MISSING, no_entity),
        (5, "i1", None, 3, 3, 3, MISSING, 3, [4, 3]),
        (6, "i2", None, UNKNOWN, UNKNOWN, MISSING, MISSING, 4, no_entity),
        (7, "i3", None, UNKNOWN, 3, MISSING, MISSING, 4, [UNKNOWN, 3]),
        (8, "i2", RUN_DATE, UNKNOWN, 4, 3, MISSING, 4, no_entity),
        (9, "i4", RUN_DATE, 5, MISSING, MISSING, MISSING, MISSING, no_entity),
        (10, "not indexed", RUN_DATE, UNKNOWN, MISSING, MISSING, MISSING, 3, no_entity),
    ]
    assert (table.rows, table.listed_from) == (11, 5)


def test_a_day_has_the_newest_version_up_to_it(spark: SparkSession) -> None:
    rows = [
        ("a", LONG_AGO, 5),
        ("a", RUN_DATE, 9),
        ("a", RUN_DATE + 2 * DAY, 11),
        ("b", RUN_DATE, 10),
    ]
    numbered = spark.createDataFrame(rows, "item_id string, day date, item int")
    days = spark.createDataFrame([(RUN_DATE + n * DAY,) for n in range(-1, 4)], "day date")
    asked = days.crossJoin(spark.createDataFrame([("a",), ("b",), ("c",)], "item_id string"))
    joined = asked.join(items.rows_of_items(numbered), "item_id", how="left")
    found = joined.select("item_id", "day", items.row_on(F.col("day")).alias("row")).collect()
    by_item = {
        item: [row["row"] for row in sorted(found) if row["item_id"] == item] for item in "abc"
    }
    assert by_item == {
        "a": [5, 9, 9, 11, 11],
        "b": [UNKNOWN, 10, 10, 10, 10],
        "c": [UNKNOWN] * 5,
    }


@pytest.mark.parametrize(
    ("prices", "buckets", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], 4, [3, 4, 5, 6]),
        ([5.0, 5.0, 5.0], 3, [5, 5, 5]),
        ([None, float("nan"), float("inf"), 1.0, 2.0], 2, [1, 1, 1, 3, 4]),
        ([1.0, 9.0], 1, [3, 3]),
        ([None, None], 4, [1, 1]),
    ],
)
def test_prices_are_put_into_quantile_buckets(
    spark: SparkSession, prices: list[float | None], buckets: int, expected: list[int]
) -> None:
    frame = spark.createDataFrame(
        [(f"i{n}", LONG_AGO, price, 1) for n, price in enumerate(prices)],
        "item_id string, day date, price double, snapshot_rows long",
    )
    found = items.summarize(frame, buckets, RUN_DATE).buckets
    rows = frame.select("item_id", found.index(frame["price"]).alias("index")).collect()
    assert [row["index"] for row in sorted(rows)] == expected
    assert found.count == (0 if set(prices) == {None} else buckets)
    assert found.fingerprint.size == 3 + found.count


def test_a_folder_without_rows_and_without_success_file_is_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / f"dt={RUN_DATE}").mkdir()
    with pytest.raises(DataRefused, match=r"holds no rows"):
        snapshots.read(spark, str(tmp_path), [RUN_DATE], RAW_ITEM)
    (tmp_path / f"dt={RUN_DATE}" / "_SUCCESS").touch()
    assert snapshots.read(spark, str(tmp_path), [RUN_DATE], RAW_ITEM).count() == 0


def test_a_missing_folder_has_no_snapshots(tmp_path: Path) -> None:
    assert snapshots.days_of(str(tmp_path / "nothing"), RUN_DATE) == []
