"""Which rows each worker reads: every file once, the same plan on every worker, even shares."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mfn.engine.shards import Shard, shards, steps
from mfn.splits.published import SplitFile

ROWS = st.lists(st.integers(1, 50), min_size=1, max_size=20)


def split(rows: list[int]) -> list[SplitFile]:
    return [SplitFile(f"file:///part-{n:05d}.parquet", count) for n, count in enumerate(rows)]


@given(rows=ROWS, workers=st.integers(1, 5), epoch=st.integers(0, 3))
def test_every_file_goes_to_exactly_one_worker(rows: list[int], workers: int, epoch: int) -> None:
    dealt = shards(split(rows), "2026-03-08", epoch, workers, seed=1)
    assert len(dealt) == workers
    assert sorted(f.url for s in dealt for f in s.files) == [f.url for f in split(rows)]


@given(rows=ROWS, workers=st.integers(1, 5))
def test_shares_differ_by_at_most_the_largest_file(rows: list[int], workers: int) -> None:
    counts = [shard.rows for shard in shards(split(rows), "2026-03-08", 0, workers, seed=1)]
    assert max(counts) - min(counts) <= max(rows)


@given(rows=ROWS, workers=st.integers(1, 5), batch=st.integers(1, 30))
def test_steps_reach_the_last_row_of_every_worker(
    rows: list[int], workers: int, batch: int
) -> None:
    dealt = shards(split(rows), "2026-03-08", 0, workers, seed=1)
    agreed = steps(dealt, batch)
    assert all(agreed * batch >= shard.rows for shard in dealt)
    assert any((agreed - 1) * batch < shard.rows for shard in dealt)


def test_the_plan_is_a_pure_function_of_date_epoch_and_worker() -> None:
    files = split([5] * 12)

    def plan(date: str = "2026-03-08", epoch: int = 0) -> list[Shard]:
        return shards(files, date, epoch, 2, seed=1)

    assert plan() == plan()
    assert plan() != plan(epoch=1)
    assert plan() != plan(date="2026-03-09")
    assert plan()[0].seed != plan()[1].seed


@given(
    seed=st.integers(0, 2**31),
    workers=st.integers(2, 4),
    epochs=st.lists(st.integers(0, 50), min_size=2, max_size=2, unique=True),
)
def test_each_epoch_deals_the_files_anew_to_the_workers(
    seed: int, workers: int, epochs: list[int]
) -> None:
    files = split([5] * 80)

    def dealt(epoch: int) -> list[set[str]]:
        of_epoch = shards(files, "2026-03-08", epoch, workers, seed)
        return [{file.url for file in shard.files} for shard in of_epoch]

    one, other = epochs
    assert dealt(one) == dealt(one)
    # By chance no worker has the same 20 to 40 of 80 files.
    assert all(mine != then for mine, then in zip(dealt(one), dealt(other), strict=True))


@given(
    seed=st.integers(0, 2**31),
    epochs=st.lists(st.integers(0, 50), min_size=2, max_size=2, unique=True),
)
def test_each_epoch_reads_files_and_their_rows_in_another_order(
    seed: int, epochs: list[int]
) -> None:
    files = split([5] * 80)

    def read(epoch: int) -> tuple[list[str], list[int]]:
        (mine,) = shards(files, "2026-03-08", epoch, 1, seed)
        return [file.url for file in mine.files], [mine.seed_of(place) for place in range(80)]

    (order, seeds), (other_order, other_seeds) = map(read, epochs)
    assert read(epochs[0]) == (order, seeds)
    assert order != other_order
    assert sorted(order) == sorted(other_order)
    assert not {*seeds} & {*other_seeds}
