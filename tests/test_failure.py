"""Whoever is on call reads what went wrong in a line, whatever has raised it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from mfn.failure import in_a_line


def raised(work: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:
        work()
    return in_a_line(caught.value)


def a_column_with_a_bad_value(spark: SparkSession) -> DataFrame:
    def work(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                raise ValueError("expected a number, got x\nand a second line") from KeyError("x")
            yield batch

    return spark.range(3).mapInArrow(work, "id long")


def test_an_exception_is_its_type_and_its_first_line() -> None:
    assert in_a_line(ValueError("\n\n  expected one, got 2\nmore of it")) == (
        "ValueError: expected one, got 2"
    )
    assert in_a_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_the_first_cause_is_told_unless_it_was_told_already() -> None:
    first, second = OSError(28, "No space left on device"), ValueError("cannot be read")
    second.__cause__ = first
    third = RuntimeError("the day has failed")
    third.__cause__ = second
    assert in_a_line(third) == (
        "RuntimeError: the day has failed, caused by OSError: [Errno 28] No space left on device"
    )
    told = RuntimeError(f"cannot be read: OSError: {first}")
    told.__cause__ = first
    assert (
        in_a_line(told)
        == "RuntimeError: cannot be read: OSError: [Errno 28] No space left on device"
    )


def test_an_exception_of_sparks_is_the_line_that_says_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    assert "`nothing` cannot be resolved" in raised(lambda: spark.range(3).select("nothing"))
    division = raised(lambda: spark.range(3).selectExpr("1 / 0").collect())
    assert "[DIVIDE_BY_ZERO] Division by zero" in division
    (tmp_path / "file").write_text("no folder, and no Parquet")
    in_a_file = raised(lambda: spark.range(3).write.parquet(str(tmp_path / "file" / "folder")))
    assert "ParentNotDirectoryException: Parent path is not a directory" in in_a_file
    unreadable = raised(lambda: spark.read.parquet(str(tmp_path / "file")).collect())
    assert "Job aborted due to stage failure" in unreadable
    assert "caused by java.lang.RuntimeException: " in unreadable
    assert "is not a Parquet file" in unreadable
    for line in (division, in_a_file, unreadable):
        assert "\n" not in line
        assert "\tat " not in line


def test_what_a_python_worker_raised_is_found_in_the_text_of_its_trace(
    spark: SparkSession, tmp_path: Path
) -> None:
    frame = a_column_with_a_bad_value(spark)
    for line in (
        raised(frame.collect),
        raised(lambda: frame.write.parquet(str(tmp_path / "folder"))),
        raised(lambda: frame.write.format("delta").save(str(tmp_path / "table"))),
    ):
        assert line.endswith(", caused by ValueError: expected a number, got x")
