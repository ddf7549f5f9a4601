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
from mfn.trials.plan import Plan, pretrainings
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


def pretrain(plan: Plan, trials: Iterable[Trial]) -> None:
    """Learn E and the centers that these trainings read, unless they exist.

    Alg. 1 uses one core, so each runs in a process of its own, with a Spark session of its own;
    `compare.max_parallel` at a time.
    """
    root, context = plan.real.root, multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.real.compare.max_parallel, mp_context=context) as pool:
        for done in [pool.submit(_pretrain, root, one) for one in pretrainings(trials)]:
            done.result()


def _pretrain(root: str, settings: Settings) -> None:
    set_up_logging()
    # The session of this process stays for its next task, and ends with the process.
    pretrain_root(sessions.start(settings, "study"), root, settings)
