"""Co-occurrence of values in plain loops, to compare with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mfn.indices import FIRST_INDEX

Weights = dict[tuple[int, int], float]
History = Sequence[Sequence[int]]
"""Of each step, the values of its item."""


def weights_of(histories: Sequence[History], window: int | None, inverse: bool) -> Weights:
    """The weight of each pair of different values, in both directions."""
    found: Weights = defaultdict(float)
    for history in histories:
        for s, one in enumerate(history):
            for t, other in enumerate(history):
                if window is not None and abs(s - t) > window:
                    continue
                weight = 1 / max(abs(s - t), 1) if inverse else 1.0
                for a in one:
                    for b in other:
                        if min(a, b) >= FIRST_INDEX and a != b:
                            found[a, b] += weight
    return dict(found)


def information_of(weights: Weights, shift: float = 0.0) -> Weights:
    """The pairs with positive mutual information less the shift, and that."""
    of_value: dict[int, float] = defaultdict(float)
    for (a, _), weight in weights.items():
        of_value[a] += weight
    total = sum(of_value.values())
    found = {
        (a, b): math.log(weight * total / (of_value[a] * of_value[b])) - shift
        for (a, b), weight in weights.items()
    }
    return {pair: value for pair, value in found.items() if value > 1e-9}


def nearest_of(information: Weights, neighbours: int) -> Weights:
    """Of each value, the pairs with the most information; of equal ones those with smaller b."""
    kept: Weights = {}
    for value in {a for a, _ in information}:
        own = [(round(-i, 9), b) for (a, b), i in information.items() if a == value]
        for _, b in sorted(own)[:neighbours]:
            kept[value, b] = information[value, b]
    return kept


def matrix_of(information: Weights, size: int) -> np.ndarray:
    """The information as a matrix, symmetric also where only one of two values kept a pair."""
    matrix = np.zeros((size, size))
    for (a, b), value in information.items():
        matrix[a, b] = matrix[b, a] = value
    return matrix
