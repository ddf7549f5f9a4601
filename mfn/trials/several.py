"""Many trainings, some at a time, each in a process of one thread; those that have run are left."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from mfn.engine.progress import Progress
from mfn.trials.trial import Trial


def run_all(trials: Sequence[Trial], name: str, at_once: int) -> None:
    """Run what has not run; the first error of one ends all.

    They are copies of a process that has loaded what a trial needs and has begun nothing; a copy of
    this one, with its threads of torch and Java, may hang.
    """
    waiting = [one for one in trials if not one.finished()]
    if not waiting:
        return
    copies = multiprocessing.get_context("forkserver")
    copies.set_forkserver_preload([Trial.__module__])
    with (
        Progress(name, len(waiting), shown=True) as progress,
        ProcessPoolExecutor(min(at_once, len(waiting)), mp_context=copies) as pool,
    ):
        running = {pool.submit(one.run): one for one in waiting}
        try:
            for done in as_completed(running):
                done.result()
                progress.advance(running[done].name)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
