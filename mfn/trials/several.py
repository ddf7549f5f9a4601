"""Runs many trainings, several at a time, each in a process with one thread."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from mfn.engine.progress import Progress
from mfn.trials.trial import Trial


def run_all(trials: Sequence[Trial], name: str, max_parallel: int) -> None:
    """Run the trainings that are not finished; the first error stops all of them.

    The processes are forked from a server process that has only imported the modules of a trial.
    A fork of this process, which has threads of torch and of Java, could hang.

    Args:
        name: shown with the progress.
        max_parallel: maximum number of processes at a time.
    """
    waiting = [one for one in trials if not one.finished()]
    if not waiting:
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([Trial.__module__])
    with (
        Progress(name, len(waiting), shown=True) as progress,
        ProcessPoolExecutor(min(max_parallel, len(waiting)), mp_context=context) as pool,
    ):
        running = {pool.submit(one.run): one for one in waiting}
        try:
            for done in as_completed(running):
                done.result()
                progress.advance(running[done].name)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
