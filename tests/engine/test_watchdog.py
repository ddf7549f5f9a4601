"""A worker that makes no progress is killed by its watchdog; one that works is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parent.parent.parent
STALL_SECONDS = 2

WORKER = f"""
import sys, time
from mfn.engine.watchdog import Watchdog

def sleeps():
    time.sleep(10_000)

def works():
    begun = time.monotonic()
    while time.monotonic() < begun + 2 * {STALL_SECONDS}:
        watchdog.heartbeat("base epoch 2, step 6")
        time.sleep(0.05)

watchdog = Watchdog(1, {STALL_SECONDS})
watchdog.heartbeat("base epoch 2, step 5")
print("ready", flush=True)
{{"sleeps": sleeps, "works": works}}[sys.argv[1]]()
"""


def run(does: str, stopped: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a worker, once its watchdog has ended too."""
    command = [sys.executable, "-c", WORKER, does]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        if stopped:
            os.kill(worker.pid, signal.SIGSTOP)
        # Up to the end of its standard error, which the watchdog holds open.
        told = worker.communicate(timeout=60)[1]
        return worker.returncode, told


@pytest.mark.parametrize("stopped", [False, True], ids=["asleep", "frozen"])
def test_a_worker_that_makes_no_progress_is_killed_and_where_it_was_is_said(stopped: bool) -> None:
    code, told = run("sleeps", stopped)
    assert code == -signal.SIGKILL
    assert "worker 1 has made no progress past base epoch 2, step 5 for 2 s" in told
    assert ("in sleeps" in told) is not stopped  # where its threads are; frozen, it cannot say


def test_a_worker_that_works_is_left_alone() -> None:
    """The control, for twice as long."""
    assert run("works") == (0, "")
