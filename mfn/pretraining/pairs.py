"""Which values of an item field stand together in users' histories, and how much that says.

Counted by Spark, with whole Arrow batches. Two shuffles beside that of the histories: sums by
value, and pairs by their first value. A task holds the item table's columns of these fields and the
pairs of its partition, fewer with more partitions (spark.shuffle_partitions). The driver receives
one number and a bounded number of pairs of each value.

This module runs in Spark's tasks and does not load torch.

Legend: U users of a batch, N history steps, I rows of the item table, X values of an item in a
field (1, or several entities), V values of a field, n pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mfn.indices import FIRST_INDEX
from mfn.settings import EmbeddingSettings
from mfn.spark import caching

UNIT = 1 << 20
"""Weight of a pair of neighbouring steps if weights fall with the distance. Weights are whole
numbers, so that sums do not depend on the order in which Spark adds; their unit cancels out."""
USERS_AT_ONCE = 2000
"""Users whose pairs a task counts at a time: with histories of 50, up to 5 million pairs."""
ROWS_AT_ONCE = 1 << 20
"""Rows that a task hands to Spark at a time."""
VALUE_BITS = 29
"""A field, and two values of it, make one whole number."""
SUMS = pa.schema([("field", pa.int32()), ("a", pa.int32()), ("weight", pa.int64())])
COUNTS = pa.schema(
    [("field", pa.int32()), ("a", pa.int32()), ("b", pa.int32()), ("weight", pa.int64())]
)
INFORMATION = pa.schema(
    [("field", pa.int32()), ("a", pa.int32()), ("b", pa.int32()), ("information", pa.float64())]
)


@dataclass(frozen=True)
class Pairs:
    """Pairs of different values of a field, each in both directions.

    Attributes:
        a_n, b_n: the values.
        information_n: their positive pointwise mutual information, in nats, less the shift.
        sums_V: of each value, the sum of the weights of all pairs with it; 0 if it has none.
    """

    a_n: np.ndarray
    b_n: np.ndarray
    information_n: np.ndarray
    sums_V: np.ndarray


@dataclass(frozen=True)
class Rule:
    """Which pairs of values count, and how much; picklable, for Spark's tasks.

    Attributes:
        values: for each field, the values of each row of the item table, [I, X].
        window: the largest number of steps between two behaviours; None: any.
        inverse_distance: whether the weight falls with the distance.
    """

    values: Sequence[np.ndarray]
    window: int | None
    inverse_distance: bool

    def together(self, histories: pa.RecordBatch) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
        """For some users at a time and each field, its position and the `together` of it."""
        for first in range(0, histories.num_rows, USERS_AT_ONCE):
            some = histories.slice(first, USERS_AT_ONCE)
            history_UN = some.column("history").flatten().to_numpy().reshape(some.num_rows, -1)
            for field, values_IX in enumerate(self.values):
                values_UNX = values_IX[history_UN]
                yield field, together(values_UNX, self.window, self.inverse_distance)


def informative_pairs(
    histories: DataFrame,
    values: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    settings: EmbeddingSettings,
) -> dict[str, Pairs]:
    """By field, the pairs with positive mutual information; of each value those with the largest.

    Args:
        histories: column `history`, item rows of N steps, then 0.
        values: by field, the values of each row of the item table, [I] or [I, X].
        sizes: V by field.
        settings: window, weighting and shift of the pairs, and how many are kept of each value.
    """
    context = histories.sparkSession.sparkContext
    rule = context.broadcast(
        Rule(
            [one.reshape(len(one), -1).astype(np.int32) for one in values.values()],
            settings.cooccurrence_window,
            settings.cooccurrence_weighting == "inverse_distance",
        )
    )
    shift, neighbours = settings.cooccurrence_shift, settings.cooccurrence_neighbours
    with caching() as cached:
        histories = cached(histories.select("history"))
        found = (
            histories.mapInArrow(lambda batches: _sums(rule.value, batches), _spark(SUMS))
            .groupBy("field", "a")
            .agg(F.sum("weight").alias("weight"))
            .toPandas()
        )
        sums = {name: np.zeros(sizes[name], dtype=np.int64) for name in values}
        for field, sums_V in enumerate(sums.values()):
            of_field = found[found["field"] == field]
            sums_V[of_field["a"]] = of_field["weight"]
        shared = context.broadcast(list(sums.values()))
        pairs = (
            histories.mapInArrow(lambda batches: _counts(rule.value, batches), _spark(COUNTS))
            .repartition("field", "a")
            .mapInArrow(
                lambda batches: _informative(shared.value, shift, neighbours, batches),
                _spark(INFORMATION),
            )
            .toPandas()
        )
    rule.destroy()
    shared.destroy()
    result = {}
    for field, (name, sums_V) in enumerate(sums.items()):
        own = pairs[pairs["field"] == field]
        a_n, b_n, information_n = (own[key].to_numpy() for key in ("a", "b", "information"))
        result[name] = Pairs(a_n, b_n, information_n, sums_V)
    return result


def together(
    values_UNX: np.ndarray, window: int | None, inverse_distance: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of different values in the histories of users, in both directions: a, b, weight.

    A pair of steps that are t steps apart adds 1, or UNIT / t, for each two values of theirs. Two
    values of the same step are neighbours: they count like those of steps next to each other.

    Args:
        values_UNX: of each step; reserved indices do not count.
        window: the largest t; None: any.
        inverse_distance: whether the weight is UNIT / t.
    """
    from scipy import sparse  # here: other tasks need not load it

    users, steps, _ = values_UNX.shape
    real = values_UNX >= FIRST_INDEX
    user, step, _ = np.nonzero(real)
    value, column = np.unique(values_UNX[real], return_inverse=True)

    def incidence(row: np.ndarray, rows: int) -> sparse.csr_matrix:
        ones = np.ones(len(row), dtype=np.int64)
        return sparse.csr_matrix((ones, (row, column)), (rows, len(value)))

    if not inverse_distance and (window is None or window >= steps - 1):
        by_user = incidence(user, users)
        pairs = by_user.T @ by_user
    else:
        # Rows by step, then user: users * t rows further down is the same user t steps later.
        by_step = incidence(step * users + user, steps * users)
        pairs = (by_step.T @ by_step) * (UNIT if inverse_distance else 1)
        for t in range(1, min(window or steps, steps - 1) + 1):
            later = by_step[: (steps - t) * users].T @ by_step[t * users :]
            pairs = pairs + (later + later.T) * (UNIT // t if inverse_distance else 1)
    pairs = pairs.tocoo()
    different = pairs.row != pairs.col
    return value[pairs.row[different]], value[pairs.col[different]], pairs.data[different]


def _sums(rule: Rule, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """From histories to SUMS, for mapInArrow: of each value, the weight of its pairs."""
    for batch in batches:
        for field, (a, _, weight) in rule.together(batch):
            value, position = np.unique(a, return_inverse=True)
            total = np.zeros(len(value), dtype=np.int64)
            np.add.at(total, position, weight)
            yield from _rows(SUMS, field, value, total)


def _counts(rule: Rule, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """From histories to COUNTS, for mapInArrow: each pair at most once for some users."""
    for batch in batches:
        for field, (a, b, weight) in rule.together(batch):
            yield from _rows(COUNTS, field, a, b, weight)


def _informative(
    sums: Sequence[np.ndarray],
    shift: float,
    neighbours: int,
    batches: Iterable[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """From COUNTS to INFORMATION, for mapInArrow; a partition holds all pairs of a value."""
    key, weight = _added_up(batches)
    field, a = key >> 2 * VALUE_BITS, (key >> VALUE_BITS) % (1 << VALUE_BITS)
    b = key % (1 << VALUE_BITS)
    for position, sums_V in enumerate(sums):
        own = field == position
        of_a, of_b = sums_V[a[own]].astype(float), sums_V[b[own]].astype(float)
        information = np.log(weight[own] * (float(sums_V.sum()) / (of_a * of_b))) - shift
        a_n, b_n = a[own][information > 0], b[own][information > 0]
        information = information[information > 0]
        order = np.lexsort((b_n, -information, a_n))
        a_n, b_n, information = a_n[order], b_n[order], information[order]
        # The place of each pair among those of its value a, from 0.
        place = np.arange(len(a_n)) - np.searchsorted(a_n, a_n)
        kept = place < neighbours
        yield from _rows(INFORMATION, position, a_n[kept], b_n[kept], information[kept])


def _added_up(batches: Iterable[pa.RecordBatch]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs of some COUNTS, as field, a and b in one number, and their weights."""
    key, weight = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    keys, weights, waiting = [key], [weight], 0

    def flush() -> None:
        found, position = np.unique(np.concatenate(keys), return_inverse=True)
        added = np.zeros(len(found), dtype=np.int64)
        np.add.at(added, position, np.concatenate(weights))
        keys[:], weights[:] = [found], [added]

    for batch in batches:
        field, a, b, more = (column.to_numpy() for column in batch.columns)
        keys.append(((field.astype(np.int64) << VALUE_BITS | a) << VALUE_BITS) | b)
        weights.append(more)
        waiting += len(more)
        if waiting > max(ROWS_AT_ONCE, len(keys[0])):
            flush()
            waiting = 0
    flush()
    return keys[0], weights[0]


def _rows(columns: pa.Schema, field: int, *values: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Rows of one field, in batches."""
    for first in range(0, len(values[0]), ROWS_AT_ONCE):
        parts = [one[first : first + ROWS_AT_ONCE] for one in values]
        arrays = [np.full(len(parts[0]), field), *parts]
        yield pa.RecordBatch.from_arrays(
            [pa.array(one).cast(kind) for one, kind in zip(arrays, columns.types, strict=True)],
            schema=columns,
        )


def _spark(columns: pa.Schema) -> str:
    """The columns of a frame, as Spark writes them."""
    names = {pa.int32(): "int", pa.int64(): "long", pa.float64(): "double"}
    return ", ".join(f"{column.name} {names[column.type]}" for column in columns)
