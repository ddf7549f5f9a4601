"""The measured cost of a command: memory, CPU seconds and wall seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import measure

pytestmark = pytest.mark.process

HOLD = "data = bytearray({megabytes} << 20); import time; time.sleep(0.5)"


def hold(megabytes: int) -> str:
    """Python code that holds this much memory for half a second."""
    return HOLD.format(megabytes=megabytes)


def test_memory_of_a_child_of_the_command_counts() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold(200)!r}])"
    with_it = measure.run([sys.executable, "-c", child])
    without = measure.run([sys.executable, "-c", child.replace("200", "1")])
    assert 190 < with_it.peak_memory_mb - without.peak_memory_mb < 210
    assert with_it.seconds >= 0.5


def test_cpu_seconds_do_not_include_sleep() -> None:
    spin = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    spinning = measure.run([sys.executable, "-c", spin + "\ntime.sleep(0.3)"])
    assert 0.4 < spinning.cpu_seconds < spinning.seconds
    assert measure.run([sys.executable, "-c", hold(1)]).cpu_seconds < 0.4


def test_a_failed_command_raises() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        measure.run([sys.executable, "-c", "raise SystemExit(3)"])
