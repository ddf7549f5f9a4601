"""Parquet files are read as pandas, Polars, Arrow and Spark write them, each by its own schema."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from mfn.errors import DataRefused
from mfn.logs import outcomes, parquet, raw
from mfn.logs.validate import validate_logs
from mfn.schema import RAW_EVENT
from mfn.settings import Settings
from tests.raw_logs import DAYS, LAST, WINDOWS, MakeSettings, deliver, event

NOON = datetime.datetime(2026, 3, 8, 12, tzinfo=datetime.UTC)
NAIVE = NOON.replace(tzinfo=None)
MILLISECONDS = round(NOON.timestamp() * 1000)
UUID = "00112233-4455-6677-8899-aabbccddeeff"


def array(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind)


IDS = {
    "int8": array([7], pa.int8()),
    "int32": array([7], pa.int32()),
    "int64": array([7], pa.int64()),
    "uint64": array([7], pa.uint64()),
    "float": array([7.0], pa.float32()),
    "double": array([7.0], pa.float64()),
    "decimal": array([Decimal("7.00")], pa.decimal128(10, 2)),
    "text": array(["7"], pa.string()),
    "large text": array([" 7.0 "], pa.large_string()),
    "bytes": array([b"7"], pa.binary()),
    "fixed bytes": array([b"7"], pa.binary(1)),
    "dictionary": array(["7"], pa.string()).dictionary_encode(),
    "dictionary of numbers": array([7], pa.int64()).dictionary_encode(),
}
TIMES = {
    "ns": array([NOON], pa.timestamp("ns", "UTC")),
    "ns without zone": array([NAIVE], pa.timestamp("ns")),
    "us elsewhere": array([NOON], pa.timestamp("us", "America/New_York")),
    "us without zone": array([NAIVE], pa.timestamp("us")),
    "ms": array([NOON], pa.timestamp("ms", "UTC")),
    "s": array([NAIVE], pa.timestamp("s")),
    "milliseconds": array([MILLISECONDS], pa.int64()),
    "milliseconds with gaps": array([float(MILLISECONDS)], pa.float64()),
    "text": array(["2026-03-08T12:00:00Z"], pa.string()),
    "dictionary": array(["2026-03-08 12:00"], pa.string()).dictionary_encode(),
}
POSITIONS = {
    "int64": array([3], pa.int64()),
    "double": array([3.0], pa.float64()),
    "text": array(["3"], pa.string()),
}
_MAP = pa.map_(pa.string(), pa.string())
CONTEXTS = {
    "map": array([[("device", "phone")]], _MAP),
    "map with a key twice": array([[("device", "tablet"), ("device", "phone")]], _MAP),
    "struct": array([{"device": "phone", "none": None}], pa.struct(
        [("device", pa.string()), ("none", pa.null())]
    )),
    "text": array(['{"device": "phone"}'], pa.string()),
}  # fmt: skip
FURTHER = {
    "none": array([None], pa.null()),
    "User_ID": array(["another"], pa.string()),
    "a`b": array([1], pa.int64()),
    "with space.and.dots": array(["x"], pa.string()),
    "updated": array([NAIVE], pa.timestamp("ns")),
    "time": array([datetime.time(12)], pa.time64("us")),
    "deep": array([[{"a": [1]}]], pa.list_(pa.struct([("a", pa.list_(pa.int8()))]))),
}
"""Columns that nobody asked for."""


def table(name: str, **columns: pa.Array) -> pa.Table:
    """A Parquet table of one clean event, with other columns in place of the usual ones."""
    usual = {
        "event_id": pa.array([name]),
        "event_time": TIMES["text"],
        "user_id": pa.array(["u1"]),
        "event_type": pa.array(["click"]),
        "item_id": IDS["text"],
        "position": POSITIONS["int64"],
        "context": CONTEXTS["map"],
    }
    return pa.table({**usual, **columns})


FILES = {
    **{f"id {kind}": table(f"id {kind}", item_id=one) for kind, one in IDS.items()},
    **{f"time {kind}": table(f"time {kind}", event_time=one) for kind, one in TIMES.items()},
    **{f"position {k}": table(f"position {k}", position=one) for k, one in POSITIONS.items()},
    **{f"context {kind}": table(f"context {kind}", context=one) for kind, one in CONTEXTS.items()},
    "further": table("further", **FURTHER),
}  # fmt: skip
OLD = "time in 96 bits"


@pytest.fixture(scope="module")
def events(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The judged event of each of FILES, which all lie in the folder of one day."""
    chosen = Settings(root=str(tmp_path_factory.mktemp("types")), date=LAST)
    folder = Path(chosen.logs_folder("events"), f"dt={LAST}")
    folder.mkdir(parents=True)
    for name, one in FILES.items():
        pq.write_table(one, folder / f"{name}.parquet")
    old = table(OLD, event_time=TIMES["us without zone"])
    pq.write_table(old, folder / f"{OLD}.parquet", use_deprecated_int96_timestamps=True)
    read = raw.read_events(
        spark, chosen.logs_folder("events"), raw.day_folders(chosen.logs_folder("events"), [LAST])
    )
    rows = outcomes.judge(read, chosen).collect()
    assert len(rows) == len(FILES) + 1
    return {row["event_id"]: row for row in rows}


@pytest.mark.parametrize("name", [*FILES, OLD])
def test_each_type_of_a_column_gives_the_same_event(events: dict[str, Any], name: str) -> None:
    found = events[name]
    assert found["reason"] is None
    assert found["event_time"].timestamp() == NOON.timestamp()
    assert (found["user_id"], found["item_id"], found["position"]) == ("u1", "7", 3)
    assert found["context"] == {"device": "phone"}
    assert found["twice"] == (["context"] if "twice" in name else None)


def write(path: Path, **columns: pa.Array) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_files_are_grouped_by_the_types_of_the_columns_that_are_read(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", item_id=IDS["int64"], other=pa.array([1]))
    second = write(tmp_path / "b.parquet", other=pa.array(["text"]), item_id=IDS["int64"])
    third = write(tmp_path / "c.parquet", item_id=IDS["double"])
    without = write(tmp_path / "d.parquet", item_id=FURTHER["none"])
    groups = parquet.columns_of([first, second, third, without], ["item_id"])
    assert list(groups.values()) == [[first, second], [third], [without]]
    assert [[one.name for one in columns] for columns in groups] == [["item_id"], ["item_id"], []]


@pytest.mark.parametrize(
    "nothing",
    [
        array([None], pa.null()),
        array([[]], pa.list_(pa.null())),
        array([{"a": None}], pa.struct([("a", pa.null())])),
        array([[("a", None)]], pa.map_(pa.string(), pa.null())),
    ],
    ids=["nulls", "empty lists", "a struct of nulls", "a map of nulls"],
)
def test_a_column_that_can_hold_nothing_is_like_no_column(
    tmp_path: Path, nothing: pa.Array
) -> None:
    path = write(tmp_path / "a.parquet", entities=nothing)
    assert parquet.columns_of([path], ["entities"]) == {(): [path]}


@pytest.mark.parametrize(
    "kind",
    [pa.time64("us"), pa.list_(pa.time32("ms")), pa.struct([("at", pa.time64("us"))])],
    ids=str,
)
def test_a_type_that_has_no_text_is_refused_with_file_and_column(
    tmp_path: Path, kind: pa.DataType
) -> None:
    path = write(tmp_path / "a.parquet", item_id=array([None], kind))
    with pytest.raises(DataRefused, match=r"a\.parquet: column item_id: expected a text.* got "):
        parquet.columns_of([path], ["item_id"])
    assert parquet.columns_of([path], ["user_id"]) == {(): [path]}  # the control: nobody asked


def test_bytes_of_a_uuid_are_its_text(spark: SparkSession, tmp_path: Path) -> None:
    ids = array([bytes.fromhex(UUID.replace("-", ""))], pa.binary(16))
    folder = tmp_path / f"dt={LAST}"
    folder.mkdir()
    write(folder / "a.parquet", item_id=ids)
    days = raw.day_folders(str(tmp_path), [LAST])
    (row,) = raw.read_rows(spark, str(tmp_path), days, ["item_id"]).collect()
    assert row["item_id"] == UUID
    assert json.loads(row["raw"]) == {"item_id": UUID}


def test_a_file_that_is_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.parquet", item_id=IDS["text"]))
    whole = path.read_bytes()
    for content in (whole[:-20], b"", b"PAR1 is text"):
        path.write_bytes(content)
        with pytest.raises(DataRefused, match=r"a\.parquet: cannot be read as Parquet"):
            parquet.columns_of([str(path)], ["item_id"])
    path.write_bytes(whole)
    assert len(parquet.columns_of([str(path)], ["item_id"])) == 1  # the control


def test_types_that_change_from_day_to_day_are_no_fault(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    """Of one run that validates all of the days."""
    chosen = make_settings(windows=WINDOWS, validation={"reference_days": 0})
    deliver(chosen, DAYS[0], [event("a", DAYS[0])])
    kinds = [("int32", "int64"), ("int64", "double"), ("text", "text")]
    for day, (of_item, of_position) in zip(DAYS[1:], kinds, strict=True):
        folder = Path(chosen.logs_folder("events"), f"dt={day}")
        folder.mkdir()
        one = table(
            "a",
            item_id=IDS[of_item],
            position=POSITIONS[of_position],
            event_time=pa.array([f"{day}T12:00:00Z"]),
        )
        pq.write_table(one, folder / "a.parquet")
    counts = validate_logs(spark, chosen)
    assert (counts["rows"], counts["clean"]) == (4, 4)


ANY_TYPE = st.sampled_from(
    [
        pa.int8(), pa.int64(), pa.uint32(), pa.float64(), pa.bool_(), pa.string(), pa.binary(),
        pa.date32(), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.decimal128(12, 3),
        pa.list_(pa.string()), pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int64()),
        pa.null(), pa.binary(16), pa.dictionary(pa.int32(), pa.string()),
    ]
)  # fmt: skip


def drawn(kind: pa.DataType, seed: int, rows: int) -> pa.Array:
    """Values of this type, every third one null."""
    values: dict[str, Any] = {
        "bool": True, "string": f"s{seed}", "binary": b"b\xff", "date32[day]": LAST,
        "timestamp[ns]": NAIVE, "timestamp[us, tz=UTC]": NOON,
        "decimal128(12, 3)": Decimal("7.000"),
        "list<item: string>": ["x"], "struct<a: int64>": {"a": seed}, "null": None,
        "map<string, int64>": [("k", seed), ("k", 1)], "fixed_size_binary[16]": b"0123456789abcdef",
        "dictionary<values=string, indices=int32, ordered=0>": "d",
    }  # fmt: skip
    value = values.get(str(kind), seed % 100)
    column = [None if row % 3 == 2 else value for row in range(rows)]
    if pa.types.is_dictionary(kind):
        return pa.array(column, pa.string()).dictionary_encode()
    return pa.array(column, kind)


@pytest.mark.soak
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from([*RAW_EVENT.names, "other"]), ANY_TYPE, min_size=1),
            st.integers(0, 40),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_row_of_any_delivery_is_counted(
    spark: SparkSession,
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[dict[str, pa.DataType], int]],
) -> None:
    """With types that are drawn for each file: bad bytes and nested ids cost only their row."""
    root = tmp_path_factory.mktemp("delivery")
    chosen = Settings(
        root=str(root),
        date=LAST,
        windows=WINDOWS,
        validation={"max_quarantined_share": 1.0, "reference_days": 0},
    )
    for day in DAYS[:-1]:
        deliver(chosen, day, [event("a", day)])
    folder = Path(chosen.logs_folder("events"), f"dt={LAST}")
    folder.mkdir()
    for number, (columns, rows) in enumerate(files):
        made = {name: drawn(kind, number, rows) for name, kind in columns.items()}
        pq.write_table(pa.table(made), folder / f"{number}.parquet")
    Path(folder, raw.SUCCESS).touch()
    counts = validate_logs(spark, chosen)
    assert counts["rows"] == sum(rows for _, rows in files) + 3
