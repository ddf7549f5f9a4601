"""Which rows a worker reads, and in which order: a pure function of date, epoch and worker.

Every worker knows the plan of all of them, so the number of steps is agreed on before the first
collective, without one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SplitFile:
    """A Parquet file of one row group, and the rows that its footer promises."""

    url: str
    rows: int


@dataclass(frozen=True)
class Shard:
    """One worker's files of an epoch, in the order in which it reads them."""

    files: tuple[SplitFile, ...]
    seed: int

    @property
    def rows(self) -> int:
        """Rows that the worker will see."""
        return sum(file.rows for file in self.files)


def shards(
    files: Sequence[SplitFile], date: str, epoch: int, workers: int, seed: int
) -> list[Shard]:
    """Deal the files of a split, shuffled for this epoch, to the workers one at a time.

    Each file goes to exactly one worker. Of unequal files the larger are dealt first, to whoever
    has the fewest rows, so that the workers' rows differ by at most one file.
    """
    random = np.random.default_rng(_seed(seed, date, epoch))
    shuffled = [files[place] for place in random.permutation(len(files))]
    dealt: list[list[SplitFile]] = [[] for _ in range(workers)]
    for file in sorted(shuffled, key=lambda one: -one.rows):
        min(dealt, key=lambda mine: sum(one.rows for one in mine)).append(file)
    place_of = {file: place for place, file in enumerate(shuffled)}
    return [
        Shard(tuple(sorted(mine, key=place_of.__getitem__)), _seed(seed, date, epoch, worker))
        for worker, mine in enumerate(dealt)
    ]


def steps(dealt: Sequence[Shard], batch_rows: int) -> int:
    """Steps of the epoch, for all workers: as many as the one with the most rows needs."""
    return max(-(-shard.rows // batch_rows) for shard in dealt)


def _seed(*parts: int | str) -> int:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big")
