"""Reading and writing the Delta tables of `mfn.schema`."""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import tenacity
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from mfn import layout
from mfn.errors import NotPublished
from mfn.locations import files_at
from mfn.schema import Table
from mfn.storage import check_claims, claims

Value = datetime.date | str

log = logging.getLogger("mfn")

_MET_ANOTHER = re.compile(
    r"DELTA_(CONCURRENT_\w+|METADATA_CHANGED|PROTOCOL_CHANGED"
    # Another run is creating the table: its folder exists, its log does not yet.
    r"|CREATE_TABLE_WITH_NON_EMPTY_LOCATION|TABLE_NOT_FOUND)"
)


def _met_another(error: BaseException) -> bool:
    """Whether Delta refused a commit because another one came first; only the text says so."""
    is_sparks = isinstance(error, PySparkException | Py4JJavaError)
    return is_sparks and _MET_ANOTHER.search(str(error)) is not None


_again_later = tenacity.retry(
    retry=tenacity.retry_if_exception(_met_another),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
    stop=tenacity.stop_after_attempt(10),
    before_sleep=lambda state: log.info(
        "another run writes to the same table; retry %d follows", state.attempt_number + 1
    ),
    reraise=True,
)
"""Up to six immediate retries were needed; random waits in between need fewer."""


def path_of(root: str, table: Table) -> str:
    """The path of a table."""
    return layout.table(root, table.name)


def is_there(spark: SparkSession, root: str, table: Table) -> bool:
    """Whether the table has ever been written."""
    return bool(DeltaTable.isDeltaTable(spark, path_of(root, table)))


def newest_commit(root: str, table: Table) -> str | None:
    """Identifies the newest commit of a table, and so its content; None if it was never written.

    It lists the table's log and needs no Spark job.
    """
    files, path = files_at(f"{path_of(root, table)}/_delta_log")
    try:
        commits = [name for name in files.ls(path, detail=False) if name.endswith(".json")]
    except FileNotFoundError:
        return None
    newest = max(commits, default=None)
    return None if newest is None else f"{newest.rpartition('/')[2]} {files.ukey(newest)}"


def read(
    spark: SparkSession, root: str, table: Table, made_by: str, version: int | None = None
) -> DataFrame:
    """The rows of the table, with the columns of the schema in its order.

    Other columns, which somebody may have added to the table, are left out. A column that is newer
    than the table is null.

    Args:
        spark, root, table: which table.
        made_by: the job that writes it.
        version: of the table, from `version`; None: the newest.

    Raises:
        NotPublished: the table has never been written; the message names `made_by`, the job to run
            first.
    """
    if not is_there(spark, root, table):
        raise NotPublished(f"{path_of(root, table)}: no such table; run jobs/{made_by}.py first")
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    found = reader.load(path_of(root, table))
    there = set(found.columns)
    return found.select(
        *(
            one.name if one.name in there else F.lit(None).cast(one.dataType).alias(one.name)
            for one in table.columns
        )
    )


def version(spark: SparkSession, root: str, table: Table) -> int | None:
    """The version of the table, larger after each commit; None if it has never been written."""
    if not is_there(spark, root, table):
        return None
    newest = DeltaTable.forPath(spark, path_of(root, table)).history(1).first()
    assert newest is not None
    return int(newest["version"])


@_again_later
def replace(
    frame: DataFrame, root: str, table: Table, where: Mapping[str, Sequence[Value]]
) -> None:
    """Replace the partitions `where` of a table by `frame`, in one commit.

    Every row of `frame` must belong to these partitions, so that a job can run again with the same
    result. Replacing other partitions at the same time is no conflict. If another commit to the
    same partitions came first, this one is retried.

    The run's claims are checked within the commit, so that a run which has lost one replaces
    nothing that the other run has written. If the other run took the claim before this check, the
    check refuses the commit. If it did so later and committed to the same partitions first, Delta
    refuses the commit, and the retry checks the claims again.

    Raises:
        Superseded: a later run of the same job took over.
        AnalysisException: DELTA_REPLACE_WHERE_MISMATCH: a row belongs to another partition, or is
            null in a column that allows no null; the table is unchanged.
    """
    if not where or not all(where.values()):
        raise ValueError(f"{table.name}: expected the partitions to replace, got {dict(where)}")
    check_claims()
    predicate = " AND ".join(
        f"{name} IN ({', '.join(_literal(value) for value in values)})"
        for name, values in where.items()
    )
    writer = _writer(_with_check(frame), root, table)
    try:
        writer.mode("overwrite").option("replaceWhere", predicate).save(path_of(root, table))
    except (PySparkException, Py4JJavaError):
        check_claims()  # raises Superseded if this is why the task that checks them has failed
        raise


def _with_check(frame: DataFrame) -> DataFrame:
    """The same rows. A task that checks this run's claims is added, if there are any.

    Spark runs the tasks of a write after Delta has begun its transaction, and before the commit.
    """
    held = claims()
    if not held:
        return frame

    def check(_batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for one in held:
            one.check()
        return iter(())

    no_rows = frame.sparkSession.range(1, numPartitions=1).mapInArrow(check, frame.schema)
    return frame.unionByName(no_rows)


@_again_later
def append(frame: DataFrame, root: str, table: Table) -> None:
    """Add rows to a table in one commit.

    Raises:
        Py4JJavaError: DELTA_NOT_NULL_CONSTRAINT_VIOLATED: a null in a column that allows none.
    """
    _writer(frame, root, table).mode("append").save(path_of(root, table))


@_again_later
def delete(spark: SparkSession, root: str, table: Table, where: str) -> int:
    """Delete the rows that satisfy an SQL condition, in one commit; returns their number."""
    path = path_of(root, table)
    rows = spark.read.format("delta").load(path).where(where).count()
    if rows:
        DeltaTable.forPath(spark, path).delete(where)
    return rows


@_again_later
def compact(spark: SparkSession, root: str, table: Table, hours: float) -> None:
    """Merge small files, and remove files that no version of the last `hours` reads.

    It changes no row. If another run commits to the same partitions meanwhile, it is retried.
    """
    found = DeltaTable.forPath(spark, path_of(root, table))
    found.optimize().executeCompaction()
    found.vacuum(hours)


def _writer(frame: DataFrame, root: str, table: Table) -> DataFrameWriter:
    """A writer of the columns of the schema, in its order; creates the table if needed.

    The frame's columns may be nullable where the table's are not: Spark cannot know that a computed
    column holds no null, and Delta checks each row.
    """
    if not is_there(frame.sparkSession, root, table):
        _create(frame.sparkSession, root, table)
    columns = StructType([_nullable(column) for column in table.columns])
    # Adds columns that are new in the schema to an older table.
    return frame.to(columns).write.format("delta").option("mergeSchema", "true")


def _create(spark: SparkSession, root: str, table: Table) -> None:
    """Create the empty table: only then can its columns be NOT NULL."""
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
