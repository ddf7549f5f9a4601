"""The feed through real Petastorm: every row once, in an order that can be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mfn.engine.feed import Feed, RowsLost
from mfn.engine.shards import Shard, shards
from mfn.models.batch import Batch
from mfn.settings import Settings
from mfn.splits.published import SplitFile, Splits
from tests.synthetic import publish_splits

ROWS = [70, 40, 1, 64]


@pytest.fixture
def splits(make_settings: Callable[..., Settings]) -> Splits:
    settings = make_settings()
    publish_splits(settings, {"train": ROWS})
    return Splits.published(settings)


def read(shard: Shard, batch_rows: int = 32, done: int = 0) -> list[tuple[int, ...]]:
    """Every row as a tuple of all its numbers, in the order of the feed."""
    rows = []
    for batch in Feed(user_fields=1, context_fields=1).epoch(shard, batch_rows, done):
        padding = torch.zeros(len(batch), 6 - batch.history_BN.shape[1], dtype=torch.long)
        columns = [
            batch.history_BN, padding, batch.candidates_BM, batch.labels_BM,
            batch.history_length_B[:, None], batch.candidate_count_B[:, None],
            batch.user_fields_BP, batch.context_fields_BS,
        ]  # fmt: skip
        rows += [tuple(row.tolist()) for row in torch.cat(columns, dim=1)]
    return rows


def written(splits: Splits, files: list[SplitFile]) -> list[tuple[int, ...]]:
    rows = []
    for file in files:
        for row in pq.read_table(file.url.removeprefix("file://")).to_pylist():
            rows.append(
                (
                    *row["history"], *row["candidates"], *row["labels"], row["history_length"],
                    row["candidate_count"], *row["user_fields"], *row["context_fields"],
                )
            )  # fmt: skip
    return rows


@pytest.mark.parametrize("batch_rows", [1, 32, 1000])
def test_every_row_comes_once_whatever_the_batch(splits: Splits, batch_rows: int) -> None:
    files = splits.files("train")
    dealt = shards(files, "2026-03-08", 0, 2, seed=1)
    seen = [row for shard in dealt for row in read(shard, batch_rows)]
    assert sorted(seen) == sorted(written(splits, files))
    assert len(seen) == sum(ROWS)


def test_an_epoch_repeats_and_the_next_one_is_shuffled_anew(splits: Splits) -> None:
    files = splits.files("train")
    first = shards(files, "2026-03-08", 0, 1, seed=1)[0]
    second = shards(files, "2026-03-08", 1, 1, seed=1)[0]
    assert read(first) == read(first)
    assert read(first) != read(second)
    assert read(first) != written(splits, list(first.files))


def test_batches_are_full_but_for_the_last(splits: Splits) -> None:
    shard = shards(splits.files("train"), "2026-03-08", 0, 1, seed=1)[0]
    feed = Feed(user_fields=1, context_fields=1)
    sizes = [len(batch) for batch in feed.epoch(shard, 50)]
    assert sizes == [50, 50, 50, 25]
    assert feed.wait_seconds > 0


@pytest.mark.parametrize("batch_rows", [1, 32, 70, 1000])
def test_an_epoch_goes_on_from_any_batch_as_if_it_had_begun_at_the_first(
    splits: Splits, batch_rows: int
) -> None:
    shard = shards(splits.files("train"), "2026-03-08", 0, 1, seed=1)[0]
    whole = read(shard, batch_rows)
    batches = -(-len(whole) // batch_rows)
    for done in {0, 1, 2, batches // 2, batches - 1, batches}:
        assert read(shard, batch_rows, done) == whole[done * batch_rows :]


def test_files_before_the_position_are_not_read(splits: Splits) -> None:
    shard = shards(splits.files("train"), "2026-03-08", 0, 1, seed=1)[0]
    before, after = shard.files[0], shard.files[1:]
    gone = Shard((SplitFile(before.url + ".gone", before.rows), *after), shard.seed)
    assert read(gone, before.rows, 1) == read(shard, before.rows, 1)
    with pytest.raises(OSError, match="gone"):
        read(gone, before.rows, 0)


def test_a_file_with_other_rows_than_promised_stops_the_epoch(splits: Splits) -> None:
    files = splits.files("train")
    shard = shards(files, "2026-03-08", 0, 1, seed=1)[0]
    assert len(read(shard)) == sum(ROWS)
    changed = Path(files[0].url.removeprefix("file://"))
    table = pq.read_table(changed)
    pq.write_table(table.slice(1), changed)
    with pytest.raises(RowsLost, match=rf"{changed.name}: expected 70 rows.*got 69"):
        read(shard)


def test_a_worker_without_files_has_no_batches(splits: Splits) -> None:
    assert read(Shard((), seed=1)) == []


class SlowFeed(Feed):
    """A feed whose files come late, as from a slow disk."""

    def __init__(self, seconds_of_a_file: float) -> None:
        super().__init__(user_fields=1, context_fields=1)
        self.seconds_of_a_file = seconds_of_a_file

    def _files(self, files: Sequence[SplitFile]) -> Generator[Batch, None, None]:
        for rows in super()._files(files):
            time.sleep(self.seconds_of_a_file)
            yield rows


def test_the_wait_for_a_slow_reader_is_counted(splits: Splits) -> None:
    shard = shards(splits.files("train"), "2026-03-08", 0, 1, seed=1)[0]
    feed, slept = SlowFeed(seconds_of_a_file=0.5), 0.5 * len(ROWS)
    start = time.perf_counter()
    assert sum(map(len, feed.epoch(shard, 32))) == sum(ROWS)
    # Between two files the loop above does next to nothing, and so waits almost all of the time.
    assert 0.8 * slept < feed.wait_seconds < time.perf_counter() - start


def test_a_fast_reader_is_hardly_waited_for_while_a_model_trains(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings()
    # Several steps a file, so that a busy machine has time to read the next one.
    publish_splits(settings, {"train": [64, 64, 64, 64]})
    files = Splits.published(settings).files("train")
    shard = shards(files, "2026-03-08", 0, 1, seed=1)[0]
    feed = Feed(user_fields=1, context_fields=1)
    waits, trained = [], 0.0
    for _ in feed.epoch(shard, 16):
        waits.append(feed.wait_seconds)
        time.sleep(0.15)  # the step
        trained += 0.15
    assert trained > 2
    # The first file is waited for in any case.
    assert feed.wait_seconds - waits[0] < 0.1 * trained
