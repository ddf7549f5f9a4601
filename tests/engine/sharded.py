"""What workers do that share a table, whole or spread over them, and what must come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mfn.engine.checkpoint import Checkpoints
from mfn.engine.trainer import Schedule, Trainer, parameter_count
from mfn.engine.workers import SingleWorker, Workers
from mfn.models.ranker import Ranker
from mfn.models.settings import NAMED_MODELS
from mfn.settings import CheckpointSettings
from mfn.splits.published import Splits

SCHEDULE = Schedule(learning_rate=0.02, batch_requests=16, seed=3, date="2026-03-08")
AT_EPOCHS_ENDS = CheckpointSettings(every_steps=10**6, every_minutes=1000)


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


def together(workers: Workers, splits: Splits, folder: str) -> dict[str, Any]:
    """In each worker; in the folder there is what one worker left."""
    replicated, sharded = f"{folder}/replicated", f"{folder}/sharded"
    return {
        "start": model(splits, workers).full_state_dict(),
        "held": len(model(splits, workers).embedding.weight),
        "replicated": trained(workers, splits, sharded=False),
        "sharded": trained(workers, splits, sharded=True),
        "from_replicated": stopped(workers, splits, True, replicated),
        "to_sharded": stopped(workers, splits, True, sharded),
    }


def alone(splits: Splits, folder: str) -> dict[str, Tensor]:
    """What one worker leaves for several in the folder, before they begin."""
    return stopped(SingleWorker(), splits, False, f"{folder}/replicated")


def check(
    found: dict[str, Any], of_one: dict[str, Tensor], splits: Splits, folder: str, number: int
) -> None:
    """What so many workers found is what one of them did alone."""
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
    assert_equal(stopped(SingleWorker(), splits, False, f"{folder}/sharded"), at_epochs_end)
    assert len(list(Path(f"{folder}/sharded/0001-ended").glob("part-*"))) == number


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
