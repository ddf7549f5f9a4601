"""The study's Spark steps: request rows of both run dates, embeddings and centers of each seed."""

from __future__ import annotations

from pyspark.sql import SparkSession

from mfn import job
from mfn.logs.validate import validate_logs
from mfn.splits.build import build_splits
from mfn.trials.compare import pretrain_to_choose
from pipelines.steps import job_of
from study.data_sets import DataSet


def prepare(spark: SparkSession, data_set: DataSet) -> None:
    """Make all inputs of the data set's choice; a step with unchanged inputs is skipped.

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
    if plan.earlier is not None:
        pretrain_to_choose(spark, plan)
