"""Reading and writing the Delta tables of `mfn.schema`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from mfn.schema import Table
from mfn.storage import NotPublished

Value = datetime.date | str


def path_of(root: str, table: Table) -> str:
    """Where a table lies."""
    return f"{root}/{table.name}"


def is_there(spark: SparkSession, root: str, table: Table) -> bool:
    """Whether the table has ever been written."""
    return bool(DeltaTable.isDeltaTable(spark, path_of(root, table)))


def read(spark: SparkSession, root: str, table: Table, made_by: str) -> DataFrame:
    """The whole table.

    Raises:
        NotPublished: the table has never been written; `made_by` is the job to run first.
    """
    if not is_there(spark, root, table):
        raise NotPublished(f"{path_of(root, table)}: no such table; run jobs/{made_by}.py first")
    return spark.read.format("delta").load(path_of(root, table))


def replace(
    frame: DataFrame, root: str, table: Table, where: Mapping[str, Sequence[Value]]
) -> None:
    """Replace, in one commit, the partitions `where` of a table by `frame`.

    Every row of `frame` must lie in those partitions, so that a job that runs again leaves what
    it left the first time.
    """
    predicate = " AND ".join(
        f"{name} IN ({', '.join(_literal(value) for value in values)})"
        for name, values in where.items()
    )
    _writer(frame, table).mode("overwrite").option("replaceWhere", predicate).save(
        path_of(root, table)
    )


def append(frame: DataFrame, root: str, table: Table) -> None:
    """Add rows to a table in one commit."""
    _writer(frame, table).mode("append").save(path_of(root, table))


def _writer(frame: DataFrame, table: Table):  # type: ignore[no-untyped-def]
    return frame.to(table.columns).write.format("delta").partitionBy(*table.partitions)


def _literal(value: Value) -> str:
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
