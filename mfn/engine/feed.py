"""Reads request rows from Parquet into batches of tensors; the only module with Petastorm."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from petastorm import make_batch_reader
from pyarrow.filesystem import FileSystem

from mfn.engine.shards import Shard
from mfn.locations import files_at
from mfn.models.batch import Batch, concatenate
from mfn.splits.published import SplitFile

# Petastorm uses functions that are deprecated in pyarrow 14; therefore pyarrow is pinned.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")

COLUMNS = ["history", "history_length", "candidates", "candidate_count", "labels"]


class _Files(FileSystem):
    """A file system of fsspec for Petastorm, whose own ones pyarrow takes only for local files."""

    def __init__(self, files: Any) -> None:
        self.isdir, self.isfile, self.exists = files.isdir, files.isfile, files.exists
        self.open = files.open


class RowsLost(RuntimeError):
    """A file has another number of rows than its footer says; the message has both counts."""


class Feed:
    """Batches of one worker, read from the files of its shard.

    Petastorm keeps the order of the files only with one row group per file, one reading thread and
    no shuffling of its own. The rows were shuffled once when they were written; here they are
    shuffled again within each file. While the workers train on one file, a thread reads the next
    file into tensors.

    Attributes:
        wait_seconds: time that `epoch` has spent waiting for this thread.
    """

    def __init__(self, *, user_fields: int, context_fields: int) -> None:
        """Take the numbers of profile fields and of context fields in each row."""
        self.columns = [
            *COLUMNS,
            *(["user_fields"] if user_fields else []),
            *(["context_fields"] if context_fields else []),
        ]
        self.wait_seconds = 0.0

    def epoch(self, shard: Shard, batch_rows: int, done: int = 0) -> Generator[Batch, None, None]:
        """Give every row of the shard once, in batches of `batch_rows`; the last may be smaller.

        Args:
            shard: the files, in the order in which they are read.
            batch_rows: rows of a batch.
            done: batches at the beginning to skip; files with only skipped rows are not opened.

        Raises:
            RowsLost: a file has another number of rows than its footer says.
        """
        first_file, offset = shard.position(done * batch_rows)
        rest: list[Batch] = []  # rows that did not fill a batch yet
        files = self._files(shard.files[first_file:])
        # The thread ends first, then the files are closed.
        with contextlib.closing(files), ThreadPoolExecutor(max_workers=1) as reading:
            next_rows = reading.submit(next, files, None)
            for place in itertools.count(first_file):
                start = time.perf_counter()
                rows = next_rows.result()
                self.wait_seconds += time.perf_counter() - start
                if rows is None:
                    break
                next_rows = reading.submit(next, files, None)
                random = torch.Generator().manual_seed(shard.seed_of(place))
                order = torch.randperm(len(rows), generator=random)
                rest.append(rows.select(order[offset:] if place == first_file else order))
                waiting = concatenate(rest)
                end = len(waiting) - len(waiting) % batch_rows  # end of the last full batch
                for first in range(0, end, batch_rows):
                    yield waiting.select(slice(first, first + batch_rows)).trimmed()
                rest = [waiting.select(slice(end, None))]
        if rest and len(rest[0]):
            yield rest[0].trimmed()

    def _files(self, files: Sequence[SplitFile]) -> Generator[Batch, None, None]:
        """The rows of each file, a batch per file, in the order of the files."""
        if not files:
            return
        with make_batch_reader(
            [file.url for file in files],
            schema_fields=self.columns,
            shuffle_row_groups=False,
            reader_pool_type="thread",
            workers_count=1,
            num_epochs=1,
            filesystem=_Files(files_at(files[0].url)[0]),
        ) as reader:
            rows_of_files = iter(reader)
            for file in files:
                columns = next(rows_of_files, None)
                _check(file, 0 if columns is None else len(columns.history_length))
                yield _batch(columns)
            if next(rows_of_files, None) is not None:
                raise RowsLost(f"{files[-1].url}: expected one row group per file, got more")


def _check(file: SplitFile, rows: int) -> None:
    if rows != file.rows:
        raise RowsLost(
            f"{file.url}: expected {file.rows} rows, as its footer says, got {rows}; the split "
            "was changed after it was published: rebuild it with jobs/build_splits.py"
        )


def _batch(columns: Any) -> Batch:
    rows = len(columns.history_length)

    def tensor(name: str) -> torch.Tensor:
        if not hasattr(columns, name):
            return torch.zeros(rows, 0, dtype=torch.long)
        return torch.from_numpy(np.asarray(getattr(columns, name)).astype(np.int64, copy=True))

    return Batch.of_columns(tensor)
