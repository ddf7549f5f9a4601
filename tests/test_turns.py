"""Runs of different dates that write to the same rows take turns, and each of them ends."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from mfn import storage, turns
from mfn.errors import Superseded
from mfn.storage import Claim
from mfn.turns import in_turn

MONDAY, TUESDAY = "2026-03-02", "2026-03-03"


@pytest.fixture(params=["disk", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the claim, on a disk and in a store that only fsspec knows."""
    root = str(tmp_path) if request.param == "disk" else f"memory://{uuid.uuid4().hex}"
    return f"{root}/made/all/validate_logs.claim"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SIGN_SECONDS", 0.05)
    monkeypatch.setattr(turns, "DEAD_SECONDS", 1.0)
    monkeypatch.setattr(turns, "LOOK_SECONDS", 0.01)


def start(path: str, date: str, function: Callable[[], object]) -> threading.Thread:
    """Run a function in its turn, beside this thread."""
    claim = Claim(path, date, f"validates {date}")
    thread = threading.Thread(target=in_turn, args=("validate_logs", claim, function))
    thread.start()
    return thread


class Holder:
    """A run that has its turn until it is told to end."""

    def __init__(self, path: str, date: str) -> None:
        self.holds, self.told = threading.Event(), threading.Event()
        self.thread = start(path, date, self._hold)
        assert self.holds.wait(30)

    def _hold(self) -> None:
        self.holds.set()
        self.told.wait(30)

    def end(self) -> None:
        self.told.set()
        self.thread.join()


def files_beside(path: str) -> list[str]:
    return [one.rpartition("/")[2] for one in storage.list_files(path.rpartition("/")[0], "")]


def test_a_run_of_another_date_waits_and_says_for_whom_and_what_is_left(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mfn")
    ended = []
    monday = Holder(path, MONDAY)
    tuesday = start(path, TUESDAY, lambda: ended.append(TUESDAY))
    tuesday.join(2 * turns.DEAD_SECONDS)  # Monday's run lives, however long it takes
    assert tuesday.is_alive()
    assert ended == []
    monday.end()
    tuesday.join(30)
    assert ended == [TUESDAY]
    (told,) = {one.getMessage() for one in caplog.records}
    assert told == (
        f"validate_logs {TUESDAY}: waits for the run of {MONDAY}, which validates {MONDAY}; if "
        f"that run was killed, for at most 1 s; then this run validates {TUESDAY}"
    )
    assert files_beside(path) == ["validate_logs.claim"]


def test_a_run_after_one_that_has_ended_does_not_wait(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mfn")
    for date in (MONDAY, TUESDAY, MONDAY):
        assert in_turn("validate_logs", Claim(path, date), lambda: "result") == "result"
    assert caplog.records == []


def test_a_claim_of_an_earlier_version_keeps_nobody_waiting(path: str) -> None:
    storage.write_whole(path, "0123456789abcdef0123456789abcdef")
    assert in_turn("validate_logs", Claim(path, MONDAY), lambda: "result") == "result"


def test_a_run_of_the_same_date_takes_over_at_once(path: str) -> None:
    """Its scheduler has given up the first one, which publishes nothing more."""

    def first() -> None:
        in_turn("validate_logs", Claim(path, MONDAY, "validates"), lambda: "second")
        storage.check_claims()

    with pytest.raises(Superseded, match=rf"took over, that of {MONDAY}; this run stopped"):
        in_turn("validate_logs", Claim(path, MONDAY, "validates"), first)
    assert files_beside(path) == ["validate_logs.claim"]


def test_a_run_that_loses_its_turn_to_another_date_waits_for_the_next(path: str) -> None:
    """As if both had taken the claim at the same moment, or one machine had stood still."""
    calls: list[Holder] = []

    def loses_its_first_turn() -> str:
        if not calls:
            storage.remove(turns._file_of(storage.claims()[-1]))  # it looks as if it had ended
            calls.append(Holder(path, TUESDAY))
            threading.Timer(0.3, calls[0].end).start()
        storage.check_claims()
        assert not calls[0].thread.is_alive()
        return "published"

    assert in_turn("validate_logs", Claim(path, MONDAY), loses_its_first_turn) == "published"
    assert files_beside(path) == ["validate_logs.claim"]


def test_of_many_dates_at_once_each_has_its_turn_and_never_two(path: str) -> None:
    published: list[str] = []

    def publish(date: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(3):
                time.sleep(0.01)
                storage.check_claims()
            published.append(date)

        return run

    dates = [f"2026-03-{day:02}" for day in range(1, 7)]
    runs = [start(path, date, publish(date)) for date in dates]
    for run in runs:
        run.join(60)
    assert sorted(published) == dates
    assert files_beside(path) == ["validate_logs.claim"]


KILLED = """
import os, signal, sys
from mfn.storage import Claim
from mfn.turns import in_turn

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

in_turn("validate_logs", Claim(sys.argv[1], sys.argv[2], "validates"), killed)
"""


@pytest.mark.process
def test_a_run_that_was_killed_keeps_others_waiting_for_a_bounded_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{tmp_path}/validate_logs.claim"
    killed = subprocess.run([sys.executable, "-c", KILLED, path, MONDAY], check=False)
    assert killed.returncode == -9
    assert len(os.listdir(tmp_path)) == 2  # the claim, and its last sign of life
    begun = time.monotonic()
    assert in_turn("validate_logs", Claim(path, TUESDAY), lambda: "result") == "result"
    assert turns.DEAD_SECONDS <= time.monotonic() - begun < turns.DEAD_SECONDS + 5
    assert f"the run of {MONDAY} has shown no sign of life for 1 s" in caplog.text
    assert os.listdir(tmp_path) == ["validate_logs.claim"]
