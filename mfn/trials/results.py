"""Metrics of models on a test window over several seeds, with confidence intervals.

Legend: n candidates of the test window, R draws of users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfn.evaluation.bootstrap import (
    LEVEL,
    Interval,
    auc,
    difference_interval,
    draw_users,
    gauc_by_impressions,
    relaimpr_interval,
    resampled_aucs,
)
from mfn.trials.trial import Candidates, Final, loss, read_candidates

DRAWS = 1000
SEED = 29


@dataclass(frozen=True)
class Result:
    """Metrics of a model over its seeds.

    Attributes:
        auc_mean, auc_std: over the seeds; the sample standard deviation, NaN for one seed.
        gauc_mean: mean over the seeds of GAUC: AUC per user, weighted by the user's candidates.
        users_left_out: number of users without an AUC, who clicked all candidates or none.
        logloss_mean: mean over the seeds, in nats.
        relaimpr: in per cent, against Base; both with the mean of the same seeds' scores.
        candidates_per_second: in training, with one thread.
    """

    model: str
    seeds: int
    auc_mean: float
    auc_std: float
    gauc_mean: float
    users_left_out: int
    logloss_mean: float
    relaimpr: Interval
    parameters: int
    candidates_per_second: float
    learning_rate: float
    epochs: int

    def as_json(self) -> dict[str, float | int | None]:
        """The metrics that other programs read; None for a value that is NaN or infinite."""
        numbers: dict[str, float | int] = {
            "auc_mean": self.auc_mean,
            "auc_std": self.auc_std,
            "logloss_mean": self.logloss_mean,
            "relaimpr": self.relaimpr.value,
            "relaimpr_low": self.relaimpr.low,
            "relaimpr_high": self.relaimpr.high,
            "seeds": self.seeds,
            "parameters": self.parameters,
        }
        return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


@dataclass(frozen=True)
class Drawn:
    """AUC of a model's scores, averaged over seeds: on all users, and on each draw of users [R]."""

    auc: float
    aucs_R: np.ndarray

    def less(self, other: Drawn, level: float = LEVEL) -> Interval:
        """Difference of AUC: this model minus the other one, on the same draws."""
        return difference_interval(self.auc, other.auc, self.aucs_R, other.aucs_R, level)


@dataclass(frozen=True)
class Results:
    """Metrics of all models of a comparison, and the draws for differences between two of them.

    Attributes:
        drawn: by number of seeds and model: with the mean scores of that many of its seeds, the
            first ones.
    """

    base: str
    of_models: Mapping[str, Result]
    drawn: Mapping[int, Mapping[str, Drawn]]

    def difference(self, model: str, other: str, level: float = LEVEL) -> Interval:
        """Difference of AUC, `model` minus `other`, each with the mean scores of the same seeds.

        The mean scores of more seeds are better ones, so a model with more seeds is compared with
        as many of them as the other one has.
        """
        drawn = self.drawn[min(self.of_models[one].seeds for one in (model, other))]
        return drawn[model].less(drawn[other], level)


def results(trials: Mapping[str, Mapping[int, Final]], base: str) -> Results:
    """Metrics of finished trainings.

    Args:
        trials: by model and seed. Another model than the base may have fewer seeds; they are then
            the first ones of the others'.
        base: name of the model that RelaImpr compares with.

    Raises:
        NotPublished: one of the trainings has not finished.
        ValueError: models were scored on different versions of the test rows.
    """
    folders = {one.splits.folder.rpartition("/")[2] for s in trials.values() for one in s.values()}
    if len(folders) != 1:
        raise ValueError(f"expected one version of the splits for all models, got {folders}")
    candidates = read_candidates(next(iter(trials[base].values())).splits.folder)
    drawn_RU = draw_users(candidates.users, DRAWS, SEED)
    scores = {name: [one.scores() for one in seeds.values()] for name, seeds in trials.items()}

    def draws_of(name: str, seeds: int) -> Drawn:
        mean_n = np.mean(scores[name][:seeds], axis=0)
        aucs_R = resampled_aucs(candidates.labels_n, mean_n, candidates.users_n, drawn_RU)
        return Drawn(auc(candidates.labels_n, mean_n), aucs_R)

    drawn = {
        seeds: {name: draws_of(name, seeds) for name in scores if len(scores[name]) >= seeds}
        for seeds in sorted({len(of_seeds) for of_seeds in scores.values()})
    }
    return Results(
        base,
        {
            name: _result(name, list(seeds.values()), scores[name], candidates, drawn, base)
            for name, seeds in trials.items()
        },
        drawn,
    )


def _result(
    name: str,
    trials: list[Final],
    scores: list[np.ndarray],
    candidates: Candidates,
    drawn: Mapping[int, Mapping[str, Drawn]],
    base: str,
) -> Result:
    manifests: list[dict[str, Any]] = [one.manifest() for one in trials]
    labels_n, users_n = candidates.labels_n, candidates.users_n
    aucs = [auc(labels_n, scores_n) for scores_n in scores]
    gaucs = [gauc_by_impressions(labels_n, scores_n, users_n) for scores_n in scores]
    own, of_base = (drawn[len(trials)][one] for one in (name, base))
    train = trials[0].settings.train
    return Result(
        model=name,
        seeds=len(trials),
        auc_mean=float(np.mean(aucs)),
        auc_std=float(np.std(aucs, ddof=1)) if len(aucs) > 1 else math.nan,
        gauc_mean=float(np.mean([one.value for one in gaucs])),
        users_left_out=gaucs[0].users_left_out,
        logloss_mean=float(np.mean([loss(labels_n, scores_n) for scores_n in scores])),
        relaimpr=relaimpr_interval(own.auc, of_base.auc, own.aucs_R, of_base.aucs_R),
        parameters=manifests[0]["parameters"],
        candidates_per_second=float(
            np.mean([one["train"]["candidates_per_second"] for one in manifests])
        ),
        learning_rate=train.learning_rate,
        epochs=train.epochs,
    )
