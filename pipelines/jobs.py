"""The jobs of a day, by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from mfn.job import Job

MODULES: Mapping[str, str] = {
    "simulate_logs": "mfn.simulator.simulate",
    "ingest": "mfn.sources.ingest",
    "validate_logs": "mfn.logs.validate",
    "build_splits": "mfn.splits.build",
    "pretrain_embeddings": "mfn.pretraining.embeddings",
    "train_centers": "mfn.pretraining.centers",
    "train": "mfn.training.train",
    "predict": "mfn.serving.predict",
    "evaluate": "mfn.evaluation.evaluate",
    "report": "mfn.reporting.report",
}
"""Where the job of each step is."""


def job_of(name: str) -> Job:
    """The job of a step, loaded when it is asked for.

    Torch alone takes seconds, which a run that is refused before it trains need not wait for.
    """
    job: Job = getattr(import_module(MODULES[name]), name)
    return job
