"""One data set of the study, from rows to results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.trials.plan import Choice, Plan, choose, curves, finals
from mfn.trials.results import Results, results
from mfn.trials.several import run_all
from mfn.trials.trial import Point, read_candidates
from study.oracle import oracle_auc


@dataclass(frozen=True)
class Studied:
    """What was found on a data set.

    Attributes:
        points: by model and learning rate, what choices follow from.
        counts: of the real date: test users, and rows and candidates of each window.
    """

    title: str
    about: str
    points: Mapping[str, Mapping[float, list[Point]]]
    choices: Mapping[str, Choice]
    found: Results
    oracle: float | None
    counts: Mapping[str, int]


def study(title: str, about: str, plan: Plan, base: str) -> Studied:
    """Choose for every model, train all seeds, and measure; what has run is left alone."""
    to_choose = curves(plan)
    run_all([one for rates in to_choose.values() for one in rates.values()], f"{title}: choosing")
    points = {
        name: {rate: one.points() for rate, one in rates.items()}
        for name, rates in to_choose.items()
    }
    choices = {name: choose(of_rates) for name, of_rates in points.items()}
    trials = finals(plan, choices)
    run_all([one for seeds in trials.values() for one in seeds.values()], f"{title}: training")
    found = results(trials, base)
    return Studied(title, about, points, choices, found, oracle_auc(plan.real), counts(plan.real))


def counts(settings: Settings) -> dict[str, int]:
    """Test users, and rows and candidates of each window."""
    splits = Splits.published(settings)
    parts = splits.manifest["splits"]
    found = {"users": read_candidates(splits.folder).users}
    for split in ("pretraining", "train", "test"):
        for what in ("rows", "candidates"):
            found[f"{split} {what}"] = int(parts[split][what])
    return found
