"""Counts of values that stand together, against plain loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyspark.sql import SparkSession

from mfn.pretraining import pairs
from mfn.pretraining.pairs import UNIT, Pairs, informative_pairs, together
from mfn.settings import EmbeddingSettings
from tests.pretraining.plain import Weights, information_of, nearest_of, weights_of

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
VALUES = SHAPES.flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, 8)))


@given(VALUES, st.none() | st.integers(1, 8), st.booleans())
def test_pairs_are_those_of_plain_loops(
    values_UNX: np.ndarray, window: int | None, inverse: bool
) -> None:
    a, b, weight = together(values_UNX, window, inverse)
    found = dict(zip(zip(a, b, strict=True), weight, strict=True))
    assert len(found) == len(a)
    # A weight per distance is rounded down to a whole number.
    expected = weights_of(values_UNX.tolist(), window, inverse)
    assert found.keys() == expected.keys()
    unit = UNIT if inverse else 1
    for pair, value in expected.items():
        assert found[pair] == pytest.approx(value * unit, abs=1e-4 * unit if inverse else 0)


def items(users: int, seed: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    histories = random.integers(3, 30, (users, 6))
    histories[np.arange(6) >= random.integers(1, 7, users)[:, None]] = 0
    return [history.tolist() for history in histories]


SIZES = {"category": 9, "one value": 4, "entity": 12}


def values() -> dict[str, np.ndarray]:
    """By field, the values of 30 items; the first three items are reserved."""
    random = np.random.default_rng(3)
    found = {
        "category": random.integers(1, 9, 30),
        "one value": np.full(30, 3),
        "entity": random.integers(3, 12, (30, 2)),
    }
    for of_field in found.values():
        of_field[:3] = 0
    return found


def as_weights(found: Pairs) -> Weights:
    every = zip(found.a_n.tolist(), found.b_n.tolist(), found.information_n, strict=True)
    return {(a, b): value for a, b, value in every}


def expected_of(name: str, histories: Sequence[Sequence[int]], inverse: bool) -> Weights:
    of_items = values()[name].reshape(30, -1).tolist()
    return weights_of([[of_items[item] for item in one] for one in histories], None, inverse)


@pytest.mark.parametrize(("neighbours", "weighting"), [(1000, "none"), (2, "inverse_distance")])
def test_spark_counts_what_plain_loops_count(
    spark: SparkSession, neighbours: int, weighting: str
) -> None:
    histories = items(60, seed=1)
    frame = spark.createDataFrame([(one,) for one in histories], "history array<int>")
    settings = EmbeddingSettings(
        cooccurrence_neighbours=neighbours,
        cooccurrence_weighting=weighting,
        cooccurrence_shift=0.1,
    )
    found = informative_pairs(frame.repartition(3), values(), SIZES, settings)
    for name, size in SIZES.items():
        expected = expected_of(name, histories, weighting == "inverse_distance")
        kept = nearest_of(information_of(expected, 0.1), neighbours)
        shown = as_weights(found[name])
        assert shown.keys() == kept.keys(), name
        assert shown == pytest.approx(kept, abs=1e-4)
        with_pairs = {a for a, _ in expected}
        assert np.flatnonzero(found[name].sums_V).tolist() == sorted(with_pairs)
        assert len(found[name].sums_V) == size
    assert not len(found["one value"].a_n)


def test_without_histories_there_are_no_pairs(spark: SparkSession) -> None:
    frame = spark.createDataFrame([], "history array<int>")
    found = informative_pairs(frame, values(), SIZES, EmbeddingSettings())
    assert all(not one.sums_V.any() and not len(one.a_n) for one in found.values())


def test_a_pair_in_many_batches_of_a_task_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are made on the way, so that repeated pairs do not pile up."""
    monkeypatch.setattr(pairs, "ROWS_AT_ONCE", 4)
    random = np.random.default_rng(2)
    batches, expected = [], Counter[int]()
    for _ in range(20):
        rows_n4 = random.integers([0, 3, 3, 1], [2, 6, 6, 9], (3, 4))
        columns = zip(rows_n4.T, pairs.COUNTS.types, strict=True)
        arrays_ = [pa.array(column).cast(kind) for column, kind in columns]
        batches.append(pa.RecordBatch.from_arrays(arrays_, schema=pairs.COUNTS))
        for field, a, b, one in rows_n4.tolist():
            expected[((field << 29 | a) << 29) | b] += one
    key, weight = pairs._added_up(batches)
    assert dict(zip(key.tolist(), weight.tolist(), strict=True)) == expected
