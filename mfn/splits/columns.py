"""Helpers for Arrow and numpy, used by the steps to timelines and to request rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

BATCH_ROWS = 1 << 16
"""Rows processed at a time: enough to make the fixed cost of a batch negligible."""


def pieces(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at least `rows` rows; only the last table may have fewer."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= rows:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def changes(column: pa.ChunkedArray) -> np.ndarray:
    """[rows] whether a value differs from that of the previous row; true for the first row."""
    changed = np.ones(len(column), dtype=bool)
    if len(column) > 1:
        here, before = column.slice(1), column.slice(0, len(column) - 1)
        differs = pc.fill_null(pc.not_equal(here, before), False)
        one_is_null = pc.xor(here.is_null(), before.is_null())
        changed[1:] = pc.or_(differs, one_is_null).to_numpy()
    return changed


def numbers(column: pa.ChunkedArray, null: int = 0) -> np.ndarray:
    """[rows] an integer column, with nulls replaced by `null`."""
    return np.asarray(pc.fill_null(column, null).to_numpy())


def booleans(column: pa.ChunkedArray) -> np.ndarray:
    """[rows] a boolean column without nulls."""
    return np.asarray(column.to_numpy()).astype(bool)


def lists(values: np.ndarray) -> pa.ListArray:
    """A list column from a matrix [rows, width]."""
    rows, width = values.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))


def matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """[rows, width] from a list column whose lists all have the length `width`."""
    flat = pc.list_flatten(column).to_numpy()
    return np.asarray(flat).reshape(len(column), width)


def record_batch(schema: StructType, rows: int, columns: dict[str, Any]) -> pa.RecordBatch:
    """A batch of this schema; a missing column becomes null, or empty lists if it holds lists."""
    arrow = to_arrow_schema(schema)
    arrays = []
    for field in arrow:
        values = columns.get(field.name)
        if values is None:
            values = _empty(rows, field.type)
        elif isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        elif isinstance(values, np.ndarray):
            values = pa.array(values)
        arrays.append(values if values.type.equals(field.type) else values.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _empty(rows: int, kind: pa.DataType) -> pa.Array:
    """A column of nulls, or of empty lists."""
    if not pa.types.is_list(kind):
        return pa.nulls(rows, kind)
    offsets = pa.array(np.zeros(rows + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.nulls(0, kind.value_type))
