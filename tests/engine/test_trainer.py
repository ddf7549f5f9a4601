"""Training of one model in one process: it learns, repeats to the bit, and stops at NaN."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mfn.engine.stats import TrainingStats, total
from mfn.engine.trainer import Schedule, Trainer, TrainingFailed
from mfn.engine.workers import SingleWorker
from mfn.models.ranker import Ranker
from mfn.models.settings import NAMED_MODELS, MfnSettings
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.conftest import RUN_DATE
from tests.engine.test_feed import SlowFeed
from tests.synthetic import publish_splits

SCHEDULE = Schedule(learning_rate=0.02, batch_requests=16, seed=3, date="2026-03-08")


def published(folder: Path, train: list[int], test: int) -> Splits:
    settings = Settings(root=str(folder), date=RUN_DATE)
    publish_splits(settings, {"train": train, "test": [test]})
    return Splits.published(settings)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return published(tmp_path_factory.mktemp("few"), [150, 90], 80)


@pytest.fixture(scope="module")
def more_splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return published(tmp_path_factory.mktemp("more"), [600, 400], 200)


def made(splits: Splits, name: str) -> Ranker:
    return Ranker(NAMED_MODELS[name], splits.features, splits.item_indices(), 8, 0.2, seed=1)


@pytest.mark.parametrize("name", sorted(NAMED_MODELS))
def test_training_teaches_what_the_rows_hold(more_splits: Splits, name: str) -> None:
    """In one pass; the models end between .396 and .429."""
    schedule = Schedule(learning_rate=0.03, batch_requests=32, seed=3, date="2026-03-08")
    trainer = Trainer(made(more_splits, name), schedule, SingleWorker())
    before = trainer.log_loss(more_splits.files("test"))
    trainer.epoch(more_splits.files("train"), 0, name)
    after = trainer.log_loss(more_splits.files("test"))
    assert after < before - 0.1
    assert after < 0.5  # the labels' entropy without any feature is .69


def test_the_account_counts_every_row_and_candidate(splits: Splits) -> None:
    trainer = Trainer(made(splits, "base"), SCHEDULE, SingleWorker())
    account = trainer.epoch(splits.files("train"), 0, "base")
    assert account.requests == 240
    assert account.steps == 15
    assert account.candidates == splits.manifest["splits"]["train"]["candidates"]
    assert account.communication_share == 0
    assert 0 < account.wait_share < 1


def test_the_account_shows_the_wait_for_a_slow_reader(splits: Splits) -> None:
    trainer = Trainer(made(splits, "base"), SCHEDULE, SingleWorker())
    trainer.feed = SlowFeed(seconds_of_a_file=1.0)
    for epoch in range(2):
        account = trainer.epoch(splits.files("train"), epoch, "base")
        # Of two files the second is read while the first is trained on.
        assert 1.0 < account.wait_share * account.seconds < account.seconds


def test_the_same_seed_gives_the_same_parameters_to_the_bit(splits: Splits) -> None:
    def trained() -> dict[str, torch.Tensor]:
        model = made(splits, "mfn")
        Trainer(model, SCHEDULE, SingleWorker()).epoch(splits.files("train"), 0, "mfn")
        return model.state_dict()

    one, other = trained(), trained()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_is_no_number_stops_the_training_at_its_step(splits: Splits) -> None:
    trainer = Trainer(made(splits, "base"), SCHEDULE, SingleWorker())
    trainer.epoch(splits.files("train"), 0, "base")
    with torch.no_grad():
        trainer.model.head.candidate.bias[0] = math.nan
    with pytest.raises(
        TrainingFailed, match=r"base epoch 2: the loss is nan at step 0, on worker 0"
    ):
        trainer.epoch(splits.files("train"), 1, "base")


def test_frozen_parts_stay_as_they_were(splits: Splits) -> None:
    model = made(splits, "mfn")
    frozen = {name: b.clone() for name, b in model.named_buffers()}
    Trainer(model, SCHEDULE, SingleWorker()).epoch(splits.files("train"), 0, "mfn")
    assert all(torch.equal(frozen[name], b) for name, b in model.named_buffers())


def test_centers_are_trained_at_their_rate_and_measured_as_they_end(splits: Splits) -> None:
    measures = {}
    for rate in (0.0, 1.0, 3.0):
        settings = MfnSettings(centers_rate=rate)
        model = Ranker(settings, splits.features, splits.item_indices(), 8, 0.2, seed=1)
        random = torch.Generator().manual_seed(4)
        assert model.encoder.frozen is not None
        model.encoder.frozen.weight_VD.normal_(generator=random)
        trainer = Trainer(model, SCHEDULE, SingleWorker())
        assert trainer.measures(splits.files("train"))["fine/centers_moved"] == 0
        trainer.epoch(splits.files("train"), 0, "mfn")
        measures[rate] = trainer.measures(splits.files("train"))
    moved = {rate: found["fine/centers_moved"] for rate, found in measures.items()}
    assert moved[0.0] == 0 < moved[1.0] < moved[3.0]
    names = {"centers_norm", "centers_largest_share", "centers_moved"}
    assert measures[3.0].keys() == {f"{at}/{one}" for at in ("category", "fine") for one in names}


def test_a_model_without_centers_measures_nothing(splits: Splits) -> None:
    trainer = Trainer(made(splits, "base"), SCHEDULE, SingleWorker())
    assert trainer.measures(splits.files("train")) == {}


def test_epochs_add_up_in_one_account() -> None:
    one = TrainingStats(10, 100, 1000, 0.6, 2.0, 500.0, 0.5, 0.0)
    two = TrainingStats(10, 100, 1000, 0.4, 6.0, 166.7, 0.1, 0.2)
    both = total([one, two])
    assert (both.steps, both.candidates, both.loss, both.seconds) == (20, 2000, 0.4, 8.0)
    assert both.candidates_per_second == 250
    assert both.wait_share == pytest.approx(0.2)
    assert both.communication_share == pytest.approx(0.15)
