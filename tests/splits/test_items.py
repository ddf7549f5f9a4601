"""The item table: one row per item of the catalogue, with the values of its latest snapshot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mfn.errors import DataRefused
from mfn.indices import ITEM_FIELDS, MISSING, PADDING, UNKNOWN
from mfn.logs import snapshots
from mfn.schema import RAW_ITEM
from mfn.splits import items
from mfn.splits.buckets import Buckets
from tests.conftest import RUN_DATE
from tests.logs_on_disk import DAY

ENTRIES = [
    *(("item", f"i{n}", 2 + n) for n in range(1, 6)),
    ("item_id", "i1", 3),
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
LATER: list[dict[str, Any]] = [
    {"item_id": "i2", "category": "c2", "shop": "s", "price": 4.0, "entities": []},
    {"item_id": "i4"},
    {"item_id": "not indexed", "price": 1.5},
    {"category": "c1"},
]


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


@pytest.mark.parametrize("write_first", [write_lines, write_table])
def test_item_rows_have_the_values_of_the_latest_snapshot(
    spark: SparkSession, tmp_path: Path, write_first: Any
) -> None:
    write_first(tmp_path / "raw", RUN_DATE - 3 * DAY, FIRST)
    write_lines(tmp_path / "raw", RUN_DATE, LATER)
    write_lines(tmp_path / "raw", RUN_DATE + DAY, [{"item_id": "i1", "category": "tomorrow"}])
    folder = str(tmp_path / "raw")
    days = snapshots.days_of(folder, RUN_DATE)
    assert days == [RUN_DATE - 3 * DAY, RUN_DATE]
    attributes = items.latest_attributes(snapshots.read(spark, folder, days, RAW_ITEM))
    summary = items.summarize(attributes, price_buckets=2)
    assert (summary.items, summary.rows_without_id) == (5, 2)
    # The median of 1, 1.5, 3 and 4 is 2.25.
    assert summary.buckets == Buckets((2.25,), 2)
    entries = spark.createDataFrame(ENTRIES, "field string, key string, index int")
    rows = items.item_rows(spark, attributes, entries, entries, summary.buckets, entities=2)
    table = items.write(rows, str(tmp_path / "items"))
    found = pq.read_table(tmp_path / "items").to_pylist()

    columns = ("item", "key", *ITEM_FIELDS, "entities")
    assert [tuple(row[name] for name in columns) for row in found] == [
        (0, None, PADDING, PADDING, PADDING, PADDING, PADDING, [PADDING, PADDING]),
        (1, None, MISSING, MISSING, MISSING, MISSING, MISSING, [MISSING, PADDING]),
        (2, None, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, [UNKNOWN, PADDING]),
        # item, key, item_id, category, shop, brand, price, entities in the order of the catalogue
        (3, "i1", 3, 3, 3, MISSING, 3, [4, 3]),
        (4, "i2", UNKNOWN, 4, 3, MISSING, 4, [MISSING, PADDING]),
        (5, "i3", UNKNOWN, 3, MISSING, MISSING, 4, [UNKNOWN, 3]),
        (6, "i4", UNKNOWN, MISSING, MISSING, MISSING, MISSING, [MISSING, PADDING]),
        # i5 is in no snapshot
        (7, "i5", UNKNOWN, MISSING, MISSING, MISSING, MISSING, [MISSING, PADDING]),
    ]
    assert table == items.ItemTable(
        varying=("category", "price", "entity"),
        constant=("item_id", "shop", "brand"),
        in_snapshots=4,
    )
    assert [path.name for path in tmp_path.glob("items/*.parquet")] == ["part-00000.parquet"]


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
        [(f"i{n}", price, 1) for n, price in enumerate(prices)],
        "item_id string, price double, snapshot_rows long",
    )
    found = items.summarize(frame, buckets).buckets
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
