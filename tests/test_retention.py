"""What has become old goes; what the newest models need, or a day that runs, never does."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mfn import layout, storage, tables
from mfn.retention import clean_up
from mfn.schema import PREDICTIONS
from mfn.settings import Settings

TODAY = datetime.datetime.now(datetime.UTC).date()
RETENTION = {"splits_days": 5, "models_days": 20, "predictions_days": 10}


def day(ago: int) -> datetime.date:
    return TODAY - datetime.timedelta(days=ago)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(date=TODAY, retention=RETENTION)


def publish(settings: Settings, folder: str, made_ago: int) -> None:
    """Publish something, and let it look as if that were so many days ago."""
    path = f"{settings.root}/{folder}"
    with storage.publish(path) as version:
        described = {"date": folder.split("/")[1]}
        storage.write_json(f"{version}/{storage.MODEL}", described)
    age(Path(path), made_ago)


def age(folder: Path, ago: int) -> None:
    at = time.time() - ago * 86400
    for file in folder.rglob("*"):
        os.utime(file, (at, at))


def left(settings: Settings, kind: str) -> list[str]:
    root = Path(settings.root, kind)
    return sorted(str(one.parent.relative_to(root)) for one in root.rglob(storage.POINTER))


def test_old_folders_go_and_those_of_the_newest_models_stay(
    spark: SparkSession, settings: Settings
) -> None:
    for ago in (1, 6, 30):
        for kind in ("splits", "embeddings", "centers"):
            publish(settings, f"{kind}/{day(ago)}", made_ago=ago)
    # The newest model of `mfn` is yesterday's, that of `din`, which nobody trains any more, is old.
    for name, agos in {"mfn": (1, 6, 21, 30), "din": (30, 31)}.items():
        for ago in agos:
            publish(settings, f"models/{day(ago)}/{name}", made_ago=ago)
    told = clean_up(spark, settings)
    for kind in ("splits", "embeddings", "centers"):
        assert left(settings, kind) == [str(day(30)), str(day(1))]  # both have a newest model
    assert left(settings, "models") == sorted([f"{day(30)}/din", f"{day(6)}/mfn", f"{day(1)}/mfn"])
    assert (told["removed_splits"], told["removed_models"]) == (1, 3)
    assert clean_up(spark, settings)["removed_models"] == 0


def test_an_old_day_that_was_built_again_is_not_old(
    spark: SparkSession, settings: Settings
) -> None:
    publish(settings, f"splits/{day(30)}", made_ago=30)
    publish(settings, f"splits/{day(31)}", made_ago=0)
    clean_up(spark, settings)
    assert left(settings, "splits") == [str(day(31))]


def test_unfinished_trainings_and_event_files_go_with_age(
    spark: SparkSession, settings: Settings
) -> None:
    kept, gone = (
        Path(settings.root, "models", str(day(30)), name, "checkpoints", "part.safetensors")
        for name in ("running", "abandoned")
    )
    for file in (kept, gone, Path(settings.root, "tensorboard", str(day(30)), "mfn", "events")):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
    age(gone.parents[1], 30)
    age(Path(settings.root, "tensorboard"), 30)
    (Path(settings.root) / "models" / "not a date").mkdir()
    told = clean_up(spark, settings)
    assert kept.exists()
    assert not gone.exists()
    assert told["removed_event_files"] == 1
    assert (Path(settings.root) / "models" / "not a date").exists()


def test_half_written_logs_of_killed_runs_go_after_a_week_and_no_logs_do(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    elsewhere = settings.logs.model_copy(update={"items": f"{tmp_path}/elsewhere"})
    chosen = settings.model_copy(update={"logs": elsewhere})
    made = {}
    for kind in ("events", "items"):
        folder = Path(chosen.logs_folder(kind))
        for name, ago in {
            f"dt={day(30)}": 30,
            f"{layout.STAGED}of-a-dead-run": 8,
            f"{layout.STAGED}of-a-run": 6,
        }.items():
            file = folder / name / "_temporary" / "part-00000.json.gz"
            file.parent.mkdir(parents=True)
            file.touch()
            age(folder / name, ago)
            os.utime(folder / name, (time.time() - ago * 86400,) * 2)
            made[file] = ago != 8
    begun = Path(chosen.logs_folder("events"), f"{layout.STAGED}begun-now")
    begun.mkdir()  # as yet without a file
    told = clean_up(spark, chosen)
    assert {file: file.exists() for file in made} == made
    assert begun.exists()
    assert told["removed_half_written_logs"] == 2


def append_predictions(spark: SparkSession, settings: Settings, agos: list[int]) -> None:
    rows = [
        (day(ago), "base", f"request {n}", "user", None, "item", 0, 0.5, 3)
        for n, ago in enumerate(agos)
    ]
    frame = spark.createDataFrame(rows, PREDICTIONS.columns)
    tables.append(frame.coalesce(1), settings.root, PREDICTIONS)


def test_predictions_go_by_their_date_unless_a_job_ran_for_it_lately(
    spark: SparkSession, settings: Settings
) -> None:
    append_predictions(spark, settings, [ago for ago in (0, 9, 11, 12) for _ in range(3)])
    storage.replace_json(f"{settings.root}/made/{day(12)}/predict.json", {})
    told = clean_up(spark, settings)
    found = tables.read(spark, settings.root, PREDICTIONS, "predict")
    assert {row.run_date for row in found.collect()} == {day(0), day(9), day(12)}
    assert told["removed_predictions"] == told["rows"] == 3


def test_small_files_of_a_table_are_put_together_and_no_row_changes(
    spark: SparkSession, settings: Settings
) -> None:
    for _ in range(4):
        append_predictions(spark, settings, [0])

    def read() -> tuple[int, list[str]]:
        found = tables.read(spark, settings.root, PREDICTIONS, "predict")
        return len(found.inputFiles()), sorted(row.request_id for row in found.collect())

    files, before = read()
    clean_up(spark, settings)
    assert files == 4
    assert read() == (1, before)
