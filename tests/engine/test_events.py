"""Curves for TensorBoard, read back from their files: steps are counted over all epochs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mfn.engine.checkpoint import Checkpoints
from mfn.engine.events import Events
from mfn.engine.trainer import Schedule, Trainer
from mfn.engine.workers import SingleWorker
from mfn.models.ranker import Ranker
from mfn.models.settings import NAMED_MODELS
from mfn.settings import CheckpointSettings, Settings
from mfn.splits.published import Splits
from tests.synthetic import publish_splits

SCHEDULE = Schedule(learning_rate=0.02, batch_requests=8, seed=3, date="2026-03-08")
STEPS = 34
"""Of an epoch of 270 requests."""


class Killed(BaseException):
    """What ends a training here as a signal would."""


class Worker(SingleWorker):
    """Keeps the loss and the candidates of each step, and ends at the beginning of one."""

    def __init__(self, last: str = "") -> None:
        self.last = last
        self.summed: list[tuple[float, float]] = []

    def heartbeat(self, at: str) -> None:
        if at == self.last:
            raise Killed

    def average_gradients(
        self, parameters: Any, weight: float, told: Sequence[float] = (), summed: Any = ()
    ) -> list[float]:
        self.summed.append((told[0], weight))
        return super().average_gradients(parameters, weight, told, summed)


def train(splits: Splits, folder: Path, worker: Worker, name: str = "base") -> None:
    """Two epochs, which write curves, and a checkpoint every 5 steps."""
    model = Ranker(NAMED_MODELS[name], splits.features, splits.item_indices(), 8, 0.2, seed=1)
    if model.encoder.frozen is not None:  # some E: of zeros, the centers have no gradient
        model.encoder.frozen.weight_VD.normal_(generator=torch.Generator().manual_seed(4))
    often = CheckpointSettings(every_steps=5, every_minutes=1000)
    of = Checkpoints(f"{folder}/checkpoints", "these", 1, often)
    with contextlib.closing(Events(f"{folder}/events")) as events:
        Trainer(model, SCHEDULE, worker, events).train(splits.files("train"), 2, "base", of)


def loss_of_steps(folder: Path) -> dict[int, float]:
    curve = EventAccumulator(f"{folder}/events").Reload().Scalars("loss")
    return {point.step: point.value for point in curve}


@pytest.fixture
def splits(make_settings: Any) -> Splits:
    settings: Settings = make_settings()
    publish_splits(settings, {"train": [140, 130]})
    return Splits.published(settings)


def test_the_number_of_a_step_counts_those_of_earlier_epochs(
    splits: Splits, tmp_path: Path
) -> None:
    worker = Worker()
    train(splits, tmp_path, worker)
    found = loss_of_steps(tmp_path)
    assert list(found) == [10, 20, 30, STEPS + 10, STEPS + 20, STEPS + 30]
    for step, loss in found.items():
        losses, candidates = zip(*worker.summed[step - 10 : step], strict=True)
        assert loss == pytest.approx(sum(losses) / sum(candidates), rel=1e-6), step


def test_a_training_that_was_killed_resumes_its_curve_where_it_was(
    splits: Splits, tmp_path: Path
) -> None:
    train(splits, tmp_path / "whole", Worker())
    whole = loss_of_steps(tmp_path / "whole")
    with pytest.raises(Killed):
        train(splits, tmp_path, Worker("base epoch 2, step 12"))
    assert list(loss_of_steps(tmp_path)) == [10, 20, 30, STEPS + 10]
    train(splits, tmp_path, Worker())  # from the checkpoint after step 10 of the second epoch
    # Of the first point after a checkpoint not all steps are known.
    del whole[STEPS + 20]
    assert loss_of_steps(tmp_path) == pytest.approx(whole, rel=1e-6)


def test_the_curves_show_how_the_centers_move(splits: Splits, tmp_path: Path) -> None:
    train(splits, tmp_path, Worker(), "mfn")
    written = EventAccumulator(f"{tmp_path}/events").Reload()
    moved = [point.value for point in written.Scalars("fine/centers_moved")]
    assert len(moved) == 6
    assert 0 < moved[0] < moved[-1]
    assert {"category/centers_norm", "fine/centers_largest_share"} <= set(written.Tags()["scalars"])
