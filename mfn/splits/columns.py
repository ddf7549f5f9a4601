"""Small pieces of Arrow and numpy that the streams over requests and behaviours share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

BATCH_ROWS = 1 << 16
"""Rows that are worked on at a time: enough that a batch's fixed cost does not show."""


def pieces(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at least `rows` rows, the last one excepted."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= rows:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def changes(column: pa.ChunkedArray) -> np.ndarray:
    """[rows] whether a value differs from the one in the row before; the first row's does."""
    changed = np.ones(len(column), dtype=bool)
    if len(column) > 1:
        here, before = column.slice(1), column.slice(0, len(column) - 1)
        differs = pc.fill_null(pc.not_equal(here, before), False)
        one_is_null = pc.xor(here.is_null(), before.is_null())
        changed[1:] = pc.or_(differs, one_is_null).to_numpy()
    return changed


def numbers(column: pa.ChunkedArray, null: int = 0) -> np.ndarray:
    """[rows] an integer column with `null` for its nulls."""
    return np.asarray(pc.fill_null(column, null).to_numpy())


def booleans(column: pa.ChunkedArray) -> np.ndarray:
    """[rows] a boolean column without nulls."""
    return np.asarray(column.to_numpy()).astype(bool)


def lists(values: np.ndarray) -> pa.ListArray:
    """A list column of the rows of a matrix [rows, width]."""
    rows, width = values.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))


def matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """[rows, width] of a list column whose lists all have that length."""
    flat = pc.list_flatten(column).to_numpy()
    return np.asarray(flat).reshape(len(column), width)


def record_batch(schema: StructType, rows: int, columns: dict[str, Any]) -> pa.RecordBatch:
    """A batch of this schema; columns that are not given are null, or empty lists."""
    arrow = to_arrow_schema(schema)
    arrays = []
    for field in arrow:
        values = columns.get(field.name)
        if values is None:
            values = _nothing(rows, field.type)
        elif isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        elif isinstance(values, np.ndarray):
            values = pa.array(values)
        arrays.append(values if values.type.equals(field.type) else values.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _nothing(rows: int, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.nulls(rows, kind)
    offsets = pa.array(np.zeros(rows + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.nulls(0, kind.value_type))
