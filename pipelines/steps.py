"""The day as one graph of steps: what runs it reads it here, and nowhere else.

Steps stand here by name alone, so that a scheduler can read the graph without the packages that
the jobs need; `pipelines.jobs` has the jobs themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter


@dataclass(frozen=True)
class Step:
    """A job, and the jobs whose outputs it reads. Its script is jobs/<name>.py.

    Attributes:
        by_model: whether it can be run for one configured model at a time (`train.only`).
    """

    name: str
    after: tuple[str, ...] = ()
    by_model: bool = False


DAY: Mapping[str, Step] = {
    step.name: step
    for step in (
        Step("validate_logs"),
        Step("build_splits", after=("validate_logs",)),
        Step("pretrain_embeddings", after=("build_splits",)),
        Step("train_centers", after=("pretrain_embeddings",)),
        Step("train", after=("pretrain_embeddings", "train_centers"), by_model=True),
        Step("predict", after=("train",)),
        Step("evaluate", after=("predict",)),
        Step("report", after=("evaluate",)),
    )
}
"""What a day takes once its raw logs are there."""


def steps(made_by: str | None = None) -> list[Step]:
    """The steps of a day in an order in which each follows what it reads.

    made_by: the job that makes the raw logs, where they are not delivered; it comes first.
    """
    order = TopologicalSorter({step.name: step.after for step in DAY.values()}).static_order()
    day = [DAY[name] for name in order]
    if made_by is None:
        return day
    first, *others = day
    return [Step(made_by), replace(first, after=(made_by,)), *others]
