"""Turns: runs of a job that write to the same rows for different dates go one after the other.

A run of another date waits until the run that holds the claim has ended. A run of the same date
takes the claim at once, because a scheduler starts it again only when it has given up the first.

File systems that fsspec supports have no locks that end with their holder. So the holder shows
signs of life: every SIGN_SECONDS it changes a small file, which it removes when it ends. If that
file stays the same for DEAD_SECONDS, the holder was killed, and one that waits takes the claim.
Clocks of different machines are not compared.

A turn alone is no guarantee: two runs may take the claim at the same moment, and a machine that
stood still may wake up after its turn. So the claim also decides what may be published
(`mfn.storage`). A run that has lost it to another date waits for its next turn, and starts again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from mfn import storage
from mfn.errors import Superseded
from mfn.storage import Claim

SIGN_SECONDS = 10.0
DEAD_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How often a run that waits looks at the claim and at the signs of life."""

Result = TypeVar("Result")

log = logging.getLogger("mfn")


def in_turn(name: str, mine: Claim, function: Callable[[], Result]) -> Result:
    """Call a function under a claim, when its turn has come.

    Args:
        name: of the job, for the log.
        mine: the claim to make. Its `date` and `work` are what others read who wait for it.
        function: is called again if its run loses the claim to one of another date.

    Raises:
        Superseded: a later run of the same job for the same date took over.
    """
    while True:
        _wait(name, mine)
        try:
            with _signs_of_life(mine), storage.claim(mine):
                return function()
        except Superseded:
            holder = storage.holder(mine.path)
            if holder is None or holder.date == mine.date:
                raise
            mine = mine.again()


def _wait(name: str, mine: Claim) -> None:
    """Wait until no run of another date holds the claim and lives."""
    told, seen, since = "", "", time.monotonic()
    while (holder := storage.holder(mine.path)) is not None:
        sign = storage.read_text(_file_of(holder))
        if holder.date == mine.date or sign is None:
            break
        if holder.run != told:
            told = holder.run
            log.info(
                "%s %s: waits for the run of %s, which %s; if that run was killed, for at most "
                "%.0f s; then this run %s",
                name,
                mine.date,
                holder.date,
                holder.work,
                DEAD_SECONDS,
                mine.work,
            )
        now = time.monotonic()
        if (current := f"{holder.run} {sign}") != seen:
            seen, since = current, now
        elif now - since >= DEAD_SECONDS:
            log.warning(
                "%s %s: the run of %s has shown no sign of life for %.0f s and is taken for killed",
                name,
                mine.date,
                holder.date,
                now - since,
            )
            break
        time.sleep(LOOK_SECONDS)
    if holder is not None:
        storage.remove(_file_of(holder))


@contextlib.contextmanager
def _signs_of_life(mine: Claim) -> Iterator[None]:
    """Show in this block that the run lives."""
    path, ended = _file_of(mine), threading.Event()

    def show() -> None:
        number = 0
        while not ended.wait(SIGN_SECONDS):
            number += 1
            try:
                storage.write_whole(path, str(number))
            except OSError as error:
                log.warning("%s: could not show that this run lives: %s", path, error)

    storage.write_whole(path, "0")
    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        storage.remove(path)


def _file_of(claim: Claim) -> str:
    return f"{claim.path}.{claim.run}"
