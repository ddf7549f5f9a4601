"""A training that was killed goes on, and ends with the parameters that it would have had."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
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
from tests.synthetic import publish_splits

REPOSITORY = Path(__file__).parent.parent.parent
SCHEDULE = Schedule(learning_rate=0.02, batch_requests=16, seed=3, date="2026-03-08")
PART = "part-00000-of-00001.safetensors"
EPOCHS, STEPS = 2, 15
EVERY_4_STEPS = CheckpointSettings(every_steps=4, every_minutes=1000, keep=2)


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


@pytest.fixture
def splits(make_settings: Callable[..., Settings]) -> Splits:
    settings = make_settings()
    publish_splits(settings, {"train": [150, 90], "test": [80]})
    return Splits.published(settings)


def made(splits: Splits, name: str) -> Ranker:
    return Ranker(NAMED_MODELS[name], splits.features, splits.item_indices(), 8, 0.2, seed=1)


def checkpoints(
    folder: Path,
    fingerprint: str = "these",
    workers: int = 1,
    often: CheckpointSettings = EVERY_4_STEPS,
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


@pytest.mark.parametrize("name", ["mfn", "din", "transformer_rec"])
def test_a_training_killed_at_a_step_ends_with_the_same_parameters_to_the_bit(
    splits: Splits, folder: Path, name: str
) -> None:
    whole, account = trained(splits, None, name=name)
    for epoch, step in [(1, 0), (1, 3), (1, 4), (1, 9), (2, 0), (2, 7), (2, STEPS - 1)]:
        of = checkpoints(folder / f"{epoch}-{step}")
        with pytest.raises(Killed):
            trained(splits, of, KilledAt(f"{name} epoch {epoch}, step {step}"), name)
        again, of_again = trained(splits, of, name=name)
        assert same(again, whole), (epoch, step)
        assert without_seconds(of_again) == pytest.approx(without_seconds(account))


def test_a_training_goes_on_from_its_checkpoint_and_does_not_begin_anew(
    splits: Splits, folder: Path
) -> None:
    """The control of the one before: what is done already is not done again."""
    of = checkpoints(folder)
    with pytest.raises(Killed):
        trained(splits, of, KilledAt("mfn epoch 2, step 9"))
    seen: list[str] = []

    class Listening(SingleWorker):
        def heartbeat(self, at: str) -> None:
            seen.append(at)

    trained(splits, of, Listening())
    assert seen == [f"mfn epoch 2, step {step}" for step in range(8, STEPS)]


def test_the_newest_are_kept_and_the_end_of_an_epoch(splits: Splits, folder: Path) -> None:
    of = checkpoints(folder)
    with pytest.raises(Killed):
        trained(splits, of, KilledAt("mfn epoch 2, step 14"))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0001-ended", "0002-000000008", "0002-000000012"]
    of.remove()
    assert not folder.exists()


def test_minutes_make_a_checkpoint_due_as_steps_do(folder: Path) -> None:
    rarely = CheckpointSettings(every_steps=10**6, every_minutes=1e-9)
    assert checkpoints(folder, often=rarely).due(1)
    assert not checkpoints(folder, often=rarely.model_copy(update={"every_minutes": 1000})).due(1)
    assert checkpoints(folder).due(8)
    assert not checkpoints(folder).due(9)


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
    assert names == ["0001-000000004", "0001-000000008", "0001-000000012", "0001-ended"]


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
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    of = checkpoints(folder)
    with pytest.raises(Killed):
        trained(splits, of, KilledAt("mfn epoch 2, step 14"))
    assert steps_of_newest(of) == 12  # the control: undamaged, it is the newest
    damage(folder / "0002-000000012")
    with caplog.at_level(logging.WARNING):
        assert steps_of_newest(of) == 8
    assert f"{folder}/0002-000000012: skipped checkpoint: " in caplog.text
    assert reason in caplog.text
    assert same(trained(splits, of)[0], trained(splits, None)[0])


def test_checkpoints_of_something_else_are_passed_over(
    splits: Splits, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        trained(splits, checkpoints(folder), KilledAt("mfn epoch 2, step 9"))
    with caplog.at_level(logging.WARNING):
        assert checkpoints(folder, fingerprint="those").newest() is None
    assert "made with other rows, settings or code" in caplog.text
    assert checkpoints(folder).newest() is not None


def test_another_number_of_workers_goes_on_from_the_end_of_an_epoch(
    splits: Splits, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        trained(splits, checkpoints(folder), KilledAt("mfn epoch 2, step 9"))
    with caplog.at_level(logging.WARNING):
        saved = checkpoints(folder, workers=2).newest()
    assert "written within an epoch by 1 workers, and there are now 2" in caplog.text
    assert saved is not None
    assert saved[0].epoch_ended
    assert len(saved[0].epochs) == 1


def test_a_batch_whose_loss_is_no_number_is_kept_and_so_is_the_last_checkpoint(
    splits: Splits, folder: Path
) -> None:
    model = made(splits, "mfn")

    class Breaking(SingleWorker):
        def heartbeat(self, at: str) -> None:
            if at == "mfn epoch 1, step 6":
                with torch.no_grad():
                    model.head.candidate.bias[0] = math.nan

    of = checkpoints(folder)
    with pytest.raises(TrainingFailed, match=r"epoch 1: the loss is nan at step 6.*is kept in"):
        Trainer(model, SCHEDULE, Breaking()).train(splits.files("train"), EPOCHS, "mfn", of)
    kept = safetensors.torch.load_file(folder / "batch-of-worker-0.safetensors")
    assert kept["candidates_BM"].shape[0] == SCHEDULE.batch_requests
    assert steps_of_newest(of) == 4
    assert same(trained(splits, of)[0], trained(splits, None)[0])  # mended, it goes on from there


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
            if at == "mfn epoch 1, step 6":
                with torch.no_grad():
                    model.embedding.weight[1] = math.inf

    of = checkpoints(folder)
    with pytest.raises(
        TrainingFailed,
        match=r"after step 8 of epoch 1: NaN or infinite values in parameter\.embedding\.w",
    ):
        Trainer(model, SCHEDULE, Breaking()).train(splits.files("train"), EPOCHS, "mfn", of)
    assert steps_of_newest(of) == 4


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


PROGRAM = """
import sys
from pathlib import Path
from mfn.splits.published import Splits
from tests.engine.test_checkpoint import checkpoints, trained
trained(Splits.at(sys.argv[1]), checkpoints(Path(sys.argv[2])))
"""


def test_a_process_killed_at_any_moment_ends_as_an_undisturbed_one(
    splits: Splits, folder: Path
) -> None:
    """By SIGKILL, as soon as some checkpoint is being written."""
    of, kills = checkpoints(folder), 0
    command = [sys.executable, "-c", PROGRAM, splits.folder, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for wanted in ("0001-000000004", "0001-000000012", "0002-000000008"):
        running = subprocess.Popen(command, cwd=REPOSITORY, env=environment)
        while not (folder / wanted).exists() and running.poll() is None:
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        kills += running.wait() == -signal.SIGKILL
    assert kills >= 1
    assert same(trained(splits, of)[0], trained(splits, None)[0])
    about = json.loads((folder / "0001-ended" / ABOUT).read_text())
    assert about["epoch_ended"]
