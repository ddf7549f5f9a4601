"""What Spark makes for the study, once: the rows of both run dates, E and centers of each seed."""

from __future__ import annotations

from pyspark.sql import SparkSession

from mfn import job
from mfn.logs.validate import validate_logs
from mfn.splits.build import build_splits
from mfn.trials.compare import pretrain_all
from pipelines.steps import job_of
from study.data_sets import DataSet


def prepare(spark: SparkSession, data_set: DataSet) -> None:
    """Make all that trainings of this data set read, unless it is there.

    Only the real date's run makes raw logs, so that both dates read the same. The earlier date is
    built first, as a vocabulary indexes days in their order, but once the days of both are
    validated: clicks after its last midnight are the earlier date's too, so that it would be built
    again, and all that follows from it, when the study goes on.
    """
    plan = data_set.plan
    if plan.real.logs.made_by is not None:
        job.run(job_of(plan.real.logs.made_by), spark, plan.real)
    for step in (validate_logs, build_splits):
        for settings in (plan.earlier, plan.real):
            job.run(step, spark, settings)
    pretrain_all(spark, plan)
