"""The columns of delivered Parquet files, each file by its own schema, as text.

Exports differ from day to day and from file to file: an id is an int64 today, and a double tomorrow
because of one gap. Therefore no schema is merged. The footers of all files are read first (in
threads, a small read for each file), and Spark reads files of equal types together. It reads only
the columns that are asked for, so the types of all others don't matter. No shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    NullType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from mfn.errors import DataRefused
from mfn.locations import files_at

THREADS = 16
EXPECTED = (
    "a text, a number, a time, a date, a truth value, bytes, or a list, map or struct of these"
)
_INT96 = "INT96"
_UUID_BYTES = 16

_SIMPLE: dict[pa.DataType, DataType] = {
    pa.null(): NullType(),
    pa.bool_(): BooleanType(),
    pa.int8(): ByteType(),
    pa.int16(): ShortType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.uint8(): ShortType(),
    pa.uint16(): IntegerType(),
    pa.uint32(): LongType(),
    pa.uint64(): DecimalType(20, 0),
    pa.float32(): FloatType(),
    pa.float64(): DoubleType(),
    pa.date32(): DateType(),
    pa.date64(): DateType(),
    pa.string(): StringType(),
    pa.large_string(): StringType(),
    pa.binary(): BinaryType(),
    pa.large_binary(): BinaryType(),
}


@dataclass(frozen=True)
class ParquetColumn:
    """A column of a Parquet file.

    Attributes:
        type: what the column holds.
        nanoseconds: whether it holds times as whole nanoseconds, which Spark reads as integers.
        uuid: whether it holds ids of 16 bytes.
    """

    name: str
    type: DataType
    nanoseconds: bool = False
    uuid: bool = False

    @property
    def field(self) -> StructField:
        """The column as Spark has to read it."""
        return StructField(self.name, LongType() if self.nanoseconds else self.type)

    def text(self) -> Column:
        """The column's value as JSON writes it, without quotes."""
        column = F.col(self.name)
        if self.nanoseconds:
            microseconds = f"(`{self.name}` - pmod(`{self.name}`, 1000)) div 1000"
            column = F.expr(f"timestamp_micros({microseconds})")
        if isinstance(self.type, TimestampType):
            return F.concat(column.cast("string"), F.lit("Z"))  # the session's zone is UTC
        if self.uuid:
            parts = r"^(.{8})(.{4})(.{4})(.{4})(.{12})$"
            return F.regexp_replace(F.lower(F.hex(column)), parts, "$1-$2-$3-$4-$5")
        if isinstance(self.type, FloatType | DoubleType):  # whole numbers with gaps often are
            whole = column == F.floor(column)
            return F.when(whole, column.try_cast("decimal(20,0)").cast("string")).otherwise(
                column.cast("string")
            )
        if isinstance(self.type, ArrayType | MapType | StructType):
            return F.to_json(column)
        return column.cast("string")


Columns = tuple[ParquetColumn, ...]


def columns_of(paths: Sequence[str], names: Iterable[str]) -> dict[Columns, list[str]]:
    """The files by the columns that they have of those in `names`.

    Raises:
        DataRefused: a file is no Parquet or is cut short, or a column has a type without a text.
    """
    groups: dict[Columns, list[str]] = {}
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(partial(_columns_of_file, names=frozenset(names)), paths)
        for path, columns in zip(paths, found, strict=True):
            groups.setdefault(columns, []).append(path)
    return groups


def _columns_of_file(path: str, names: frozenset[str]) -> Columns:
    try:
        files, inner = files_at(path)
        with files.open(inner, "rb") as file:
            footer = pq.ParquetFile(file)
            schema, leaves = footer.schema_arrow, footer.schema
    except (pa.ArrowException, OSError) as error:
        raise DataRefused(
            f"{path}: cannot be read as Parquet; it may be cut short or have another format than "
            f"its name says. Deliver it again. The reader says: {error}"
        ) from error
    # Arrow calls Spark's older times (INT96) nanoseconds as well.
    old_times = {
        leaves.column(place).path.split(".")[0]
        for place in range(len(leaves))
        if leaves.column(place).physical_type == _INT96
    }
    columns = []
    for field in schema:
        if field.name not in names:
            continue
        kind = _value_type(field.type)
        in_spark = _in_spark(kind, field.name in old_times)
        if isinstance(in_spark, NullType):
            continue
        if in_spark is None:
            raise DataRefused(
                f"{path}: column {field.name}: expected {EXPECTED}, got {field.type}; deliver the "
                "column as one of these, for example as text"
            )
        is_time = pa.types.is_timestamp(kind) and field.name not in old_times
        columns.append(
            ParquetColumn(
                field.name,
                in_spark,
                nanoseconds=is_time and kind.unit == "ns",
                uuid=pa.types.is_fixed_size_binary(kind) and kind.byte_width == _UUID_BYTES,
            )
        )
    return tuple(sorted(columns, key=lambda one: one.name))


def _value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves: not of their dictionary, and not of an extension."""
    if pa.types.is_dictionary(kind):
        return _value_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _value_type(kind.storage_type)
    return kind


def _in_spark(kind: pa.DataType, old_times: bool, inside: bool = False) -> DataType | None:
    """The type as which Spark reads a column; None if the type has no text.

    NullType if it can hold nothing but nulls, as a list of nulls does.

    Args:
        kind: Arrow's type.
        old_times: whether times in it are INT96.
        inside: whether it is a part of another type. There nanoseconds are whole numbers.
    """
    kind = _value_type(kind)
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if pa.types.is_decimal128(kind):
        return DecimalType(kind.precision, kind.scale)
    if pa.types.is_fixed_size_binary(kind):
        return BinaryType()
    if pa.types.is_timestamp(kind):
        if inside and kind.unit == "ns" and not old_times:
            return LongType()
        return TimestampType() if kind.tz is not None or old_times else TimestampNTZType()
    if pa.types.is_struct(kind):
        fields = []
        for one in kind:
            part = _in_spark(one.type, old_times, inside=True)
            if part is None:
                return None
            if not isinstance(part, NullType):
                fields.append(StructField(one.name, part))
        return StructType(fields) if fields else NullType()
    if pa.types.is_map(kind):
        key = _in_spark(kind.key_type, old_times, inside=True)
        value = _in_spark(kind.item_type, old_times, inside=True)
        return _of_parts([key, value], MapType)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _of_parts([_in_spark(kind.value_type, old_times, inside=True)], ArrayType)
    return None


def _of_parts(parts: Sequence[DataType | None], whole: Callable[..., DataType]) -> DataType | None:
    if None in parts:
        return None
    return NullType() if any(isinstance(part, NullType) for part in parts) else whole(*parts)
