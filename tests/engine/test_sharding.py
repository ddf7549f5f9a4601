"""A table spread over workers does what a whole one on each of them does; two and three try it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod
import pytest
import torch
from torch import Tensor

from mfn.engine.checkpoint import Checkpoints
from mfn.engine.horovod_workers import HorovodWorkers
from mfn.engine.trainer import Schedule, Trainer, parameter_count
from mfn.engine.workers import SingleWorker, Workers
from mfn.models.embedding import EmbeddingTable, ShardedTable
from mfn.models.ranker import Ranker
from mfn.models.settings import NAMED_MODELS
from mfn.settings import CheckpointSettings, Settings
from mfn.splits.published import Splits
from tests.synthetic import publish_splits

REPOSITORY = Path(__file__).parent.parent.parent
SCHEDULE = Schedule(learning_rate=0.02, batch_requests=16, seed=3, date="2026-03-08")
AT_EPOCHS_ENDS = CheckpointSettings(every_steps=10**6, every_minutes=1000)
STALL_SECONDS = 60.0


class Stopped(Exception):
    """What ends a training, of all workers at the same step."""


def model(splits: Splits, exchange: Workers | None = None, seed: int = 1) -> Ranker:
    """In float64: Adam makes a step as large of a gradient that is nothing but rounding."""
    settings, items = NAMED_MODELS["mfn"], splits.item_indices()
    return Ranker(settings, splits.features, items, 8, 0.2, seed, exchange).double()


def trained(workers: Workers, splits: Splits, sharded: bool) -> tuple[dict[str, Tensor], Any]:
    """The whole state after two epochs, and what it says of itself."""
    made = model(splits, workers if sharded else None)
    trainer = Trainer(made, SCHEDULE, workers)
    account = trainer.train(splits.files("train"), 2, "mfn")
    loss = trainer.log_loss(splits.files("test"))
    told = (account.steps, account.candidates, account.loss, loss, parameter_count(made))
    return made.full_state_dict(), told


def stopped(workers: Workers, splits: Splits, sharded: bool, folder: str) -> dict[str, Tensor]:
    """The whole state where the second epoch begins: its checkpoint is written, or was read."""
    come_on = workers.heartbeat

    def heartbeat(at: str) -> None:
        come_on(at)
        if at == "mfn epoch 2, step 0":
            raise Stopped

    workers.heartbeat = heartbeat  # type: ignore[method-assign]
    made = model(splits, workers if sharded else None)
    of = Checkpoints(folder, "these", workers.size, AT_EPOCHS_ENDS)
    try:
        Trainer(made, SCHEDULE, workers).train(splits.files("train"), 2, "mfn", of)
    except Stopped:
        return made.full_state_dict()
    finally:
        workers.heartbeat = come_on  # type: ignore[method-assign]
    raise AssertionError("it should have been stopped")


def together(folder: str, replicated: str, sharded: str) -> dict[str, Any] | None:
    """In each worker; worker 0 gives what was found."""
    torch.set_num_threads(1)
    workers, splits = HorovodWorkers(STALL_SECONDS), Splits.at(folder)
    found = {
        "start": model(splits, workers).full_state_dict(),
        "held": len(model(splits, workers).embedding.weight),
        "replicated": trained(workers, splits, sharded=False),
        "sharded": trained(workers, splits, sharded=True),
        "from_replicated": stopped(workers, splits, True, replicated),
        "to_sharded": stopped(workers, splits, True, sharded),
    }
    return found if workers.rank == 0 else None


@pytest.fixture
def splits(make_settings: Callable[..., Settings]) -> Splits:
    settings = make_settings()
    publish_splits(settings, {"train": [100, 40, 30], "test": [60, 20]})
    return Splits.published(settings)


@pytest.mark.parametrize("number", [2, 3])
def test_a_sharded_table_ends_as_a_replicated_one(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    of_one = stopped(SingleWorker(), splits, False, f"{tmp_path}/replicated")
    folders = (splits.folder, f"{tmp_path}/replicated", f"{tmp_path}/sharded")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    found = horovod.run(together, folders, num_proc=number, use_gloo=True)[0]

    assert_equal(found["start"], model(splits).state_dict())
    rows = sum(splits.features.sizes.values())
    assert found["held"] == -(-rows // number)
    (one, told_one), (other, told_other) = found["replicated"], found["sharded"]
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], msg=name, atol=1e-7, rtol=1e-7)
    assert told_other == pytest.approx(told_one, rel=1e-7)
    assert not torch.equal(one["embedding.weight"], found["start"]["embedding.weight"])

    # One worker's checkpoint is gone on from by several, and the other way round.
    assert_equal(found["from_replicated"], of_one)
    at_epochs_end = found["to_sharded"]
    assert_equal(stopped(SingleWorker(), splits, False, f"{tmp_path}/sharded"), at_epochs_end)
    assert len(list(Path(f"{tmp_path}/sharded/0001-ended").glob("part-*"))) == number


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


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
