"""The study's Spark steps: request rows of both run dates, embeddings and centers of each seed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from pyspark.sql import SparkSession

from mfn import job
from mfn import spark as sessions
from mfn.log_setup import set_up_logging
from mfn.logs.validate import validate_logs
from mfn.settings import Settings
from mfn.splits.build import build_splits
from mfn.trials.plan import pretrainings
from mfn.trials.pretrain import pretrain_root
from mfn.trials.trial import Trial
from pipelines.steps import job_of
from study.data_sets import DataSet


def prepare(spark: SparkSession, data_set: DataSet) -> None:
    """Make the request rows of a data set; a step with unchanged inputs is skipped.

    Raw logs are made only by the run of the real date, so that both dates read the same logs. The
    earlier date is built first, because a vocabulary indexes days in order. Both dates are
    validated before that: the earlier date also reads clicks after its last midnight, so if the
    next day were validated later, a resumed study would build the earlier date and all later steps
    again.
    """
    plan = data_set.plan
    if plan.real.logs.made_by is not None:
        job.run(job_of(plan.real.logs.made_by), spark, plan.real)
    for step in (validate_logs, build_splits):
        for settings in (plan.earlier, plan.real):
            if settings is not None:
                job.run(step, spark, settings)


def pretrain(trials: Iterable[tuple[str, Trial]], max_parallel: int) -> None:
    """Learn E and the centers that trainings read, unless they exist; several at a time.

    Alg. 1 uses one core, so each runs in a process of its own, with a Spark session of its own.

    Args:
        trials: trainings, each with the common root of its data set.
        max_parallel: maximum number of processes at a time.
    """
    by_root: dict[str, list[Trial]] = {}
    for root, one in trials:
        by_root.setdefault(root, []).append(one)
    todo = [(root, one) for root, of_root in by_root.items() for one in pretrainings(of_root)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_parallel, mp_context=context) as pool:
        for done in [pool.submit(_pretrain, root, settings) for root, settings in todo]:
            done.result()


def _pretrain(root: str, settings: Settings) -> None:
    set_up_logging()
    # The session of this process stays for its next task, and ends with the process.
    pretrain_root(sessions.start(settings, "study"), root, settings)
