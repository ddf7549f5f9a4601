"""What a command costs: wall seconds, processor seconds, and the peak memory of all its processes.

Memory is the resident set of the process and its descendants together, sampled; pages that forked
processes share count for each of them. Processor seconds are what tells on a machine that others
use too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
INTERVAL = 0.1
"""Seconds between two samples."""
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Cost:
    """Of a command, from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_memory_mb: float


class _Sampler(threading.Thread):
    """Watches a process and its descendants until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.done = psutil.Process(pid), threading.Event()
        self.peak = 0
        self.cpu: dict[tuple[int, float], float] = {}

    def run(self) -> None:
        while not self.done.wait(INTERVAL):
            self.sample()

    def sample(self) -> None:
        resident = 0
        try:
            processes = [self.root, *self.root.children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            try:
                resident += process.memory_info().rss
                used = process.cpu_times()
                self.cpu[process.pid, process.create_time()] = used.user + used.system
            except psutil.Error:  # it has ended meanwhile
                continue
        self.peak = max(self.peak, resident)


def run(command: Sequence[str | Path], cores: Collection[int] | None = None) -> Cost:
    """Run a command in the repository, its output going to standard error.

    With `cores` it and all that it starts run on these alone.

    Raises:
        subprocess.CalledProcessError: it has failed.
    """
    start = time.perf_counter()
    if cores is not None:
        command = ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=sys.stderr) as process:
        sampler = _Sampler(process.pid)
        sampler.sample()
        sampler.start()
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
            sampler.done.set()
            sampler.join()
    seconds = time.perf_counter() - start
    if code:
        raise subprocess.CalledProcessError(code, list(map(str, command)))
    return Cost(seconds, sum(sampler.cpu.values()), sampler.peak / _MEGABYTE)


def run_task(
    module: str,
    task: Any,
    cores: Collection[int] | None = None,
    python: str | Path = sys.executable,
) -> tuple[Any, Cost]:
    """Run `python -m module TASK.json RESULT.json` in a process of its own.

    Returns:
        what it wrote to RESULT.json, and its cost.
    """
    with tempfile.TemporaryDirectory() as name:
        given, made = Path(name, "task.json"), Path(name, "result.json")
        given.write_text(json.dumps(task))
        cost = run([python, "-m", module, given, made], cores)
        return json.loads(made.read_text()), cost


def serve(function: Any) -> None:
    """The other end of `run_task`: call the function with the task, write what it returns."""
    result = function(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(result))
