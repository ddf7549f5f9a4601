"""Which rows a worker reads, and in which order: a pure function of date, epoch and worker.

Every worker knows the plan of all of them, so the number of steps is agreed on before the first
collective, without one. A position in an epoch is a number of rows, and so a file and an offset
within it: nothing else need be kept to go on from there.
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
        """Rows that the worker will see."""
        return sum(file.rows for file in self.files)

    def seed_of(self, place: int) -> int:
        """Seed of the order of the rows of the file at this place."""
        return _seed(self.seed, place)

    def position(self, rows: int) -> tuple[int, int]:
        """Where the row after so many stands: the place of its file, and its offset there.

        At the end, and behind it, that is the place after the last file.
        """
        for place, file in enumerate(self.files):
            if rows < file.rows:
                return place, rows
            rows -= file.rows
        return len(self.files), 0


def shards(
    files: Sequence[SplitFile], date: str, epoch: int, workers: int, seed: int
) -> list[Shard]:
    """Deal the files of a split, shuffled for this epoch, to the workers one at a time.

    Each file with rows goes to exactly one worker. Of unequal files the larger are dealt first, to
    whoever has the fewest rows, so that the workers' rows differ by at most one file.
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
    """Steps of the epoch, for all workers: as many as the one with the most rows needs."""
    return max(-(-shard.rows // batch_rows) for shard in dealt)


def seed_of_step(seed: int, date: str, epoch: int, worker: int, step: int) -> int:
    """Seed of what is drawn within a step, such as dropout."""
    return _seed(seed, date, epoch, worker, "step", step)


def _seed(*parts: int | str) -> int:
    """A number that a generator takes, and that no two different parts share but by chance."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63
