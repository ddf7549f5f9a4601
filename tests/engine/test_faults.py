"""Of two real workers one is killed, frozen or asleep: the job ends soon, and leaves nobody."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
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
from tests.synthetic import publish_splits

SCHEDULE = Schedule(learning_rate=0.02, batch_requests=16, seed=3, date="2026-03-08")
OFTEN = CheckpointSettings(every_steps=3, every_minutes=1000)
STALL_SECONDS = 15.0
WORKER_THAT_FAILS = 1
EPOCHS, STEP = 2, 5


def work(workers: Workers, splits: Splits, folder: str, asleep: bool, waits: bool) -> float:
    """Train, saying who one is; at a step of the second epoch wait for what the test does."""
    torch.set_num_threads(1)
    come_on = workers.heartbeat

    def heartbeat(at: str) -> None:
        come_on(at)
        if at == f"base epoch 2, step {STEP}" and waits:
            Path(folder, f"pid-{workers.rank}").write_text(str(os.getpid()))
            if workers.rank == WORKER_THAT_FAILS:
                time.sleep(10_000 if asleep else 3)

    workers.heartbeat = heartbeat  # type: ignore[method-assign]
    features, items = splits.features, splits.item_indices()
    model = Ranker(NAMED_MODELS["base"], features, items, 8, 0.2, seed=1)
    of = Checkpoints(f"{folder}/checkpoints", "these", workers.size, OFTEN)
    Trainer(model, SCHEDULE, workers).train(splits.files("train"), EPOCHS, "base", of)
    parameters = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    return float(parameters.double().square().sum())


@pytest.fixture(scope="module")
def splits(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Splits:
    from tests.conftest import RUN_DATE, SPARK

    settings = Settings(root=str(tmp_path_factory.mktemp("faults")), date=RUN_DATE, spark=SPARK)
    publish_splits(settings, {"train": [100, 90]})
    return Splits.published(settings)


@pytest.fixture(autouse=True)
def _workers_know_this_module() -> Iterator[None]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def run(splits: Splits, folder: Path, asleep: bool = False, waits: bool = True) -> float:
    of = partial(work, splits=splits, folder=str(folder), asleep=asleep, waits=waits)
    return launch(of, 2, STALL_SECONDS)


def fail(folder: Path, how: signal.Signals, at: list[float]) -> None:
    """Send the signal as soon as the worker that is to fail has said who it is."""
    pid = folder / f"pid-{WORKER_THAT_FAILS}"
    while not pid.exists() or not pid.read_text():
        time.sleep(0.05)
    os.kill(int(pid.read_text()), how)
    at.append(time.monotonic())


@pytest.fixture(scope="module")
def undisturbed(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The control of all: the same work, with the same pause, and nobody fails."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return run(splits, tmp_path_factory.mktemp("control"))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("how", "within_seconds"),
    [(signal.SIGKILL, 60.0), (signal.SIGSTOP, 60.0 + STALL_SECONDS)],
    ids=["killed", "frozen"],
)
def test_a_worker_that_fails_ends_the_job_and_the_next_run_goes_on(
    splits: Splits,
    undisturbed: float,
    tmp_path: Path,
    how: signal.Signals,
    within_seconds: float,
) -> None:
    failed_at: list[float] = []
    failing = threading.Thread(target=fail, args=(tmp_path, how, failed_at))
    failing.start()
    with pytest.raises(WorkersFailed, match="one of 2 workers failed before its work was done"):
        run(splits, tmp_path)
    ended_at = time.monotonic()
    failing.join()
    assert ended_at - failed_at[0] < within_seconds
    wait_until_nobody_is_left(tmp_path)
    saved = Checkpoints(f"{tmp_path}/checkpoints", "these", 2, OFTEN).newest()
    assert saved is not None
    assert len(saved[0].epochs) == 2
    assert run(splits, tmp_path, waits=False) == undisturbed


def test_a_worker_that_sleeps_in_its_own_code_is_found_too(
    splits: Splits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        WorkersFailed, match=r"all were stopped; worker [01] has made no progress past"
    ):
        run(splits, tmp_path, asleep=True)
    wait_until_nobody_is_left(tmp_path)
    told = capfd.readouterr()
    assert "worker 1 has made no progress past base epoch 2, step 5 for 15 s" in told.out + told.err


def fills_the_disk(workers: Workers, rank: int) -> None:
    workers.sum([1.0])
    if workers.rank == rank:
        print("what it said before", file=sys.stderr)
        Path("/dev/full").write_text("a checkpoint")
    workers.sum([1.0])


@pytest.mark.parametrize("rank", [0, 1])
def test_why_a_worker_has_failed_stands_in_the_message(
    spark: SparkSession, capfd: pytest.CaptureFixture[str], rank: int
) -> None:
    """Of a run its table has the message alone; the worker that only waited says nothing."""
    with pytest.raises(WorkersFailed) as failed:
        launch(partial(fills_the_disk, rank=rank), 2, STALL_SECONDS)
    assert str(failed.value).startswith(
        "one of 2 workers failed before its work was done, so all were stopped; "
        f"worker {rank} has failed: OSError: [Errno 28] No space left on device. Horovod says: "
    )
    assert "\n" not in str(failed.value)
    told = capfd.readouterr()
    assert "Exception in thread" not in told.out + told.err


def wait_until_nobody_is_left(folder: Path) -> None:
    """Horovod gives a process that does not end at its first signal some seconds more."""
    pids = [int(path.read_text()) for path in folder.glob("pid-*")]
    assert len(pids) == 2
    deadline = time.monotonic() + 30
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
