"""How long a data set takes at most: an estimate before its first training.

The seconds were measured on one core that did nothing else. Only trainings are estimated; logs,
splits, E and centers come on top.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from mfn.models.settings import RankerSettings, SimilaritySettings
from mfn.splits.published import Splits
from mfn.trials.plan import Plan
from study.data_sets import DataSet

log = logging.getLogger("mfn")

REQUESTS = 30_000
SECONDS: Mapping[str, float] = {
    "base": 4,
    "mind": 6,
    "comirec_dr": 9,
    "comirec_sa": 8,
    "transformer_rec": 30,
    "din": 22,
    "mfn": 28,
    "mfn_as_printed": 17,
    "mfn_without_combination": 17,
    "mfn_without_similarity": 17,
    "mfn_without_fine_level": 15,
    "mfn_with_target_attention": 45,
}
"""CPU seconds of an epoch over 30,000 requests of the simulated shop; others are as `mfn`."""


def log_estimate(data_set: DataSet) -> None:
    """Log how long all trainings of a data set take, if every one has all its epochs."""
    minutes = seconds(data_set.plan, data_set.by_step) / 60
    log.info("%s: at most about %.0f minutes of trainings", data_set.source.title, minutes)


def seconds(plan: Plan, by_step: Iterable[str]) -> float:
    """Seconds of all trainings of a plan, `compare.max_parallel` at a time."""
    own, models = plan.real.compare, plan.real.models
    rows = int(Splits.published(plan.real).manifest["splits"]["train"]["rows"])
    epochs = {name: len(plan.seeds(name)) for name in models}
    if plan.earlier is not None:
        for name in plan.tuned:
            trained = len(own.learning_rates) + len(plan.options.get(name, ()))
            epochs[name] += len(own.choosing_seeds) * trained
        for name in by_step:
            epochs[name] += len(own.choosing_seeds)
    cpu = sum(number * own.max_epochs * of_epoch(models[name]) for name, number in epochs.items())
    return cpu * rows / REQUESTS / own.max_parallel


def of_epoch(model: RankerSettings) -> float:
    """CPU seconds of an epoch over 30,000 requests of the shop."""
    found = SECONDS.get(model.extractor, SECONDS["mfn"])
    if isinstance(model, SimilaritySettings) and model.similarity_interests > 32:
        found *= 1.5
    return found
