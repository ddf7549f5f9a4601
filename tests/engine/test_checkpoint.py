"""A training that was killed goes on, and ends with the parameters that it would have had."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfn.engine.checkpoint import ABOUT, Checkpoints, Part, Position
from mfn.engine.stats import EpochStats, TrainingStats
from mfn.engine.trainer import Schedule, Trainer, TrainingFailed
from mfn.engine.workers import SingleWorker
from mfn.models.ranker import Ranker
from mfn.models.settings import NAMED_MODELS
from mfn.settings import CheckpointSettings, Settings
from mfn.splits.published import Splits
from tests.conftest import RUN_DATE
from tests.synthetic import publish_splits

SCHEDULE = Schedule(learning_rate=0.02, batch_requests=16, seed=3, date="2026-03-08")
PART = "part-00000-of-00001.safetensors"
EPOCHS, STEPS = 2, 10
EVERY_3_STEPS = CheckpointSettings(every_steps=3, every_minutes=1000, keep=2)


class Killed(BaseException):
    """What ends a training here as a signal would."""


class KilledAt(SingleWorker):
    """A worker that ends where it was told to, at the beginning of a step."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def heartbeat(self, at: str) -> None:
        if at == self.moment:
            raise Killed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    settings = Settings(root=str(tmp_path_factory.mktemp("splits")), date=RUN_DATE)
    publish_splits(settings, {"train": [95, 60]})
    return Splits.published(settings)


def made(splits: Splits, name: str) -> Ranker:
    return Ranker(NAMED_MODELS[name], splits.features, splits.item_indices(), 8, 0.2, seed=1)


def checkpoints(
    folder: Path,
    fingerprint: str = "these",
    workers: int = 1,
    often: CheckpointSettings = EVERY_3_STEPS,
) -> Checkpoints:
    return Checkpoints(str(folder), fingerprint, workers, often)


def trained(
    splits: Splits, of: Checkpoints | None, worker: SingleWorker | None = None, name: str = "mfn"
) -> tuple[dict[str, torch.Tensor], TrainingStats]:
    model = made(splits, name)
    account = Trainer(model, SCHEDULE, worker or SingleWorker()).train(
        splits.files("train"), EPOCHS, name, of
    )
    return model.state_dict(), account


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_seconds(account: TrainingStats) -> tuple[int, int, int, float]:
    return account.steps, account.requests, account.candidates, account.loss


@pytest.fixture(scope="module")
def undisturbed(splits: Splits) -> dict[str, torch.Tensor]:
    """What `mfn` ends with when nothing comes between."""
    return trained(splits, None)[0]


@pytest.fixture(scope="module")
def _killed(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "checkpoints"
    with pytest.raises(Killed):
        trained(splits, checkpoints(folder), KilledAt(f"mfn epoch 2, step {STEPS - 1}"))
    return folder


@pytest.fixture
def killed(_killed: Path, folder: Path) -> Path:
    """A folder of this test's own, as `mfn` left it when it was killed at its last step."""
    shutil.copytree(_killed, folder)
    return folder


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("mfn", [(1, 0), (1, 2), (1, 3), (1, STEPS - 1), (2, 0), (2, 5), (2, STEPS - 1)]),
        # They differ in what parameters they have.
        ("din", [(1, 4), (2, 5)]),
        ("transformer_rec", [(1, 4), (2, 5)]),
    ],
)
def test_a_training_killed_at_a_step_ends_with_the_same_parameters_to_the_bit(
    splits: Splits, folder: Path, name: str, moments: list[tuple[int, int]]
) -> None:
    whole, account = trained(splits, None, name=name)
    for epoch, step in moments:
        of = checkpoints(folder / f"{epoch}-{step}")
        with pytest.raises(Killed):
            trained(splits, of, KilledAt(f"{name} epoch {epoch}, step {step}"), name)
        again, of_again = trained(splits, of, name=name)
        assert same(again, whole), (epoch, step)
        assert without_seconds(of_again) == pytest.approx(without_seconds(account))


def test_a_training_goes_on_from_its_checkpoint_and_does_not_begin_anew(
    splits: Splits, killed: Path
) -> None:
    """The control of the one before: what is done already is not done again."""
    seen: list[str] = []

    class Listening(SingleWorker):
        def heartbeat(self, at: str) -> None:
            seen.append(at)

    trained(splits, checkpoints(killed), Listening())
    assert seen == [f"mfn epoch 2, step {step}" for step in range(9, STEPS)]


def test_the_newest_are_kept_and_the_end_of_an_epoch(killed: Path) -> None:
    names = sorted(path.name for path in killed.iterdir())
    assert names == ["0001-ended", "0002-000000006", "0002-000000009"]
    checkpoints(killed).remove()
    assert not killed.exists()


def test_minutes_make_a_checkpoint_due_as_steps_do(folder: Path) -> None:
    rarely = CheckpointSettings(every_steps=10**6, every_minutes=1e-9)
    assert checkpoints(folder, often=rarely).due(1)
    assert not checkpoints(folder, often=rarely.model_copy(update={"every_minutes": 1000})).due(1)
    assert checkpoints(folder).due(6)
    assert not checkpoints(folder).due(7)


class Clock:
    """Minutes that pass where the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.minutes = 0.0
        clock = SimpleNamespace(monotonic=lambda: 60 * self.minutes)
        monkeypatch.setattr("mfn.engine.checkpoint.time", clock)


def test_after_a_checkpoint_the_minutes_begin_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    of = checkpoints(folder, often=CheckpointSettings(every_steps=10**6, every_minutes=10))
    due = []
    for minute in range(1, 36):
        clock.minutes = minute
        if of.due(minute):
            due.append(minute)
            position = Position((EpochStats(steps=minute),), epoch_ended=False)
            of.complete(position, [of.write(Part({}, {}), position)])
    assert due == [10, 20, 30]


def test_a_training_writes_a_checkpoint_every_so_many_minutes(
    splits: Splits, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)

    class AStepAMinute(SingleWorker):
        def heartbeat(self, at: str) -> None:
            clock.minutes += 1
            if at == "mfn epoch 2, step 0":
                raise Killed

    of = checkpoints(folder, often=CheckpointSettings(every_steps=10**6, every_minutes=4, keep=100))
    with pytest.raises(Killed):
        trained(splits, of, AStepAMinute())
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0001-000000004", "0001-000000008", "0001-ended"]


def steps_of_newest(of: Checkpoints) -> int:
    saved = of.newest()
    assert saved is not None
    return saved[0].epochs[-1].steps


def tear(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-8] + b"otherend")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda newest: tear(newest / PART), "damaged: its tensors have another digest"),
        (lambda newest: (newest / PART).unlink(), "incomplete: a file is missing"),
        (lambda newest: (newest / ABOUT).unlink(), "incomplete: a file is missing"),
        (lambda newest: (newest / ABOUT).write_text("{"), "cannot be read"),
        (lambda newest: (newest / ABOUT).write_text("{}"), "cannot be read"),
    ],
)
def test_a_torn_checkpoint_is_named_and_the_one_before_it_taken(
    splits: Splits,
    undisturbed: dict[str, torch.Tensor],
    killed: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    of = checkpoints(killed)
    assert steps_of_newest(of) == 9  # the control: undamaged, it is the newest
    damage(killed / "0002-000000009")
    with caplog.at_level(logging.WARNING):
        assert steps_of_newest(of) == 6
    assert f"{killed}/0002-000000009: skipped checkpoint: " in caplog.text
    assert reason in caplog.text
    assert same(trained(splits, of)[0], undisturbed)


def test_checkpoints_of_something_else_are_passed_over(
    killed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert checkpoints(killed, fingerprint="those").newest() is None
    assert "made with other rows, settings or code" in caplog.text
    assert checkpoints(killed).newest() is not None


def test_another_number_of_workers_goes_on_from_the_end_of_an_epoch(
    killed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        saved = checkpoints(killed, workers=2).newest()
    assert "written within an epoch by 1 workers, and there are now 2" in caplog.text
    assert saved is not None
    assert saved[0].epoch_ended
    assert len(saved[0].epochs) == 1


def test_a_batch_whose_loss_is_no_number_is_kept_and_so_is_the_last_checkpoint(
    splits: Splits, undisturbed: dict[str, torch.Tensor], folder: Path
) -> None:
    model = made(splits, "mfn")

    class Breaking(SingleWorker):
        def heartbeat(self, at: str) -> None:
            if at == "mfn epoch 1, step 5":
                with torch.no_grad():
                    model.head.candidate.bias[0] = math.nan

    of = checkpoints(folder)
    with pytest.raises(TrainingFailed, match=r"epoch 1: the loss is nan at step 5.*is kept in"):
        Trainer(model, SCHEDULE, Breaking()).train(splits.files("train"), EPOCHS, "mfn", of)
    kept = safetensors.torch.load_file(folder / "batch-of-worker-0.safetensors")
    assert kept["candidates_BM"].shape[0] == SCHEDULE.batch_requests
    assert steps_of_newest(of) == 3
    assert same(trained(splits, of)[0], undisturbed)  # mended, it goes on from there


def test_a_batch_without_the_steps_that_are_padding_in_all_rows_is_kept_too(folder: Path) -> None:
    history_BN = torch.arange(12).reshape(3, 4)[:, :2]  # as Batch.trimmed leaves it
    path = checkpoints(folder).keep_batch(0, {"history_BN": history_BN})
    kept = safetensors.torch.load_file(path.removeprefix("file://"))
    assert torch.equal(kept["history_BN"], history_BN)


def test_parameters_that_are_no_numbers_are_not_written(splits: Splits, folder: Path) -> None:
    model = made(splits, "mfn")

    class Breaking(SingleWorker):
        """What breaks is a missing item's, and none is missing here."""

        def heartbeat(self, at: str) -> None:
            if at == "mfn epoch 1, step 5":
                with torch.no_grad():
                    model.embedding.weight[1] = math.inf

    of = checkpoints(folder)
    with pytest.raises(
        TrainingFailed,
        match=r"after step 6 of epoch 1: NaN or infinite values in parameter\.embedding\.w",
    ):
        Trainer(model, SCHEDULE, Breaking()).train(splits.files("train"), EPOCHS, "mfn", of)
    assert steps_of_newest(of) == 3


@given(rows=st.integers(0, 40), written=st.integers(1, 5), read=st.integers(1, 5))
def test_rows_come_back_whatever_the_number_of_parts_was(
    tmp_path_factory: pytest.TempPathFactory, rows: int, written: int, read: int
) -> None:
    of = checkpoints(tmp_path_factory.mktemp("parts"))
    position = Position((EpochStats(),), epoch_ended=True)
    table, count = torch.randn(rows, 2), {"step.embedding": torch.tensor(7)}
    digests = [
        of.write(Part(count, {"embedding": table[place::written]}, place, written), position)
        for place in range(written)
    ]
    of.complete(position, digests)
    for place in range(read):
        found = of.newest(place, read)
        assert found is not None
        assert found[0] == position
        assert torch.equal(found[1].rows["embedding"], table[place::read])
        assert found[1].common == count


def train(folder_of_splits: str, folder: Path) -> None:
    """What each process does that is killed."""
    torch.set_num_threads(1)
    trained(Splits.at(folder_of_splits), checkpoints(folder))


@pytest.mark.process
def test_a_process_killed_at_any_moment_ends_as_an_undisturbed_one(
    splits: Splits, undisturbed: dict[str, torch.Tensor], folder: Path
) -> None:
    """By SIGKILL, as soon as some checkpoint is being written."""
    of, kills = checkpoints(folder), 0
    copies = multiprocessing.get_context("forkserver")  # so that torch is loaded once for all
    copies.set_forkserver_preload([__name__])
    for wanted in ("0001-000000003", "0001-000000009", "0002-000000006"):
        running = copies.Process(target=train, args=(splits.folder, folder))
        running.start()
        while not (folder / wanted).exists() and running.is_alive():
            time.sleep(0.002)
        running.kill()
        running.join()
        kills += running.exitcode == -signal.SIGKILL
    assert kills >= 1
    assert same(trained(splits, of)[0], undisturbed)
    about = json.loads((folder / "0001-ended" / ABOUT).read_text())
    assert about["epoch_ended"]
