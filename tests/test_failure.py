"""Whoever is on call reads what went wrong in a line, whatever has raised it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from mfn.failure import LONGEST, in_a_line


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


def test_an_exception_is_its_type_and_all_that_it_says_as_far_as_a_line_may_go() -> None:
    """Of what torch and pydantic raise the first line says next to nothing."""
    assert in_a_line(ValueError("\n\n  1 error for Model\n  size: expected 1, got 2")) == (
        "ValueError: 1 error for Model size: expected 1, got 2"
    )
    assert in_a_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    long = in_a_line(ValueError("word " * 1000))
    assert long.startswith("ValueError: word word word")
    assert long.endswith("word …")
    assert len(long) <= LONGEST


def test_an_exception_that_cannot_say_anything_or_is_its_own_cause_is_told_all_the_same() -> None:
    """What tells of a failure must not hide it by one of its own."""

    class OfADeadJava(Exception):
        def __str__(self) -> str:
            raise ConnectionRefusedError("there is no Java to ask")

    assert in_a_line(OfADeadJava()) == "OfADeadJava"
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert in_a_line(first) == "ValueError: first, caused by ValueError: second"


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
