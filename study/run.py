"""One data set of the study, from rows to results."""

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
    """What was found on a data set.

    Attributes:
        counts: of the real date: test users, and rows and candidates of each window.
        days: the windows of the real date.
        earlier_days: those of the earlier one.
    """

    title: str
    about: str
    compared: Compared
    oracle: float | None
    counts: Mapping[str, int]
    days: Windows
    earlier_days: Windows


def study(title: str, about: str, plan: Plan) -> Studied:
    """Train, compare and count."""
    compared = train_and_compare(plan, title)
    days, earlier_days = (windows(one.date, one.windows) for one in (plan.real, plan.earlier))
    oracle = oracle_auc(plan.real)
    return Studied(title, about, compared, oracle, counts(plan.real), days, earlier_days)


def counts(settings: Settings) -> dict[str, int]:
    """Test users, and rows and candidates of each window."""
    splits = Splits.published(settings)
    parts = splits.manifest["splits"]
    found = {"users": read_candidates(splits.folder).users}
    for split in ("pretraining", "train", "test"):
        for what in ("rows", "candidates"):
            found[f"{split} {what}"] = int(parts[split][what])
    return found
