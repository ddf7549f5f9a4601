"""Vectors from co-occurrence span the same space as those of a plain computation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from mfn.indices import FIRST_INDEX
from mfn.pretraining.cooccurrence import factorised, from_histories
from mfn.pretraining.pairs import Pairs
from mfn.settings import EmbeddingSettings, Settings
from mfn.splits.published import Splits
from tests.pretraining.plain import Weights, information_of, matrix_of, weights_of
from tests.synthetic import SIZES, publish_splits


def plain_gram(matrix: np.ndarray, dimension: int) -> np.ndarray:
    """V Vᵀ of the rows V = U √S of the truncated SVD: the same for every sign of the columns."""
    left, singular, _ = np.linalg.svd(matrix)
    rank = min(dimension, len(matrix) - FIRST_INDEX - 1)
    rows = left[:, :rank] * np.sqrt(singular[:rank])
    gram: np.ndarray = rows @ rows.T
    return gram


def as_pairs(information: Weights, size: int) -> Pairs:
    a, b = (np.array([pair[at] for pair in information], dtype=np.int64) for at in (0, 1))
    sums_V = np.bincount(a, minlength=size)
    return Pairs(a, b, np.array(list(information.values())), sums_V)


@given(st.integers(4, 20), st.integers(0, 30), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_vectors_span_the_space_of_the_plain_decomposition(
    size: int, users: int, dimension: int, seed: int
) -> None:
    """From one value to many, and from no user to many."""
    random = np.random.default_rng(seed)
    histories = [
        [[int(value)] for value in random.integers(FIRST_INDEX, size, 5)] for _ in range(users)
    ]
    information = information_of(weights_of(histories, None, False))
    found = factorised(as_pairs(information, size), EmbeddingSettings(dimension=dimension))
    vectors_VD = found.vectors_VD.double().numpy()
    assert vectors_VD.shape == (size, dimension)
    matrix = matrix_of(information, size)
    singular = np.linalg.svd(matrix)[1]
    rank = min(dimension, size - FIRST_INDEX - 1)
    # Where two singular values are equal, which of them is cut is arbitrary.
    if rank == 0 or singular[rank - 1] - singular[rank] > 0.05 or singular[rank - 1] < 1e-9:
        expected = plain_gram(matrix, dimension)
        assert vectors_VD @ vectors_VD.T == pytest.approx(expected, abs=1e-3)
    assert found.known_V.tolist() == [bool(matrix[value].any()) for value in range(size)]


def test_the_latest_pretraining_history_of_each_user_counts(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    day = make_settings(embeddings={"dimension": 4})
    rows = {"pretraining": [9, 8], "pretraining_validation": [5], "train": [5], "test": [5]}
    publish_splits(day, rows)
    splits = Splits.published(day)
    values = {name: splits.item_indices()[name] for name in ("category", "entity")}
    found = from_histories(spark, splits, values, day.embeddings)
    latest: dict[str, tuple[str, list[int]]] = {}
    for row in spark.read.parquet(f"{splits.folder}/pretraining").collect():
        if row.history_length and row.request_id >= latest.get(row.user_id, ("", []))[0]:
            latest[row.user_id] = (row.request_id, row.history)
    for name, of_items in values.items():
        plain = of_items.reshape(len(of_items), -1).tolist()
        histories = [[plain[item] for item in history] for _, history in latest.values()]
        matrix = matrix_of(information_of(weights_of(histories, None, False)), SIZES[name])
        vectors_VD = found[name].vectors_VD.double().numpy()
        assert vectors_VD @ vectors_VD.T == pytest.approx(plain_gram(matrix, 4), abs=1e-3), name
