"""Run the study on one data set: the choice of settings, then from there to results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.trials.compare import Chosen, train_and_measure
from mfn.trials.plan import Choice, curves_by_step, finals, mean_points
from mfn.trials.results import Results
from mfn.trials.several import run_all
from mfn.trials.trial import Point, read_candidates
from mfn.windows import Windows, windows
from study.causes import MFN
from study.data_sets import DataSet
from study.oracle import oracle_auc
from study.purity import Purity, purities


@dataclass(frozen=True)
class Studied:
    """Results of the study on a data set.

    Attributes:
        found: metrics on the real test window.
        choices: by model that is tuned itself, the chosen settings.
        points: by model and learning rate, AUC on the earlier test window by epoch; empty where
            the choices are those of another data set.
        steps: by model, AUC on the earlier test window, several times an epoch.
        purities: by model, how well its centers tell the true interests apart; empty if the logs
            are not simulated.
        oracle: AUC of the true probabilities; None if the logs are not simulated.
        counts: counts of the real date: test users, and rows and candidates of each window.
        days: windows of the real date.
        earlier_days: windows of the earlier date, if there is one.
    """

    title: str
    about: str
    found: Results
    choices: Mapping[str, Choice]
    points: Mapping[str, Mapping[float, list[Point]]]
    steps: Mapping[str, list[Point]]
    purities: Mapping[str, Purity]
    oracle: float | None
    counts: Mapping[str, int]
    days: Windows
    earlier_days: Windows | None = None


def study(data_set: DataSet, chosen: Chosen) -> Studied:
    """Train and compare the models of a data set with these choices, and count its rows."""
    plan, title = data_set.plan, data_set.source.title
    found = train_and_measure(plan, chosen.choices, title)
    by_step = curves_by_step(plan, data_set.by_step, MFN, chosen.choices[MFN])
    run_all(
        [one for seeds in by_step.values() for one in seeds],
        f"{title}: by step",
        plan.real.compare.max_parallel,
    )
    oracle = oracle_auc(plan.real)
    return Studied(
        title=title,
        about=data_set.source.about,
        found=found,
        choices=chosen.choices,
        points=chosen.points if plan.earlier is not None else {},
        steps={
            name: mean_points([one.points() for one in seeds]) for name, seeds in by_step.items()
        },
        purities={} if oracle is None else purities(finals(plan, chosen.choices)),
        oracle=oracle,
        counts=counts(plan.real),
        days=windows(plan.real.date, plan.real.windows),
        earlier_days=(
            None if plan.earlier is None else windows(plan.earlier.date, plan.earlier.windows)
        ),
    )


def counts(settings: Settings) -> dict[str, int]:
    """Test users, and rows and candidates of each window."""
    splits = Splits.published(settings)
    parts = splits.manifest["splits"]
    counts = {"users": read_candidates(splits.folder).users}
    for split in ("pretraining", "train", "test"):
        for count in ("rows", "candidates"):
            counts[f"{split} {count}"] = int(parts[split][count])
    return counts
