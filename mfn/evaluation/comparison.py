"""Results of a model in a slice, and comparisons of a model with the base model.

These are rows of `evaluation/metrics` and `evaluation/comparisons` as Python objects. Their number
is models times slices and does not grow with the data.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mfn.metrics import AUC, METRICS


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A row of `evaluation/metrics`: one model in one slice of one day.

    Attributes:
        values: value of each metric by name; None where it is undefined.
        candidates_from: whether candidates were logged or drawn, and how they were drawn.
    """

    run_date: datetime.date
    model: str
    slice: str
    slice_value: str
    requests: int
    candidates: int
    clicks: int
    values: Mapping[str, float | None]
    candidates_from: str | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Measured:
        """Create it from a row of the table, by column name."""
        names = {metric.name for metric in METRICS}
        other = {name: value for name, value in row.items() if name not in names}
        return cls(**other, values={name: row[name] for name in names})

    def as_row(self) -> dict[str, Any]:
        """The row of the table, by column name."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**row.pop("values"), **row}

    @property
    def auc(self) -> float | None:
        """The AUC; RelaImpr is computed from it."""
        return self.values[AUC.name]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row of `evaluation/comparisons`: a model and the base model in one slice of one day."""

    run_date: datetime.date
    model: str
    base_model: str
    slice: str
    slice_value: str
    auc: float | None
    base_auc: float | None
    relaimpr: float | None


def relaimpr(auc: float | None, base_auc: float | None) -> float | None:
    """RelaImpr in per cent (eq. 13): ((AUC - 0.5) / (AUC of base - 0.5) - 1) * 100.

    None if one of the AUCs is None, or if the base AUC is not above 0.5: below 0.5, the formula
    gives a worse model the larger gain.
    """
    if auc is None or base_auc is None or base_auc <= 0.5:
        return None
    return ((auc - 0.5) / (base_auc - 0.5) - 1) * 100


def compare(metrics: Iterable[Measured], base_model: str) -> list[Comparison]:
    """Compare every model, and the base model itself, with the base model.

    A row is compared with the row of the base model in the same slice of the same day.
    """
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
                run_date=one.run_date,
                model=one.model,
                base_model=base_model,
                slice=one.slice,
                slice_value=one.slice_value,
                auc=one.auc,
                base_auc=base_auc,
                relaimpr=relaimpr(one.auc, base_auc),
            )
        )
    return compared


def standard_error(auc: float | None, clicks: int, others: int) -> float | None:
    """Standard error of an AUC, approximately; None if auc is None.

    Hanley and McNeil (1982), equation 2, with their exponential approximation. It assumes
    independent candidates, but the candidates of one request are slightly dependent.
    """
    if auc is None:
        return None
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (clicks - 1) * (q1 - auc**2) + (others - 1) * (q2 - auc**2)
    return math.sqrt(max(variance, 0.0) / (clicks * others))


def constant_logloss(clicks: int, candidates: int) -> float | None:
    """Log loss in nats of always predicting the click rate; None without candidates."""
    if candidates == 0:
        return None
    shares = (clicks / candidates, 1 - clicks / candidates)
    return -sum(share * math.log(share) for share in shares if share > 0)
