"""The cost of a command: wall seconds, CPU seconds, and the peak memory of all its processes.

Memory is the resident set size of the process and its descendants, sampled. Pages that forked
processes share count once for each process. On a shared machine, CPU seconds are more reliable than
wall seconds.
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
"""Seconds between samples."""
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Cost:
    """Cost of a command from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_memory_mb: float


class _Sampler(threading.Thread):
    """Samples a process and its descendants until `done` is set."""

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
            except psutil.Error:  # the process has ended
                continue
        self.peak = max(self.peak, resident)


def run(command: Sequence[str | Path], cores: Collection[int] | None = None) -> Cost:
    """Run a command in the repository, with its output on standard error.

    Args:
        command: the program and its arguments.
        cores: if given, the command and its child processes run only on these cores.

    Raises:
        subprocess.CalledProcessError: the command failed.
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
    """Run `python -m module TASK.json RESULT.json` in a new process.

    Returns:
        the content of RESULT.json, and the cost of the process.
    """
    with tempfile.TemporaryDirectory() as name:
        task_file, result_file = Path(name, "task.json"), Path(name, "result.json")
        task_file.write_text(json.dumps(task))
        cost = run([python, "-m", module, task_file, result_file], cores)
        return json.loads(result_file.read_text()), cost


def serve(function: Any) -> None:
    """In the process of `run_task`: call the function with the task, and write its result."""
    result = function(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(result))
