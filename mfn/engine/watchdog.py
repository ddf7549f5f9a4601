"""A worker that comes on no more ends, and with it the job: a hang would have no end.

In a collective every worker waits for all others, so one that is frozen, or asleep, stops all of
them; Gloo may wait for ever, and Horovod's static launcher ends nobody. So each worker has a
watchdog, a process of its own that stays awake when the worker is frozen: it hears of each step,
and kills the worker when it has heard nothing for too long. It ends when its worker does.

This file runs as the watchdog too, and imports nothing but the standard library.
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

SECONDS_TO_TELL = 2.0
"""In which a worker that is not frozen writes where its threads are."""


class Watchdog:
    """Kills this process when `heartbeat` was not called for so many seconds."""

    def __init__(self, worker: int, seconds: float) -> None:
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        # By its source and not by its file, which may lie in a zip archive.
        source = inspect.getsource(sys.modules[__name__])
        arguments = [str(os.getpid()), str(worker), str(seconds)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", source, *arguments], stdin=subprocess.PIPE, text=True
        )
        self.heartbeat("the beginning")

    def heartbeat(self, at: str) -> None:
        """Come on to here."""
        if self.process.stdin is None:
            raise ValueError("a watchdog listens to its standard input")
        with contextlib.suppress(BrokenPipeError):  # without it, the work goes on all the same
            self.process.stdin.write(f"{at}\n")
            self.process.stdin.flush()


def _watch(pid: int, worker: int, seconds: float) -> None:
    at, since = "", time.monotonic()
    heard = b""
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
        *lines, heard = (heard + read).split(b"\n")
        if lines:
            at, since = lines[-1].decode(), time.monotonic()


def _kill(pid: int, worker: int, seconds: float, at: str) -> None:
    print(
        f"worker {worker} has come no further than {at} for {seconds:g} s (train.stall_seconds): "
        "it hangs, or waits for a worker that does; it is ended, and the job with it",
        file=sys.stderr,
        flush=True,
    )
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        time.sleep(SECONDS_TO_TELL)
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
