"""Numbers as indices: quantile buckets.

Quantiles are exact and do not depend on how Spark cuts the data. What is held for them grows with
the number of different values, so numbers of events are first rounded to three digits.
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
    """Bucket b holds numbers from boundaries[b-1] to below boundaries[b].

    What an index means is a rank among the values that were learnt from, not an amount.
    """

    boundaries: tuple[float, ...]
    count: int

    @classmethod
    def of(cls, edges: Sequence[float] | None, count: int) -> Buckets:
        """From what `edges` gave; none at all where there was no number."""
        return cls(tuple(edges[: count - 1]), count) if edges else NO_BUCKETS

    @property
    def fingerprint(self) -> Fingerprint:
        """As of a vocabulary whose keys are the buckets' numbers."""
        return Fingerprint(
            FIRST_INDEX + self.count, fingerprint_of([str(bucket) for bucket in range(self.count)])
        )

    def index(self, number: Column) -> Column:
        """The index of a number; MISSING where there is none, or no bucket was learnt."""
        if not self.count:
            return F.lit(MISSING)
        bucket = sum((F.when(number >= edge, 1).otherwise(0) for edge in self.boundaries), F.lit(0))
        return F.when(is_number(number), F.lit(FIRST_INDEX) + bucket).otherwise(MISSING)


NO_BUCKETS = Buckets((), 0)
"""Of values without a number."""


def is_number(value: Column) -> Column:
    """Whether a double is one: not null, NaN or endless."""
    return value.isNotNull() & ~F.isnan(value) & (F.abs(value) != math.inf)


def edges(number: Column, count: int) -> Column:
    """An aggregate: the boundaries of `count` buckets as an array; null without any number."""
    shares = [place / count for place in range(1, count)]
    return F.percentile(F.when(is_number(number), number), shares or [0.5])


def rounded(number: Column) -> Column:
    """A number to three digits, so that there are few different ones."""
    size = F.floor(F.log10(F.abs(number)))
    unit = F.pow(F.lit(10.0), size - (DIGITS - 1))
    return F.when(number == 0, number).otherwise(F.round(number / unit) * unit)
