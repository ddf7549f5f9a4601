"""Run a day of the simulated shop with conf/bench.yaml, and return each model's AUC.

python -m bench.shop_day TASK.json RESULT.json
"""

from __future__ import annotations

from typing import Any

from bench import measure
from mfn import job, tables
from mfn import spark as sessions
from mfn.log_setup import set_up_logging
from mfn.schema import METRICS
from mfn.settings import Settings
from mfn.splits.published import Splits
from pipelines.steps import job_of, steps


def _serve(task: dict[str, Any]) -> dict[str, Any]:
    set_up_logging()
    settings = Settings(**task)
    with sessions.session(settings, "a shop's day for a benchmark") as session:
        for step in steps(settings.logs.made_by):
            job.run(job_of(step.name), session, settings)
        metrics = tables.read(session, settings.root, METRICS, "evaluate")
        of_all = metrics.where(f"slice = 'all' AND run_date = DATE '{settings.date}'")
        return {
            "aucs": {row["model"]: row["auc"] for row in of_all.select("model", "auc").collect()},
            "splits": Splits.published(settings).folder,
        }


if __name__ == "__main__":
    measure.serve(_serve)
