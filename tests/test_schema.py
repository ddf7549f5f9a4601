"""Whoever opens a table finds what each column means, and names that do not clash."""

from __future__ import annotations

import pytest
from pyspark.sql.types import ArrayType, MapType, StructType

from mfn import indices, schema
from mfn.schema import TABLES, Table

COLUMNS = {
    **{table.name: table.columns for table in TABLES},
    **{name: kind for name, kind in vars(schema).items() if isinstance(kind, StructType)},
}


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_every_column_says_what_it_means_and_is_there_once(columns: StructType) -> None:
    assert len(set(columns.names)) == len(columns.names) > 0
    for column in columns:
        assert column.metadata.get("comment", "").strip(), column.name


def test_every_table_is_in_the_list_of_tables_under_a_name_of_its_own() -> None:
    defined = [value for value in vars(schema).values() if isinstance(value, Table)]
    assert sorted(table.name for table in defined) == sorted(table.name for table in TABLES)
    assert len({table.name for table in TABLES}) == len(TABLES)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_partitions_are_columns_that_are_never_null(table: Table) -> None:
    """A null partition would be replaced by no `where`, and so pile up."""
    assert table.partitions
    for name in table.partitions:
        assert not table.columns[name].nullable, name


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_no_not_null_inside_of_a_column_of_a_delta_table(table: Table) -> None:
    """Delta cannot check it and refuses the table."""
    for column in table.columns:
        kind = column.dataType
        assert not isinstance(kind, ArrayType) or kind.containsNull, column.name
        assert not isinstance(kind, MapType) or kind.valueContainsNull, column.name


def test_reserved_indices_come_before_all_others() -> None:
    reserved = {indices.PADDING, indices.MISSING, indices.UNKNOWN}
    assert reserved == set(range(indices.FIRST_INDEX))


def test_the_item_table_has_a_column_for_each_item_field() -> None:
    assert set(indices.ITEM_FIELDS) < set(schema.ITEM_ROWS.names)
