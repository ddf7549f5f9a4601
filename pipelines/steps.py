"""The day as one graph of steps: what runs it reads it here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import TopologicalSorter

from mfn.evaluation.evaluate import evaluate
from mfn.evaluation.report import report
from mfn.job import Job
from mfn.logs.ingest import ingest
from mfn.logs.simulate import simulate_logs
from mfn.logs.validate import validate_logs
from mfn.pretraining.centers import train_centers
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.serving.predict import predict
from mfn.settings import Settings
from mfn.splits.build import build_splits
from mfn.training.train import train


@dataclass(frozen=True)
class Step:
    """A job, and the jobs whose outputs it reads. Its script is jobs/<name>.py."""

    job: Job
    after: tuple[Job, ...] = ()

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name


DAY = (
    Step(validate_logs),
    Step(build_splits, after=(validate_logs,)),
    Step(pretrain_embeddings, after=(build_splits,)),
    Step(train_centers, after=(pretrain_embeddings,)),
    Step(train, after=(pretrain_embeddings, train_centers)),
    Step(predict, after=(train,)),
    Step(evaluate, after=(predict,)),
    Step(report, after=(evaluate,)),
)
"""What a day takes once its raw logs are there."""

SOURCES: dict[str, Job] = {job.name: job for job in (simulate_logs, ingest)}
"""Jobs that make raw logs, where they are not delivered; by the setting logs.made_by."""


def steps(settings: Settings) -> list[Step]:
    """The steps of a day in an order in which each follows what it reads."""
    by_job = {step.job: step for step in DAY}
    order = TopologicalSorter({step.job: step.after for step in DAY}).static_order()
    made_by = settings.logs.made_by
    source = [] if made_by is None else [Step(SOURCES[made_by])]
    return [*source, *(by_job[job] for job in order)]
