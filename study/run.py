"""Run the study on one data set, from request rows to results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.trials.compare import Compared, train_and_compare
from mfn.trials.plan import Plan
from mfn.trials.trial import read_candidates
from mfn.windows import Windows, windows
from study.oracle import oracle_auc


@dataclass(frozen=True)
class Studied:
    """Results of the study on a data set.

    Attributes:
        oracle: AUC of the true probabilities; None if the logs are not simulated.
        counts: counts of the real date: test users, and rows and candidates of each window.
        days: windows of the real date.
        earlier_days: windows of the earlier date.
    """

    title: str
    about: str
    compared: Compared
    oracle: float | None
    counts: Mapping[str, int]
    days: Windows
    earlier_days: Windows


def study(title: str, about: str, plan: Plan) -> Studied:
    """Train and compare the models of a plan, and count its rows."""
    compared = train_and_compare(plan, title)
    days, earlier_days = (windows(one.date, one.windows) for one in (plan.real, plan.earlier))
    oracle = oracle_auc(plan.real)
    return Studied(title, about, compared, oracle, counts(plan.real), days, earlier_days)


def counts(settings: Settings) -> dict[str, int]:
    """Test users, and rows and candidates of each window."""
    splits = Splits.published(settings)
    parts = splits.manifest["splits"]
    counts = {"users": read_candidates(splits.folder).users}
    for split in ("pretraining", "train", "test"):
        for count in ("rows", "candidates"):
            counts[f"{split} {count}"] = int(parts[split][count])
    return counts
