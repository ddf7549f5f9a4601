"""A table spread over three workers does what a whole one on each of them does.

Two of them try it in `test_workers`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod
import pytest
import torch

from mfn.engine.horovod_workers import HorovodWorkers
from mfn.engine.workers import SingleWorker
from mfn.models.embedding import EmbeddingTable, ShardedTable
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.engine import sharded
from tests.synthetic import publish_splits

REPOSITORY = Path(__file__).parent.parent.parent
STALL_SECONDS = 60.0


def together(splits_folder: str, folder: str) -> dict[str, Any] | None:
    """In each worker; worker 0 gives what was found."""
    torch.set_num_threads(1)
    workers = HorovodWorkers(STALL_SECONDS)
    found = sharded.together(workers, Splits.at(splits_folder), folder)
    return found if workers.rank == 0 else None


@pytest.mark.process
def test_a_sharded_table_ends_as_a_replicated_one(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    publish_splits(settings, {"train": [100, 40, 30], "test": [60, 20]})
    splits = Splits.published(settings)
    of_one = sharded.alone(splits, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    folders = (splits.folder, str(tmp_path))
    found = horovod.run(together, folders, num_proc=3, use_gloo=True)[0]
    sharded.check(found, of_one, splits, str(tmp_path), 3)


class OneOfSeveral(SingleWorker):
    """A worker that says that it is one of several; it only draws."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_each_row_is_drawn_alike_whoever_holds_it(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("mfn.models.embedding.ROWS_DRAWN_AT_ONCE", 16)
    sizes = {"item_id": 37, "category": 5, "entity": 11}
    whole = EmbeddingTable(sizes, 4, 0.2, torch.Generator().manual_seed(1))
    for rank in range(workers):
        part = ShardedTable(
            sizes, 4, 0.2, torch.Generator().manual_seed(1), OneOfSeveral(rank, workers)
        )
        assert torch.equal(part.weight, whole.weight[rank::workers])
        for name, size in sizes.items():
            rows, indices = part.field(name)
            assert torch.equal(rows, whole.field(name)[0][indices])
            assert len(rows) == len(range(size)[indices])
