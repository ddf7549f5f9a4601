"""The catalogue and the profiles are counted row by row and value by value, and gated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mfn import tables
from mfn.errors import DataRefused
from mfn.logs import catalogue, raw, snapshots
from mfn.logs.validate import validate_logs
from mfn.schema import RAW_ITEM, RAW_USER, VALIDATION, VALIDATION_MEASURES
from mfn.settings import Settings, ValidateSettings
from tests.raw_logs import DAYS, LAST, WINDOWS, Line, as_bytes, deliver, event


def snapshot(
    settings: Settings, kind: Any, day: Any, lines: list[Line], name: str = "a.json"
) -> Path:
    folder = Path(settings.logs_folder(kind), f"dt={day}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"".join(as_bytes(line) + b"\n" for line in lines))
    return path


ITEMS: list[Line] = [
    {"item_id": "i1", "category": "c", "price": "19.99", "title": "red lamp"},
    {"item_id": 7.0, "category": 1, "price": 19.99, "entities": "red"},
    {"item_id": "i3", "price": "on request", "title": ["a", "list"], "entities": {"a": 1}},
    '{"item_id": "i4", "price": NaN, "category": "x", "category": "c"}',
    {"category": "c"},
    {"item_id": ["i6"]},
    "",
    "cut",
    b'{"item_id": "caf\xe9"}',
]
USERS: list[Line] = [
    {"user_id": "u1", "profile": {"age": 30.0}},
    {"user_id": 2, "profile": '{"age": "30"}'},
    {"user_id": "u3", "profile": "thirty"},
    '{"user_id": "u4", "profile": {"age": "29", "age": "30"}}',
]


@pytest.fixture(scope="module")
def checked(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, dict[str, Any]]:
    """Four days of events, a catalogue on the first and the last, profiles on the last."""
    chosen = Settings(
        root=str(tmp_path_factory.mktemp("catalogue")),
        date=LAST,
        windows=WINDOWS,
        validation=ValidateSettings(max_unusable_share=0.5, reference_days=0),
    )
    for day in DAYS:
        deliver(chosen, day, [event("a", day)])
    snapshot(chosen, "items", DAYS[0], ITEMS[:2])
    snapshot(chosen, "items", LAST, ITEMS)
    snapshot(chosen, "users", LAST, USERS)
    return chosen, dict(validate_logs(spark, chosen))


def counted(spark: SparkSession, settings: Settings, source: str) -> dict[Any, int]:
    rows = tables.read(spark, settings.root, VALIDATION, "validate_logs").where(
        f"source = '{source}' AND run_date = '{LAST}'"
    )
    return {(row["reason"], row["field"]): row["rows"] for row in rows.collect()}


def test_each_row_and_each_lost_value_of_a_snapshot_is_counted(
    spark: SparkSession, checked: tuple[Settings, dict[str, Any]]
) -> None:
    chosen, counts = checked
    items = counted(spark, chosen, "items")
    assert items == {
        ("clean", None): 4,
        ("blank", None): 1,
        ("missing_item_id", None): 2,
        ("not_json", None): 1,
        ("wrong_encoding", None): 1,
        ("unreadable_value", "price"): 1,
        ("unreadable_value", "title"): 1,
        ("unreadable_value", "entities"): 1,
        ("key_twice", "category"): 1,
    }
    assert sum(n for (_, field), n in items.items() if field is None) == len(ITEMS)
    assert counted(spark, chosen, "users") == {
        ("clean", None): 4,
        ("blank", None): 0,
        ("unreadable_value", "profile"): 1,
        ("key_twice", "profile"): 1,
    }
    assert counted(spark, chosen, "events")["clean", None] == 1
    assert (counts["items"], counts["items_unusable"], counts["users"]) == (6, 4, 4)
    assert counts["items_price_unreadable_value"] == 1


def test_values_of_json_and_parquet_catalogues_are_the_same(
    spark: SparkSession, checked: tuple[Settings, dict[str, Any]], tmp_path: Path
) -> None:
    """An export with gaps, with nulls alone, and with a column of times that nobody asked for."""
    chosen, _ = checked
    folder = chosen.logs_folder("items")
    rows = snapshots.read(spark, folder, [LAST], RAW_ITEM).collect()
    found = {row["item_id"]: row for row in rows if row["item_id"]}
    assert found.keys() == {"i1", "7", "i3", "i4"}
    assert (found["i1"]["price"], found["7"]["price"], found["7"]["category"]) == (
        19.99,
        19.99,
        "1",
    )
    assert (found["7"]["entities"], found["i3"]["entities"], found["i3"]["title"]) == (
        ["red"], None, None
    )  # fmt: skip
    assert (found["i4"]["price"], found["i4"]["category"]) == (None, "c")

    as_parquet = pa.table(
        {
            "item_id": pa.array([7.0, 8.0, None]),
            "category": pa.array([1.0, 2.0, None]),
            "price": pa.array(["19.99", "x", None]),
            "entities": pa.array([None, None, None], pa.null()),
            "updated": pa.array([None, 1, 2], pa.timestamp("ns")),
        }
    )
    Path(tmp_path, f"dt={LAST}").mkdir()
    pq.write_table(as_parquet, tmp_path / f"dt={LAST}" / "a.parquet")
    rows = snapshots.read(spark, str(tmp_path), [LAST], RAW_ITEM).drop("dt").collect()
    assert sorted(map(tuple, rows), key=repr) == [
        ("7", "1", None, None, 19.99, None, None),
        ("8", "2", None, None, None, None, None),
        (None, None, None, None, None, None, None),
    ]


def test_a_profile_may_be_json_text(
    spark: SparkSession, checked: tuple[Settings, dict[str, Any]]
) -> None:
    rows = snapshots.read(spark, checked[0].logs_folder("users"), [LAST], RAW_USER).collect()
    ages = {row["user_id"]: (row["profile"] or {}).get("age") for row in rows}
    assert ages == {"u1": "30", "2": "30", "u3": None, "u4": "30"}


def test_a_snapshot_is_checked_again_only_if_it_changed(
    spark: SparkSession, checked: tuple[Settings, dict[str, Any]]
) -> None:
    chosen, _ = checked
    assert validate_logs(spark, chosen) == {"rows": 0, "days": 0}
    path = snapshot(chosen, "users", LAST, [*USERS, {"user_id": "u5"}])
    try:
        assert validate_logs(spark, chosen)["users"] == 5
        assert counted(spark, chosen, "items")["clean", None] == 4  # of the other kind, unchanged
    finally:
        path.write_bytes(b"".join(as_bytes(line) + b"\n" for line in USERS))


def test_a_catalogue_that_cannot_be_used_is_refused_and_nothing_is_published(
    spark: SparkSession, checked: tuple[Settings, dict[str, Any]]
) -> None:
    """The control is `checked` itself."""
    chosen, _ = checked
    before = counted(spark, chosen, "items")
    path = snapshot(chosen, "items", LAST, [*ITEMS, "cut", "cut"])
    try:
        with pytest.raises(DataRefused) as refused:
            validate_logs(spark, chosen)
    finally:
        path.write_bytes(b"".join(as_bytes(line) + b"\n" for line in ITEMS))
    assert str(refused.value).splitlines()[0] == (
        f"{LAST}: the share of rows of the catalogue that cannot be read or have no id: expected "
        "at most 50.0000% (validation.max_unusable_share), got 60.0000%"
    )
    assert counted(spark, chosen, "items") == before
    measures = tables.read(spark, chosen.root, VALIDATION_MEASURES, "validate_logs")
    of_day = {row["measure"]: row for row in measures.where(f"run_date = '{LAST}'").collect()}
    assert of_day["items_unusable_share"]["value"] == pytest.approx(0.6)
    assert of_day["events"]["passed"]


def test_of_old_snapshots_only_the_newest_before_the_windows_is_checked(
    tmp_path: Path,
) -> None:
    chosen = Settings(root=str(tmp_path), date=LAST, windows=WINDOWS)
    for day in ("2026-02-01", "2026-03-02", "2026-03-06", "2026-03-09"):
        snapshot(chosen, "items", day, [json.dumps({"item_id": "i"})])
    days = [str(one.folder.day) for one in catalogue.of_run(chosen)]
    assert days == ["2026-03-02", "2026-03-06"]
    assert raw.day_folders(chosen.logs_folder("items"), [LAST.replace(day=9)])
