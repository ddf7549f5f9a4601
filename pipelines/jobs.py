"""The jobs of a day, by name."""

from __future__ import annotations

from collections.abc import Mapping

from mfn.evaluation.evaluate import evaluate
from mfn.evaluation.report import report
from mfn.job import Job
from mfn.logs.ingest import ingest
from mfn.logs.simulate import simulate_logs
from mfn.logs.validate import validate_logs
from mfn.pretraining.centers import train_centers
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.serving.predict import predict
from mfn.splits.build import build_splits
from mfn.training.train import train

JOBS: Mapping[str, Job] = {
    job.name: job
    for job in (
        simulate_logs,
        ingest,
        validate_logs,
        build_splits,
        pretrain_embeddings,
        train_centers,
        train,
        predict,
        evaluate,
        report,
    )
}
