"""Which rows a worker reads, in which order: a pure function of seed, date, epoch and worker.

Every worker computes the plan of all workers, so all know the number of steps without a collective.
A position in an epoch is a number of rows, that is, a file and an offset in it. Nothing else is
needed to resume from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfn.splits.published import SplitFile


@dataclass(frozen=True)
class Shard:
    """One worker's files of an epoch, in the order in which it reads them."""

    files: tuple[SplitFile, ...]
    seed: int

    @property
    def rows(self) -> int:
        """Number of rows in its files."""
        return sum(file.rows for file in self.files)

    def seed_of(self, place: int) -> int:
        """Seed for the order of the rows within the file at this index."""
        return _seed(self.seed, place)

    def position(self, rows: int) -> tuple[int, int]:
        """Index of the file that holds row number `rows` (from 0), and the row's offset in it.

        At the end of the shard or after it: the index after the last file, and 0.
        """
        for place, file in enumerate(self.files):
            if rows < file.rows:
                return place, rows
            rows -= file.rows
        return len(self.files), 0


def shards(
    files: Sequence[SplitFile], date: str, epoch: int, workers: int, seed: int
) -> list[Shard]:
    """Shuffle the files of a split for this epoch and divide them among the workers.

    Each file with rows goes to exactly one worker. Larger files are given out first, each to the
    worker with the fewest rows, so that the workers' numbers of rows differ by at most one file.
    """
    random = np.random.default_rng(_seed(seed, date, epoch))
    shuffled = [files[place] for place in random.permutation(len(files)) if files[place].rows]
    dealt: list[list[SplitFile]] = [[] for _ in range(workers)]
    for file in sorted(shuffled, key=lambda one: -one.rows):
        min(dealt, key=lambda mine: sum(one.rows for one in mine)).append(file)
    place_of = {file: place for place, file in enumerate(shuffled)}
    return [
        Shard(tuple(sorted(mine, key=place_of.__getitem__)), _seed(seed, date, epoch, worker))
        for worker, mine in enumerate(dealt)
    ]


def steps(dealt: Sequence[Shard], batch_rows: int) -> int:
    """Number of steps of the epoch on every worker: what the worker with most rows needs."""
    return max(-(-shard.rows // batch_rows) for shard in dealt)


def _seed(*parts: int | str) -> int:
    """A seed in 63 bits: the hash of the parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63
