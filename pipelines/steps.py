"""Every job and the day as one graph of steps: whatever runs a day reads it here.

A step is a name and the name of a module, so that a scheduler can read the graph without the
packages that the jobs need.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mfn.job import Job


@dataclass(frozen=True)
class Step:
    """A job, and the jobs whose outputs it reads. Its script is jobs/<name>.py.

    Attributes:
        name: the name of the job's function.
        module: where that function is.
        by_model: whether the job can run for one configured model at a time (`train.only`).
    """

    name: str
    module: str
    after: tuple[str, ...] = ()
    by_model: bool = False


MAKE_LOGS = (
    Step("simulate_logs", "mfn.simulator.simulate"),
    Step("ingest", "mfn.sources.ingest"),
)
"""Jobs that make the raw logs where nobody delivers them (`logs.made_by`)."""

DAY = (
    Step("validate_logs", "mfn.logs.validate"),
    Step("build_splits", "mfn.splits.build", after=("validate_logs",)),
    Step("pretrain_embeddings", "mfn.pretraining.embeddings", after=("build_splits",)),
    Step("train_centers", "mfn.pretraining.centers", after=("pretrain_embeddings",)),
    Step(
        "train",
        "mfn.training.train",
        after=("pretrain_embeddings", "train_centers"),
        by_model=True,
    ),
    Step("predict", "mfn.serving.predict", after=("train",)),
    Step("evaluate", "mfn.evaluation.evaluate", after=("predict",)),
    Step("report", "mfn.reporting.report", after=("evaluate",)),
)
"""The steps of a day once its raw logs are there."""

ON_DEMAND = (
    Step("compare", "mfn.trials.compare"),
    Step("clean_up", "mfn.retention"),
)
"""Jobs that are no part of a day."""

JOBS: Mapping[str, Step] = {step.name: step for step in (*MAKE_LOGS, *DAY, *ON_DEMAND)}
"""Every job by name."""


def steps(made_by: str | None = None) -> list[Step]:
    """The steps of a day, each after the steps whose outputs it reads.

    Args:
        made_by: the job that makes the raw logs, if nobody delivers them; it comes first.
    """
    order = TopologicalSorter({step.name: step.after for step in DAY}).static_order()
    day = [JOBS[name] for name in order]
    if made_by is None:
        return day
    first, *others = day
    return [JOBS[made_by], replace(first, after=(made_by,)), *others]


def description_of(name: str) -> str:
    """What a job does, in a line: from its source, so that nothing has to be loaded."""
    spec = find_spec(JOBS[name].module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    job = next(function for function in functions if function.name == name)
    return (ast.get_docstring(job) or name).splitlines()[0]


def job_of(name: str) -> Job:
    """The job of this name. Its module is loaded now: torch alone takes seconds to load."""
    job: Job = getattr(import_module(JOBS[name].module), name)
    return job
