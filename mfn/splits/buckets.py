"""Quantile buckets: turn numbers into indices.

Quantiles are exact and do not depend on Spark's partitions. Their memory grows with the number of
distinct values. Numbers from events are therefore rounded to three digits first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F

from mfn.indices import FIRST_INDEX, MISSING
from mfn.splits.vocabulary import Fingerprint, fingerprint_of

DIGITS = 3


@dataclass(frozen=True)
class Buckets:
    """Bucket b holds the numbers x with boundaries[b-1] <= x < boundaries[b].

    An index is a rank among the values that the boundaries come from, not an amount.
    """

    boundaries: tuple[float, ...]
    count: int

    @classmethod
    def of(cls, edges: Sequence[float] | None, count: int) -> Buckets:
        """Buckets from the result of `edges`; NO_BUCKETS if it is null."""
        return cls(tuple(edges[: count - 1]), count) if edges else NO_BUCKETS

    @property
    def fingerprint(self) -> Fingerprint:
        """Fingerprint of a vocabulary whose keys are the numbers of the buckets."""
        return Fingerprint(
            FIRST_INDEX + self.count, fingerprint_of([str(bucket) for bucket in range(self.count)])
        )

    def index(self, number: Column) -> Column:
        """The index of a number; MISSING if there is no number, or if there are no buckets."""
        if not self.count:
            return F.lit(MISSING)
        bucket = sum((F.when(number >= edge, 1).otherwise(0) for edge in self.boundaries), F.lit(0))
        return F.when(is_number(number), F.lit(FIRST_INDEX) + bucket).otherwise(MISSING)


NO_BUCKETS = Buckets((), 0)
"""Buckets of a field without any number."""


def is_number(value: Column) -> Column:
    """Whether a double is a finite number: not null, NaN or infinite."""
    return value.isNotNull() & ~F.isnan(value) & (F.abs(value) != math.inf)


def edges(number: Column, count: int) -> Column:
    """An aggregate: the boundaries of `count` buckets as an array; null if there is no number."""
    shares = [place / count for place in range(1, count)]
    return F.percentile(F.when(is_number(number), number), shares or [0.5])


def rounded(number: Column) -> Column:
    """A number rounded to three significant digits, so that there are few distinct values."""
    size = F.floor(F.log10(F.abs(number)))
    unit = F.pow(F.lit(10.0), size - (DIGITS - 1))
    return F.when(number == 0, number).otherwise(F.round(number / unit) * unit)
