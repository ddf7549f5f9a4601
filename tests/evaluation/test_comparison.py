"""RelaImpr (eq. 13), the standard error of an AUC, and the log loss of the click rate."""

from __future__ import annotations

import datetime
import math
from dataclasses import fields

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mfn.evaluation.comparison import (
    Comparison,
    Measured,
    compare,
    constant_logloss,
    relaimpr,
    standard_error,
)
from mfn.schema import COMPARISONS, METRICS

DAY = datetime.date(2026, 3, 8)


def metric(model: str, auc: float | None, part: str = "all", day: datetime.date = DAY) -> Measured:
    return Measured(
        run_date=day,
        model=model,
        slice="s",
        slice_value=part,
        requests=10,
        candidates=100,
        clicks=20,
        values={"auc": auc, "logloss": 0.4},
    )


@pytest.mark.parametrize(
    ("auc", "base_auc", "expected"),
    [
        (0.66, 0.58, 100.0),
        (0.58, 0.58, 0.0),
        (0.54, 0.58, -50.0),
        (0.45, 0.60, -150.0),
        (None, 0.6, None),
        (0.6, None, None),
        (0.6, 0.5, None),
        (0.45, 0.49, None),  # the formula would give the worse model +400
        (0.6, 0.49, None),
    ],
)
def test_relaimpr_is_the_gain_over_chance_relative_to_that_of_the_base_model(
    auc: float | None, base_auc: float | None, expected: float | None
) -> None:
    got = relaimpr(auc, base_auc)
    assert got == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_each_model_is_compared_with_the_base_model_in_the_same_slice_and_day() -> None:
    day_before = DAY - datetime.timedelta(days=1)
    metrics = [
        metric("base", 0.6),
        metric("mfn", 0.7),
        metric("base", 0.55, "0"),
        metric("mfn", 0.6, "0"),
        metric("mfn", 0.6, "without_base"),
        metric("base", 0.9, day=day_before),
        metric("mfn", 0.7, day=day_before),
    ]
    got = {(c.run_date, c.model, c.slice_value): c for c in compare(metrics, "base")}
    assert len(got) == len(metrics)
    values = {key: c.relaimpr for key, c in got.items() if key[1] == "mfn"}
    assert values == {
        (DAY, "mfn", "all"): pytest.approx(100),
        (DAY, "mfn", "0"): pytest.approx(100),
        (DAY, "mfn", "without_base"): None,
        (day_before, "mfn", "all"): pytest.approx(-50),
    }
    assert got[DAY, "base", "all"] == Comparison(
        run_date=DAY,
        model="base",
        base_model="base",
        slice="s",
        slice_value="all",
        auc=0.6,
        base_auc=0.6,
        relaimpr=0.0,
    )


def test_rows_have_the_columns_of_their_tables() -> None:
    row = metric("mfn", 0.7).as_row()
    assert set(row) == set(METRICS.columns.names)
    assert Measured.of_row(row) == metric("mfn", 0.7)
    assert [field.name for field in fields(Comparison)] == COMPARISONS.columns.names


def test_the_standard_error_is_the_standard_deviation_of_auc_over_many_samples() -> None:
    # Hanley and McNeil's approximation is exact for exponential scores: AUC 3 / (3 + 1).
    random = np.random.default_rng(0)
    labels = np.repeat([1, 0], [40, 160])
    aucs = [
        roc_auc_score(labels, random.exponential(np.where(labels == 1, 3.0, 1.0)))
        for _ in range(600)
    ]
    assert standard_error(0.75, 40, 160) == pytest.approx(np.std(aucs), rel=0.1)
    assert standard_error(None, 0, 10) is None


def test_constant_logloss_is_the_log_loss_of_predicting_the_click_rate() -> None:
    labels = [1] * 3 + [0] * 7
    assert constant_logloss(3, 10) == pytest.approx(log_loss(labels, [0.3] * 10))
    assert constant_logloss(0, 10) == 0
    assert constant_logloss(5, 10) == pytest.approx(math.log(2))
    assert constant_logloss(0, 0) is None
