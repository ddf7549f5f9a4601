"""Kills a worker that makes no progress, so that the job fails instead of hanging forever.

In a collective every worker waits for all others, so one worker that is frozen or asleep blocks
them all. Gloo may wait forever, and Horovod's static launcher kills nobody. Therefore each worker
has a watchdog. It is a separate process, which keeps running when the worker is frozen. The worker
reports each step to it; without a report for too long, it kills the worker. It ends with its
worker.

This file is also the program of the watchdog's process, so it imports only the standard library.
"""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import os
import select
import signal
import subprocess
import sys
import time

SECONDS_FOR_TRACEBACK = 2.0
"""Time before the kill in which a worker that is not frozen prints its threads' tracebacks."""


class Watchdog:
    """Kills this process if `heartbeat` is not called for this many seconds."""

    def __init__(self, worker: int, seconds: float) -> None:
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        # Started from its source, not from its file: that may be inside a zip archive.
        source = inspect.getsource(sys.modules[__name__])
        arguments = [str(os.getpid()), str(worker), str(seconds)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", source, *arguments], stdin=subprocess.PIPE, text=True
        )
        self.heartbeat("the start")

    def heartbeat(self, at: str) -> None:
        """Report progress: the worker is now at this step."""
        if self.process.stdin is None:
            raise ValueError("the watchdog has no standard input to report to")
        with contextlib.suppress(BrokenPipeError):  # without a watchdog the worker continues
            self.process.stdin.write(f"{at}\n")
            self.process.stdin.flush()


def _watch(pid: int, worker: int, seconds: float) -> None:
    """Read the reports from standard input; kill the worker when none comes for `seconds`."""
    at, since = "", time.monotonic()
    incomplete_line = b""
    while True:
        left = since + seconds - time.monotonic()
        if left <= 0:
            _kill(pid, worker, seconds, at)
            return
        if not select.select([sys.stdin], [], [], left)[0]:
            continue
        read = os.read(sys.stdin.fileno(), 65536)
        if not read:  # the worker has ended
            return
        *lines, incomplete_line = (incomplete_line + read).split(b"\n")
        if lines:
            at, since = lines[-1].decode(), time.monotonic()


def _kill(pid: int, worker: int, seconds: float, at: str) -> None:
    print(
        # `horovod_workers` looks for lines that start with "worker N has".
        f"worker {worker} has made no progress past {at} for {seconds:g} s (train.stall_seconds): "
        "it hangs, or waits for a worker that hangs; it is killed and the job fails",
        file=sys.stderr,
        flush=True,
    )
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        time.sleep(SECONDS_FOR_TRACEBACK)
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
