"""Request rows from Parquet to batches of tensors, through Petastorm (imported here alone)."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from petastorm import make_batch_reader

from mfn.engine.plan import Shard
from mfn.models.batch import Batch, concatenate
from mfn.splits.published import SplitFile

# Petastorm reads with what pyarrow 14 calls deprecated, which is why pyarrow is pinned.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")

COLUMNS = ["history", "history_length", "candidates", "candidate_count", "labels"]


class RowsLost(RuntimeError):
    """A file gave other rows than its footer promises; the message names it and both counts."""


class Feed:
    """Batches of one worker, from the files of its shard, and the seconds spent waiting for them.

    One row group a file, one reading thread and no shuffling by Petastorm: this is the one way in
    which it keeps the order of the files that it is given. Rows were shuffled once when they were
    written; here they are shuffled anew within each file. While one file is trained on, a thread
    makes tensors of the next.
    """

    def __init__(self, *, user_fields: int, context_fields: int) -> None:
        """Say how many profile and context fields the rows carry."""
        self.columns = [
            *COLUMNS,
            *(["user_fields"] if user_fields else []),
            *(["context_fields"] if context_fields else []),
        ]
        self.wait_seconds = 0.0

    def epoch(self, shard: Shard, batch_rows: int, done: int = 0) -> Iterator[Batch]:
        """Every row of the shard once, in batches of `batch_rows`; the last may be smaller.

        done: batches to leave out at the beginning; of the files before the next one no row is
        read.

        Raises:
            RowsLost: a file gave other rows than its footer promises.
        """
        first_file, offset = shard.position(done * batch_rows)
        rest: list[Batch] = []
        files = self._files(shard.files[first_file:])
        # The files are closed once the thread has come to its end.
        with contextlib.closing(files), ThreadPoolExecutor(max_workers=1) as reading:
            coming = reading.submit(next, files, None)
            for place in itertools.count(first_file):
                start = time.perf_counter()
                rows = coming.result()
                self.wait_seconds += time.perf_counter() - start
                if rows is None:
                    break
                coming = reading.submit(next, files, None)
                random = torch.Generator().manual_seed(shard.seed_of(place))
                order = torch.randperm(len(rows), generator=random)
                rest.append(rows.select(order[offset:] if place == first_file else order))
                whole = concatenate(rest)
                ends = len(whole) - len(whole) % batch_rows
                for first in range(0, ends, batch_rows):
                    yield whole.select(slice(first, first + batch_rows)).trimmed()
                rest = [whole.select(slice(ends, None))]
        if rest and len(rest[0]):
            yield rest[0].trimmed()

    def _files(self, files: Sequence[SplitFile]) -> Generator[Batch, None, None]:
        if not files:
            return
        with make_batch_reader(
            [file.url for file in files],
            schema_fields=self.columns,
            shuffle_row_groups=False,
            reader_pool_type="thread",
            workers_count=1,
            num_epochs=1,
        ) as reader:
            rows_of_files = iter(reader)
            for file in files:
                columns = next(rows_of_files, None)
                _check(file, 0 if columns is None else len(columns.history_length))
                yield _batch(columns)
            if next(rows_of_files, None) is not None:
                raise RowsLost(f"{files[-1].url}: expected one row group a file, got more")


def _check(file: SplitFile, rows: int) -> None:
    if rows != file.rows:
        raise RowsLost(
            f"{file.url}: expected {file.rows} rows, as its footer says, got {rows}; the split "
            "was changed after it was published: build it again with jobs/build_splits.py"
        )


def _batch(columns: Any) -> Batch:
    rows = len(columns.history_length)

    def tensor(name: str) -> torch.Tensor:
        if not hasattr(columns, name):
            return torch.zeros(rows, 0, dtype=torch.long)
        return torch.from_numpy(np.asarray(getattr(columns, name)).astype(np.int64, copy=True))

    return Batch.of_columns(tensor)
