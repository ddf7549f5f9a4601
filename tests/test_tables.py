"""Delta tables keep their schema, and a job that runs again leaves what it left before."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as replace_fields
from pathlib import Path

import pyarrow as pa
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from mfn import storage, tables
from mfn.errors import NotPublished, Superseded
from mfn.schema import DATE, DOUBLE, STRING, TABLES, VOCABULARIES, Table, column
from mfn.storage import Claim, claim, holding

MONDAY, TUESDAY = datetime.date(2026, 3, 9), datetime.date(2026, 3, 10)

SCORES = Table(
    "evaluation/scores",
    StructType(
        [
            column("run_date", DATE, "the run date"),
            column("model", STRING, "which model"),
            column("auc", DOUBLE, "its AUC", True),
        ]
    ),
    ("run_date", "model"),
)

Row = tuple[datetime.date | None, str | None, float | None]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def frame(spark: SparkSession, *rows: Row) -> DataFrame:
    """Rows whose columns are all nullable, and in another order, as those of a computation are."""
    return spark.createDataFrame(rows, "run_date date, model string, auc double").select(
        "auc", "model", "run_date"
    )


def found(spark: SparkSession, root: str, table: Table = SCORES) -> list[tuple[object, ...]]:
    rows = tables.read(spark, root, table, "evaluate").collect()
    return sorted(tuple(row) for row in rows)


def replace(root: str, rows: DataFrame, days: Sequence[datetime.date], *models: str) -> None:
    where: dict[str, Sequence[tables.Value]] = {"run_date": days}
    if models:
        where["model"] = models
    tables.replace(rows, root, SCORES, where)


@pytest.mark.parametrize("how", ["replace", "append"])
def test_comments_and_not_null_reach_the_table(spark: SparkSession, root: str, how: str) -> None:
    rows = frame(spark, (MONDAY, "mfn", 0.7))
    if how == "replace":
        replace(root, rows, [MONDAY])
    else:
        tables.append(rows, root, SCORES)
    assert tables.read(spark, root, SCORES, "evaluate").schema == SCORES.columns
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{root}/{SCORES.name}`").first()
    assert detail is not None
    assert tuple(detail["partitionColumns"]) == SCORES.partitions


def test_a_null_where_the_schema_has_none_is_refused(spark: SparkSession, root: str) -> None:
    tables.append(frame(spark, (MONDAY, "mfn", None)), root, SCORES)  # the control
    bad = frame(spark, (MONDAY, None, 0.6))
    with pytest.raises(Py4JJavaError, match=r"DELTA_NOT_NULL_CONSTRAINT_VIOLATED.*model"):
        tables.append(bad, root, SCORES)
    with pytest.raises(AnalysisException, match="DELTA_REPLACE_WHERE_MISMATCH"):
        replace(root, bad, [MONDAY])
    assert found(spark, root) == [(MONDAY, "mfn", None)]


def test_a_rerun_leaves_the_same_table_and_other_days_alone(spark: SparkSession, root: str) -> None:
    replace(root, frame(spark, (MONDAY, "base", 0.6), (MONDAY, "mfn", 0.7)), [MONDAY])
    rows = frame(spark, (TUESDAY, "base", 0.61), (TUESDAY, "mfn", 0.71))
    replace(root, rows, [TUESDAY])
    before = found(spark, root)
    replace(root, rows, [TUESDAY])
    assert found(spark, root) == before
    replace(root, frame(spark, (TUESDAY, "mfn", 0.72)), [TUESDAY], "mfn")
    assert found(spark, root) == [*before[:-1], (TUESDAY, "mfn", 0.72)]
    replace(root, frame(spark), [MONDAY, TUESDAY])
    assert found(spark, root) == []


def test_a_row_outside_what_is_replaced_is_refused_and_nothing_changes(
    spark: SparkSession, root: str
) -> None:
    replace(root, frame(spark, (MONDAY, "mfn", 0.7)), [MONDAY])
    with pytest.raises(AnalysisException, match="DELTA_REPLACE_WHERE_MISMATCH"):
        replace(root, frame(spark, (MONDAY, "mfn", 0.1), (TUESDAY, "mfn", 0.1)), [MONDAY])
    assert found(spark, root) == [(MONDAY, "mfn", 0.7)]


@pytest.mark.parametrize("where", [{}, {"run_date": []}])
def test_a_replacement_of_nothing_named_is_refused(
    spark: SparkSession, root: str, where: dict[str, list[tables.Value]]
) -> None:
    with pytest.raises(ValueError, match="evaluation/scores: expected the partitions to replace"):
        tables.replace(frame(spark, (MONDAY, "mfn", 0.7)), root, SCORES, where)


def test_partition_values_may_hold_quotes(spark: SparkSession, root: str) -> None:
    name = "it's \\ a 'model' OR 1=1 --"
    replace(root, frame(spark, (MONDAY, "mfn", 0.7)), [MONDAY], "mfn")
    for auc in (0.5, 0.6):
        replace(root, frame(spark, (MONDAY, name, auc)), [MONDAY], name)
    assert found(spark, root) == [(MONDAY, name, 0.6), (MONDAY, "mfn", 0.7)]


def any_row(spark: SparkSession, table: Table) -> DataFrame:
    """A row of the table, with an empty map or list where a number or text cannot be cast."""
    values = []
    for one in table.columns:
        kind = one.dataType.simpleString()
        empty = {"map": F.create_map(), "array": F.array()}.get(kind.partition("<")[0])
        value = F.lit("2026-03-09") if kind in ("date", "timestamp") else F.lit("1")
        values.append((value if empty is None else empty).cast(one.dataType).alias(one.name))
    return spark.range(1).select(*values)


def test_a_column_that_somebody_added_to_a_table_stops_no_writer_and_no_reader(
    spark: SparkSession, root: str
) -> None:
    def written(table: Table) -> tuple[Table, list[str], int, int]:
        tables.append(any_row(spark, table), root, table)
        path = f"delta.`{tables.path_of(root, table)}`"
        spark.sql(f"ALTER TABLE {path} ADD COLUMNS (note STRING, time STRING)")
        spark.sql(f"UPDATE {path} SET note = 'seen'")
        row = any_row(spark, table)
        if table.partitions[0] in ("dt", "run_date"):
            tables.replace(row, root, table, {table.partitions[0]: [MONDAY]})
        else:
            tables.append(row, root, table)
        read = tables.read(spark, root, table, "report")
        stored = spark.read.format("delta").load(tables.path_of(root, table))
        return table, read.columns, read.count(), stored.where("note = 'seen'").count()

    with ThreadPoolExecutor(4) as several:
        for table, columns, rows, noted in several.map(written, TABLES):
            assert columns == table.columns.names
            kept = table == VOCABULARIES
            assert (table.name, rows, noted) == (table.name, 1 + kept, int(kept))


def test_a_column_that_is_newer_than_the_table_is_null(spark: SparkSession, root: str) -> None:
    columns = StructType(SCORES.columns.fields[:2])
    older = replace_fields(SCORES, columns=columns, partitions=("run_date",))
    tables.append(frame(spark, (MONDAY, "mfn", 0.7)).drop("auc"), root, older)
    assert found(spark, root) == [(MONDAY, "mfn", None)]


def at_once(*actions: threading.Thread) -> None:
    for action in actions:
        action.start()
    for action in actions:
        action.join()


def test_replacing_different_partitions_at_once_is_no_conflict(
    spark: SparkSession, root: str
) -> None:
    """From the first write on, which also makes the table."""
    days = [MONDAY + datetime.timedelta(days=n) for n in range(4)]
    errors: list[Exception] = []

    def write(day: datetime.date, auc: float) -> None:
        try:
            replace(root, frame(spark, (day, "mfn", auc)), [day])
        except Exception as error:
            errors.append(error)

    for auc in (0.6, 0.7):
        at_once(*(threading.Thread(target=write, args=(day, auc)) for day in days))
    assert errors == []
    assert found(spark, root) == [(day, "mfn", 0.7) for day in days]


def test_replacing_one_partition_at_once_leaves_one_of_the_two_whole(
    spark: SparkSession, root: str
) -> None:
    """From the first write on, which also makes the table."""
    refused: list[Exception] = []

    def write(auc: float) -> None:
        try:
            replace(root, frame(spark, (MONDAY, "base", auc), (MONDAY, "mfn", auc)), [MONDAY])
        except Exception as error:
            refused.append(error)

    at_once(*(threading.Thread(target=write, args=(auc,)) for auc in (0.6, 0.7)))
    assert refused == []  # whoever comes second tries again
    assert {row[2] for row in found(spark, root)} in ({0.6}, {0.7})
    assert len(found(spark, root)) == 2


def test_a_run_that_was_superseded_replaces_nothing(spark: SparkSession, root: str) -> None:
    with claim(Claim(f"{root}/made/monday.claim")):
        replace(root, frame(spark, (MONDAY, "mfn", 0.5)), [MONDAY])  # the control
        with claim(Claim(f"{root}/made/monday.claim")):
            pass  # as another run would begin
        with pytest.raises(Superseded, match=r"monday\.claim: a later run of the same job"):
            replace(root, frame(spark, (MONDAY, "mfn", 0.9)), [MONDAY])
    assert found(spark, root) == [(MONDAY, "mfn", 0.5)]


def as_another_run(root: str, rows: DataFrame) -> None:
    """Take the claim and replace Monday, as a run in another process would."""
    with holding(()), claim(Claim(f"{root}/made/monday.claim")):
        replace(root, rows, [MONDAY])


def test_a_run_that_is_superseded_after_it_has_checked_replaces_nothing(
    spark: SparkSession, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both run at the same moment: the claim is checked once more, within the commit."""
    checks = 0

    def check_and_stand_still() -> None:
        nonlocal checks
        checks += 1
        storage.check_claims()
        if checks == 1:
            as_another_run(root, frame(spark, (MONDAY, "mfn", 0.6)))

    with claim(Claim(f"{root}/made/monday.claim")):
        replace(root, frame(spark, (MONDAY, "mfn", 0.5)), [MONDAY])  # the control
        monkeypatch.setattr(tables, "check_claims", check_and_stand_still)
        with pytest.raises(Superseded, match=r"monday\.claim: a later run of the same job"):
            replace(root, frame(spark, (MONDAY, "mfn", 0.9)), [MONDAY])
    assert found(spark, root) == [(MONDAY, "mfn", 0.6)]


def test_a_run_that_is_superseded_while_it_writes_replaces_nothing(
    spark: SparkSession, root: str, tmp_path: Path
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go on"

    def slowly(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        begun.touch()
        while not go_on.exists():
            time.sleep(0.01)
        yield from batches

    def overtake() -> None:
        while not begun.exists():
            time.sleep(0.01)
        try:
            as_another_run(root, frame(spark, (MONDAY, "mfn", 0.6)))
        finally:
            go_on.touch()

    replace(root, frame(spark, (MONDAY, "mfn", 0.5)), [MONDAY])
    rows = frame(spark, (MONDAY, "mfn", 0.9)).coalesce(1)
    other = threading.Thread(target=overtake)
    with claim(Claim(f"{root}/made/monday.claim")):
        other.start()
        with pytest.raises(Superseded):
            replace(root, rows.mapInArrow(slowly, rows.schema), [MONDAY])
    other.join()
    assert found(spark, root) == [(MONDAY, "mfn", 0.6)]


def test_a_column_that_is_new_in_the_schema_comes_into_tables_of_before(
    spark: SparkSession, root: str
) -> None:
    replace(root, frame(spark, (MONDAY, "mfn", 0.7)), [MONDAY])
    wider = Table(
        SCORES.name,
        StructType([*SCORES.columns, column("logloss", DOUBLE, "its log loss", True)]),
        SCORES.partitions,
    )
    rows = frame(spark, (TUESDAY, "mfn", 0.71)).withColumn("logloss", F.lit(0.2))
    tables.replace(rows, root, wider, {"run_date": [TUESDAY]})
    assert tables.read(spark, root, wider, "evaluate").schema == wider.columns
    assert found(spark, root, wider) == [(MONDAY, "mfn", 0.7, None), (TUESDAY, "mfn", 0.71, 0.2)]


def test_a_column_that_the_schema_has_not_is_left_out_and_one_too_few_is_refused(
    spark: SparkSession, root: str
) -> None:
    tables.append(frame(spark, (MONDAY, "mfn", 0.7)).withColumn("more", F.lit(1)), root, SCORES)
    assert found(spark, root) == [(MONDAY, "mfn", 0.7)]
    with pytest.raises(Py4JJavaError, match="DELTA_NOT_NULL_CONSTRAINT_VIOLATED"):
        tables.append(frame(spark, (MONDAY, "mfn", 0.7)).drop("model"), root, SCORES)


def test_a_table_that_was_never_written_names_the_job_to_run(
    spark: SparkSession, root: str
) -> None:
    with pytest.raises(NotPublished, match=r"scores: no such table; run jobs/evaluate\.py first"):
        tables.read(spark, root, SCORES, "evaluate")
