"""What evaluation says of a model in a slice, and of two models beside each other.

Rows of `evaluation/metrics` and `evaluation/comparisons` as plain values: there are as many as
models times slices, however large the data.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from typing import NamedTuple

ORACLE = "oracle"
"""Stands among the models for the probabilities with which simulated clicks were drawn."""

POPULARITY = "popularity"
"""Stands among the models for how often each candidate's item was chosen before the test window."""


class Metric(NamedTuple):
    """A row of `evaluation/metrics`."""

    run_date: datetime.date
    model: str
    slice: str
    slice_value: str
    requests: int
    candidates: int
    clicks: int
    auc: float | None
    logloss: float | None
    candidates_from: str | None = None


class Comparison(NamedTuple):
    """A row of `evaluation/comparisons`."""

    run_date: datetime.date
    model: str
    base_model: str
    slice: str
    slice_value: str
    auc: float | None
    base_auc: float | None
    relaimpr: float | None


def relaimpr(auc: float | None, base_auc: float | None) -> float | None:
    """RelaImpr in per cent (eq. 13): how much further from chance than the base model.

    ((AUC - 0.5) / (AUC of base - 0.5) - 1) * 100. None if one of the two is, or if the base model
    is no better than chance: below it a worse model would have the larger gain.
    """
    if auc is None or base_auc is None or base_auc <= 0.5:
        return None
    return ((auc - 0.5) / (base_auc - 0.5) - 1) * 100


def compare(metrics: Iterable[Metric], base_model: str) -> list[Comparison]:
    """Every model, the base model too, beside the base model in the same slice of the same day."""
    metrics = list(metrics)
    base = {
        (one.run_date, one.slice, one.slice_value): one.auc
        for one in metrics
        if one.model == base_model
    }
    compared = []
    for one in metrics:
        base_auc = base.get((one.run_date, one.slice, one.slice_value))
        compared.append(
            Comparison(
                one.run_date,
                one.model,
                base_model,
                one.slice,
                one.slice_value,
                one.auc,
                base_auc,
                relaimpr(one.auc, base_auc),
            )
        )
    return compared


def standard_error(auc: float | None, clicks: int, others: int) -> float | None:
    """About how far an AUC is from that of endless data, by chance alone.

    Hanley and McNeil (1982), equation 2, with their exponential approximation. It takes
    candidates as independent, which those of a request are not quite. None where auc is.
    """
    if auc is None:
        return None
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (clicks - 1) * (q1 - auc**2) + (others - 1) * (q2 - auc**2)
    return math.sqrt(max(variance, 0.0) / (clicks * others))


def constant_logloss(clicks: int, candidates: int) -> float | None:
    """Log loss in nats of saying the click rate itself each time; None without candidates."""
    if candidates == 0:
        return None
    shares = (clicks / candidates, 1 - clicks / candidates)
    return -sum(share * math.log(share) for share in shares if share > 0)
