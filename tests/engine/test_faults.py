"""Of two real workers one is killed, frozen or fails: the job ends soon, and leaves nobody.

Each launch of workers takes some 20 s. So what needs a failure is asked of the same two, and both
are gone on from in one launch.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cloudpickle
import psutil
import pytest
import torch
from pyspark.sql import SparkSession

from mfn.engine.checkpoint import Checkpoints
from mfn.engine.horovod_workers import WorkersFailed, launch
from mfn.engine.trainer import Schedule, Trainer
from mfn.engine.workers import Workers
from mfn.models.ranker import Ranker
from mfn.models.settings import NAMED_MODELS
from mfn.settings import CheckpointSettings, Settings
from mfn.splits.published import Splits
from tests.conftest import RUN_DATE
from tests.synthetic import publish_splits

SCHEDULE = Schedule(learning_rate=0.02, batch_requests=16, seed=3, date="2026-03-08")
OFTEN = CheckpointSettings(every_steps=3, every_minutes=1000)
STALL_SECONDS = {"killed": 120.0, "frozen": 15.0}
"""Far more than Horovod needs to end the others of a killed worker, also on a busy machine."""
WORKER_THAT_FAILS = 1
EPOCHS, STEP = 2, 5
MOMENT = f"base epoch 2, step {STEP}"
HOW = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}


def work(workers: Workers, splits: Splits, folder: str, pause: float) -> float:
    """Train, saying who one is; the worker that is to fail stays that long at a step, awake."""
    torch.set_num_threads(1)
    come_on = workers.heartbeat

    def heartbeat(at: str) -> None:
        come_on(at)
        if at == MOMENT:
            Path(folder, f"pid-{workers.rank}").write_text(str(os.getpid()))
            end = time.monotonic() + pause
            while workers.rank == WORKER_THAT_FAILS and time.monotonic() < end:
                time.sleep(0.05)
                come_on(at)

    workers.heartbeat = heartbeat  # type: ignore[method-assign]
    try:
        model = Ranker(NAMED_MODELS["base"], splits.features, splits.item_indices(), 8, 0.2, seed=1)
        of = Checkpoints(f"{folder}/checkpoints", "these", workers.size, OFTEN)
        Trainer(model, SCHEDULE, workers).train(splits.files("train"), EPOCHS, "base", of)
    finally:
        workers.heartbeat = come_on  # type: ignore[method-assign]
    parameters = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    return float(parameters.double().square().sum())


def several(workers: Workers, splits: Splits, pauses: dict[str, float]) -> dict[str, float]:
    """The work in each of these folders."""
    return {folder: work(workers, splits, folder, pause) for folder, pause in pauses.items()}


@pytest.fixture(scope="module", autouse=True)
def _workers_know_this_module() -> Iterator[None]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def splits(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Splits:
    settings = Settings(root=str(tmp_path_factory.mktemp("faults")), date=RUN_DATE)
    publish_splits(settings, {"train": [100, 90]})
    return Splits.published(settings)


@dataclass(frozen=True)
class Failure:
    """How a job ended of which a worker was killed or frozen.

    Attributes:
        seconds: how long after that.
        left: the workers that are still there, half a minute later.
    """

    folder: Path
    message: str
    seconds: float
    left: list[int]


def fail(folder: Path, how: signal.Signals, at: list[float]) -> None:
    """Send the signal as soon as the worker that is to fail has said who it is."""
    pid, deadline = folder / f"pid-{WORKER_THAT_FAILS}", time.monotonic() + 300
    while not pid.exists() or not pid.read_text():
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    os.kill(int(pid.read_text()), how)
    at.append(time.monotonic())


def left_of(folder: Path) -> list[int]:
    """Horovod gives a process that does not end at its first signal some seconds more."""
    pids = [int(path.read_text()) for path in folder.glob("pid-*")]
    assert len(pids) == 2
    deadline = time.monotonic() + 30
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.fixture(scope="module")
def failures(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Failure]:
    """A job of each kind."""

    def failed(name: str, how: signal.Signals) -> Failure:
        folder, at = tmp_path_factory.mktemp(name), list[float]()
        failing = threading.Thread(target=fail, args=(folder, how, at))
        failing.start()
        with pytest.raises(WorkersFailed) as error:
            launch(
                partial(several, splits=splits, pauses={str(folder): 60}), 2, STALL_SECONDS[name]
            )
        ended_at = time.monotonic()
        failing.join()
        return Failure(folder, str(error.value), ended_at - at[0], left_of(folder))

    return {name: failed(name, how) for name, how in HOW.items()}


@pytest.mark.parametrize(
    ("name", "within_seconds", "told"),
    [
        # The worker that only waited has nothing to say.
        ("killed", 60.0, "see the output of the workers above"),
        (
            "frozen",
            60.0 + STALL_SECONDS["frozen"],
            rf"worker [01] has made no progress past {MOMENT} for 15 s",
        ),
    ],
)
def test_a_worker_that_fails_ends_the_job_and_leaves_nobody(
    failures: dict[str, Failure], name: str, within_seconds: float, told: str
) -> None:
    """A frozen one stands for all that hang: of one that sleeps see `test_watchdog`."""
    found = failures[name]
    begins = "one of 2 workers failed before its work was done, so all were stopped; "
    assert re.match(begins + told, found.message), found.message
    assert found.seconds < within_seconds
    assert found.left == []


def test_the_next_run_goes_on_and_ends_as_an_undisturbed_one(
    splits: Splits, failures: dict[str, Failure], tmp_path: Path
) -> None:
    """The undisturbed one is the control, too: with a pause at the same step it does not fail."""
    folders = [str(one.folder) for one in failures.values()]
    for folder in folders:
        saved = Checkpoints(f"{folder}/checkpoints", "these", 2, OFTEN).newest()
        assert saved is not None
        assert len(saved[0].epochs) == 2
    pauses = {**dict.fromkeys(folders, 0.0), str(tmp_path): 2.0}
    sums = launch(partial(several, splits=splits, pauses=pauses), 2, STALL_SECONDS["killed"])
    undisturbed = sums.pop(str(tmp_path))
    assert sums == dict.fromkeys(folders, undisturbed)


def fills_the_disk(workers: Workers, folder: str) -> None:
    """Fail, and end once the other worker has failed as well."""
    workers.sum([1.0])
    said, others = (Path(folder, f"{rank}") for rank in (workers.rank, 1 - workers.rank))

    @atexit.register
    def end() -> None:
        said.touch()
        deadline = time.monotonic() + 60
        while not others.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    print("what it said before", file=sys.stderr)
    Path("/dev/full").write_text("a checkpoint")


def test_why_workers_have_failed_stands_in_the_message(
    spark: SparkSession, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of a run its table has the message alone."""
    with pytest.raises(WorkersFailed) as failed:
        launch(partial(fills_the_disk, folder=str(tmp_path)), 2, STALL_SECONDS["killed"])
    message = str(failed.value)
    begins = "one of 2 workers failed before its work was done, so all were stopped; "
    assert message.startswith(begins)
    reasons, _, _ = message.removeprefix(begins).partition(". Horovod says: ")
    assert sorted(reasons.split("; ")) == [
        f"worker {rank} has failed: OSError: [Errno 28] No space left on device" for rank in (0, 1)
    ]
    assert "\n" not in message
    told = capfd.readouterr()
    assert "Exception in thread" not in told.out + told.err
