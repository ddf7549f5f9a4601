"""Names of folders and files through all that reads and writes them: each works or is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn import storage, tables
from mfn.engine.feed import Feed
from mfn.engine.shards import shards
from mfn.errors import DataRefused
from mfn.locations import for_spark
from mfn.logs import raw, snapshots
from mfn.schema import INTEREST_CENTERS, RAW_ITEM
from mfn.settings import LogsKind, Settings
from mfn.splits.published import Splits
from mfn.splits.writing import write_one_file
from tests.raw_logs import DAYS, LAST, MakeSettings, deliver, event
from tests.synthetic import publish_splits

ROOT = "%20 % & + ; : \" ' , = $ @ ~ ü 红 e\u0301"
"""All in one, since a day's parts take seconds."""
FILES = [
    "[1].json", "(1) {a,b}.json", "a\\b.json", "a#b.json", "a?b.json", "%20.json", "a*.json",
    "a&b+c;d,e'f\"g.json.gz", "ü红.json", " a .json", "a\nb.json", "$HOME.json", "dt=1.json",
    "[2].parquet", "{c,d}#?.parquet", "*%.parquet", "ü.parquet",
]  # fmt: skip
"""Names of a day's files that a delivery may have."""


def deliver_parquet(
    settings: Settings, kind: LogsKind, name: str, rows: Mapping[str, object]
) -> None:
    folder = Path(settings.logs_folder(kind), f"dt={LAST}")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), folder / name)


def test_a_root_of_many_letters_works_through_every_part(
    spark: SparkSession, tmp_path: Path, make_settings: MakeSettings
) -> None:
    settings = make_settings(root=str(tmp_path / ROOT))
    place, shares = (LAST, "fine", 2, "batch", 1.0, 0), (0.5, 0.5, 0.5, 0.5)
    center = (*place, *shares, False, ["i"], ["c"], ["w"])
    frame = spark.createDataFrame([center], INTEREST_CENTERS.columns)
    tables.replace(frame, settings.root, INTEREST_CENTERS, {"run_date": [LAST]})
    tables.append(frame.withColumn("center", F.lit(1)), settings.root, INTEREST_CENTERS)
    assert tables.delete(spark, settings.root, INTEREST_CENTERS, "center = 1") == 1
    assert tables.read(spark, settings.root, INTEREST_CENTERS, "train_centers").count() == 1

    deliver(settings, LAST, [event("a")])
    deliver_parquet(
        settings, "events", "b.parquet", {name: [text] for name, text in event("b").items()}
    )
    folder = settings.logs_folder("events")
    read = raw.read_events(spark, folder, raw.day_folders(folder, [LAST]))
    assert sorted(row.event_id for row in read.collect()) == ["a", "b"]

    written = f"{settings.root}/one"
    write_one_file(spark.range(3).repartition(1), written)
    assert pq.read_table(f"{written}/part-00000.parquet").num_rows == 3
    assert spark.read.parquet(written).count() == 3

    publish_splits(settings, {"train": [5, 3]})
    splits = Splits.published(settings)
    (shard,) = shards(splits.files("train"), "2026-03-08", 0, 1, seed=1)
    batches = Feed(user_fields=1, context_fields=1).epoch(shard, 8)
    assert sum(len(batch) for batch in batches) == 8
    assert splits.item_indices()

    with storage.publish(f"{settings.root}/published") as inside:
        storage.write_json(f"{inside}/a.json", 1)
    assert storage.read_json(f"{storage.current(f'{settings.root}/published', 'x')}/a.json") == 1


def test_files_of_a_day_may_have_any_name_that_spark_can_read(
    spark: SparkSession, make_settings: MakeSettings
) -> None:
    settings = make_settings()
    for name in FILES:
        if name.endswith(".parquet"):
            fields = {key: [text] for key, text in event(f"e{name}").items()}
            deliver_parquet(settings, "events", name, fields)
            deliver_parquet(settings, "items", name, {"item_id": [f"e{name}"]})
        else:
            deliver(settings, LAST, [event(f"e{name}")], name)
            os.makedirs(f"{settings.logs_folder('items')}/dt={LAST}", exist_ok=True)
            Path(settings.logs_folder("items"), f"dt={LAST}", name).write_text("")
    folder = settings.logs_folder("events")
    read = raw.read_events(spark, folder, raw.day_folders(folder, [LAST]))
    assert sorted(row.event_id for row in read.collect()) == sorted(f"e{name}" for name in FILES)
    items = snapshots.read(spark, settings.logs_folder("items"), [LAST], RAW_ITEM)
    expected = sorted(f"e{name}" for name in FILES if name.endswith(".parquet"))
    assert sorted(row.item_id for row in items.collect()) == expected


def test_a_pattern_in_a_name_reads_no_other_file(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("a*.json", "ab.json", "[b].json", "b.json"):
        Path(tmp_path, name).write_text(f"{name}\n")
    read = spark.read.text([for_spark(f"{tmp_path}/{name}") for name in ("a*.json", "[b].json")])
    assert sorted(row.value for row in read.collect()) == ["[b].json", "a*.json"]
    control = spark.read.text(f"{tmp_path}/a*.json")
    assert control.count() == 2


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "to_nowhere.json": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "to_itself.json": (lambda path: path.symlink_to(path), "symbolic link"),
    "folder.json": (Path.mkdir, "expected files, not a directory"),
    "pipe.json": (os.mkfifo, "expected files, not a other"),
    "12:30.json": (Path.touch, "without a colon"),
    os.fsdecode(b"\xff.json"): (Path.touch, "file names in UTF-8"),
    "notes.txt": (Path.touch, "expected files that end with .json"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_read_is_refused_by_its_name(
    make_settings: MakeSettings, name: str
) -> None:
    settings = make_settings()
    folder = settings.logs_folder("events")
    path = deliver(settings, LAST, [event("a")])
    path.with_name("link.json").symlink_to(path)
    path.with_name(".hidden").symlink_to("nowhere")
    assert raw.day_folders(folder, [LAST])  # control
    make, expected = BAD_FILES[name]
    make(path.with_name(name))
    with pytest.raises(DataRefused) as refused:
        raw.day_folders(folder, [LAST])
    shown = name.encode(errors="backslashreplace").decode()
    (line,) = (one for one in str(refused.value).splitlines() if one.startswith(f"{LAST}: "))
    assert expected in line
    assert f"{folder}/dt={LAST}/{shown}" in line


def test_a_day_that_is_a_file_is_refused_and_a_folder_that_is_no_day_is_ignored(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings()
    folder = settings.logs_folder("events")
    deliver(settings, DAYS[0], [event("a", DAYS[0])])
    for stray in ("dt=2026-02-30", "dt=2026-13-01", "dt=----------", "dt=2026-03-05.old", "x"):
        Path(folder, stray).mkdir()
    assert snapshots.days_of(folder, LAST) == [DAYS[0]]
    Path(folder, f"dt={LAST}").write_text("a file")
    with pytest.raises(DataRefused, match=rf"{LAST}: there is no folder \S+/dt={LAST}"):
        raw.day_folders(folder, [LAST])
