"""Reading and writing the Delta tables of `mfn.schema`."""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Mapping, Sequence

import tenacity
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql.types import StructField, StructType

from mfn import layout
from mfn.errors import NotPublished
from mfn.schema import Table
from mfn.storage import check_claims

Value = datetime.date | str

log = logging.getLogger("mfn")

_MET_ANOTHER = re.compile(
    r"DELTA_(CONCURRENT_\w+|METADATA_CHANGED|PROTOCOL_CHANGED"
    # Where another run has begun to make the table: its folder is there, its log is not.
    r"|CREATE_TABLE_WITH_NON_EMPTY_LOCATION|TABLE_NOT_FOUND)"
)


def _met_another(error: BaseException) -> bool:
    """Whether Delta refused a commit since another one came between; only the text tells."""
    is_sparks = isinstance(error, PySparkException | Py4JJavaError)
    return is_sparks and _MET_ANOTHER.search(str(error)) is not None


_again_later = tenacity.retry(
    retry=tenacity.retry_if_exception(_met_another),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
    stop=tenacity.stop_after_attempt(10),
    before_sleep=lambda state: log.info(
        "another run writes to the same table; try %d follows", state.attempt_number + 1
    ),
    reraise=True,
)
"""Six immediate tries were seen to be needed; with waits of random length fewer are."""


def path_of(root: str, table: Table) -> str:
    """Where a table lies."""
    return layout.table(root, table.name)


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


@_again_later
def replace(
    frame: DataFrame, root: str, table: Table, where: Mapping[str, Sequence[Value]]
) -> None:
    """Replace, in one commit, the partitions `where` of a table by `frame`.

    Every row of `frame` must lie in those partitions, so that a job that runs again leaves what
    it left the first time. Replacing other partitions at the same time is no conflict; where
    another commit to the same ones came first, it is tried again.

    Raises:
        Superseded: another run of the same job has begun.
        AnalysisException: DELTA_REPLACE_WHERE_MISMATCH, a row lies elsewhere or holds a null where
            the schema has none; the table is as it was.
    """
    if not where or not all(where.values()):
        raise ValueError(f"{table.name}: expected the partitions to replace, got {dict(where)}")
    check_claims()
    predicate = " AND ".join(
        f"{name} IN ({', '.join(_literal(value) for value in values)})"
        for name, values in where.items()
    )
    _writer(frame, root, table).mode("overwrite").option("replaceWhere", predicate).save(
        path_of(root, table)
    )


@_again_later
def append(frame: DataFrame, root: str, table: Table) -> None:
    """Add rows to a table in one commit.

    Raises:
        Py4JJavaError: DELTA_NOT_NULL_CONSTRAINT_VIOLATED, a null where the schema has none.
    """
    _writer(frame, root, table).mode("append").save(path_of(root, table))


@_again_later
def delete(spark: SparkSession, root: str, table: Table, where: str) -> int:
    """Delete the rows of an SQL condition in one commit; returns how many they were."""
    path = path_of(root, table)
    rows = spark.read.format("delta").load(path).where(where).count()
    if rows:
        DeltaTable.forPath(spark, path).delete(where)
    return rows


@_again_later
def compact(spark: SparkSession, root: str, table: Table, hours: float) -> None:
    """Put small files together, and remove those that no version of the last hours reads.

    A commit to the same partitions meanwhile is a conflict, after which this is tried again; it
    changes no row.
    """
    found = DeltaTable.forPath(spark, path_of(root, table))
    found.optimize().executeCompaction()
    found.vacuum(hours)


def _writer(frame: DataFrame, root: str, table: Table) -> DataFrameWriter:
    """A writer of the schema's columns, in its order, to the table, made here if need be.

    A nullable column may go where the table has none that are null: Spark cannot know that a
    computed column holds no null, and Delta checks it row by row.
    """
    if not is_there(frame.sparkSession, root, table):
        _create(frame.sparkSession, root, table)
    columns = StructType([_nullable(column) for column in table.columns])
    # A column that is new in the schema is added to tables of before.
    return frame.to(columns).write.format("delta").option("mergeSchema", "true")


def _create(spark: SparkSession, root: str, table: Table) -> None:
    """Make the empty table: only so do its columns get to be NOT NULL."""
    builder = DeltaTable.createIfNotExists(spark).location(path_of(root, table))
    if table.statistics is not None:
        builder = builder.property("delta.dataSkippingStatsColumns", ",".join(table.statistics))
    builder.addColumns(table.columns).partitionedBy(*table.partitions).execute()


def _nullable(column: StructField) -> StructField:
    return StructField(column.name, column.dataType, True, column.metadata)


def _literal(value: Value) -> str:
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
