"""Compare the results of both sides of `bench/splits.py`: outcomes and request rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.splits_duckdb import ITEMS, ROWS
from mfn.indices import FIRST_INDEX, UNKNOWN
from mfn.splits.requests import SPLITS

COMPARED = (
    "split", "request_id", "user_id", "request_time", "history", "history_length", "candidates",
    "labels", "candidate_count", "candidate_ids",
)  # fmt: skip
_BY_ITEM = ("history", "candidates")


def differences(ours: Mapping[str, Any], peers: Mapping[str, Any], peer: Path) -> list[str]:
    """Describe all differences, request rows with an example; empty if the results are equal.

    Args:
        ours, peers: results of `splits_spark.run` and `splits_duckdb.run`.
        peer: the folder that the peer wrote.
    """
    return [
        *_outcomes(ours["outcomes"], peers["outcomes"]),
        *_request_rows(Path(ours["folder"]), peer),
    ]


def _outcomes(ours: Iterable[Sequence[Any]], peers: Iterable[Sequence[Any]]) -> Iterator[str]:
    here, there = (
        {(day, name): rows for day, name, rows in side if rows} for side in (ours, peers)
    )
    for key in sorted(here.keys() | there.keys()):
        if here.get(key) != there.get(key):
            yield f"{' '.join(key)}: {here.get(key, 0)} rows here, {there.get(key, 0)} in the peer"


def _request_rows(ours: Path, peer: Path) -> Iterator[str]:
    keys = _keys(pq.read_table(peer / ITEMS), "index", "item_id")
    peer_index = {key: index for index, key in enumerate(keys)}
    our_keys = _keys(pq.read_table(ours / "items"), "item", "key")
    lacking = sorted({*keys} - {*our_keys})
    if lacking:
        yield f"items: {len(lacking)} only in the peer, such as {lacking[0]}"
        return
    # Both sides index items differently: our indices are replaced with those of the peer, which has
    # one for each item of the catalogue. Several of ours can be versions of an item.
    to_peer = np.array([peer_index.get(key, UNKNOWN) for key in our_keys], dtype=np.int32)
    columns = ", ".join(COMPARED)
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute("SET preserve_insertion_order = false")
        database.execute(
            f"CREATE TABLE peer AS SELECT {columns} FROM read_parquet("
            f"'{peer / ROWS}/*/*.parquet', hive_partitioning = true, "
            "hive_types = {'split': VARCHAR})"
        )
        database.execute("CREATE TABLE ours AS FROM peer LIMIT 0")
        for split in SPLITS:
            for file in sorted((ours / split).glob("*.parquet")):
                database.register("file", _in_items_of_peer(pq.read_table(file), to_peer))
                database.execute(
                    f"INSERT INTO ours SELECT {columns.replace('split', repr(split), 1)} FROM file"
                )
        for one, other in (("ours", "peer"), ("peer", "ours")):
            database.execute(f"CREATE TABLE only_{one} AS FROM {one} EXCEPT ALL FROM {other}")
        here, there = (
            database.table(f"only_{side}").count("*").fetchall()[0][0] for side in ("ours", "peer")
        )
        if here or there:
            yield (
                f"request rows: {here} only here, {there} only in the peer; "
                f"{_example(database, 'only_ours' if here else 'only_peer', keys)}"
            )


def _keys(table: pa.Table, index: str, key: str) -> list[str]:
    """Item ids by index; a reserved index n is named "reserved n"."""
    keys = [f"reserved {index}" for index in range(FIRST_INDEX)]
    pairs = zip(table[index].to_pylist(), table[key].to_pylist(), strict=True)
    items = sorted(pair for pair in pairs if pair[0] >= FIRST_INDEX)
    if [number for number, _ in items] != list(range(FIRST_INDEX, FIRST_INDEX + len(items))):
        raise ValueError(f"{key}: expected the indices {FIRST_INDEX}, … each once")
    return keys + [name for _, name in items]


def _in_items_of_peer(rows: pa.Table, to_peer: np.ndarray) -> pa.Table:
    """Our request rows with the peer's item indices."""
    for name in _BY_ITEM:
        column = rows[name].combine_chunks()
        values = pa.array(to_peer[column.flatten().to_numpy()])
        offsets = pa.array(column.offsets.to_numpy() - column.offsets[0].as_py())
        position = rows.schema.get_field_index(name)
        rows = rows.set_column(position, name, pa.ListArray.from_arrays(offsets, values))
    return rows


def _example(database: duckdb.DuckDBPyConnection, table: str, keys: Sequence[str]) -> str:
    """Describe a differing row, and the columns in which the other side's row of it differs."""
    row = database.execute(f"FROM {table} ORDER BY ALL LIMIT 1").fetchall()[0]
    other = "only_peer" if table == "only_ours" else "only_ours"
    twins = database.execute(
        f"FROM {other} WHERE split = ? AND request_id = ? AND user_id = ? ORDER BY ALL LIMIT 1",
        list(row[:3]),
    ).fetchall()
    name = "request {1} of {2} in {0}".format(*row)
    if not twins:
        return f"{name} is only on one side"

    def readable(column: str, value: Any) -> Any:
        return [keys[index] for index in value] if column in _BY_ITEM else value

    first, second = (row, twins[0]) if table == "only_ours" else (twins[0], row)
    return f"{name}: " + "; ".join(
        f"{column} {readable(column, here)} here, {readable(column, there)} in the peer"
        for column, here, there in zip(COMPARED, first, second, strict=True)
        if here != there
    )
