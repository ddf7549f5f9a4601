"""A file that cannot be read ends a job with a refusal that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql import SparkSession

from mfn import storage
from mfn.errors import DataRefused, Unreadable
from mfn.job import Job, job
from mfn.models import artifact
from mfn.settings import Settings

PICKLED = b"\x80\x04N."


def reader(path: Path) -> Job:
    """A job that reads a folder of Parquet files with Spark, as truth and splits are read."""

    @job()
    def read(spark: SparkSession, settings: Settings) -> dict[str, int]:
        """Read."""
        return {"rows": len(spark.read.schema("item_id int").parquet(str(path)).collect())}

    return read


def test_spark_s_error_about_a_file_is_a_refusal_with_its_name_and_cause(
    spark: SparkSession, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    path = tmp_path / "truth" / "a.parquet"
    path.parent.mkdir()
    read, settings = reader(path.parent), make_settings()
    with pytest.raises(DataRefused, match=r"PATH_NOT_FOUND.*nowhere"):
        reader(tmp_path / "nowhere")(spark, settings)
    pq.write_table(pa.table({"item_id": ["text"]}), path)
    with pytest.raises(DataRefused, match=r"(?s)cannot be read.*a\.parquet.*(BINARY|string)"):
        read(spark, settings)
    path.write_bytes(b"hello")
    with pytest.raises(DataRefused, match=r"(?s)cannot be read.*a\.parquet.*not a Parquet file"):
        read(spark, settings)
    pq.write_table(pa.table({"item_id": pa.array([7], pa.int32())}), path)
    assert read(spark, settings) == {"rows": 1}  # the control


def test_other_errors_stay_what_they_are(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    @job()
    def wrong(spark: SparkSession, settings: Settings) -> dict[str, int]:
        """Fail."""
        raise KeyError("FAILED_READ_FILE")

    with pytest.raises(KeyError):
        wrong(spark, make_settings())


def test_a_manifest_that_is_no_json_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    for content in (b"", b'{"splits": ', PICKLED):
        path.write_bytes(content)
        with pytest.raises(Unreadable, match=r"manifest\.json: expected JSON"):
            storage.read_json(str(path))
    path.write_text("{}")
    assert storage.read_json(str(path)) == {}


def test_tensors_that_are_cut_short_or_pickled_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / artifact.TENSORS
    artifact.write_tensors(str(tmp_path), {"a": torch.ones(3)})
    whole = path.read_bytes()
    for content in (b"", whole[:-1], PICKLED):
        path.write_bytes(content)
        with pytest.raises(Unreadable, match=rf"{artifact.TENSORS}: expected tensors"):
            artifact.read_tensors(str(tmp_path))
    path.write_bytes(whole)
    assert artifact.read_tensors(str(tmp_path))["a"].tolist() == [1, 1, 1]
