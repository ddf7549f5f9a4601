"""AUC and log loss on Spark equal those of scikit-learn, for any ties, models and slices."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from sklearn.metrics import log_loss, roc_auc_score

from mfn.evaluation.aggregate import Slice, aggregate, count_requests, slices
from mfn.metrics import METRICS, Metric

TIME = datetime.datetime(2026, 3, 8, tzinfo=datetime.UTC)
CANDIDATE = (
    "model string, user_id string, request_id string, request_time timestamp, item_id string, "
    "label int, score double"
)
EVERYTHING = [Slice("all", "all", "true")]
Candidates = Sequence[tuple[float, int]]
"""Score and label of each candidate."""


def frame(spark: SparkSession, models: Mapping[str, Candidates]) -> DataFrame:
    rows = [
        (model, "u", f"r{n // 2}", TIME, f"i{n}", label, score, n)
        for model, candidates in models.items()
        for n, (score, label) in enumerate(candidates)
    ]
    return spark.createDataFrame(
        rows,
        f"{CANDIDATE}, history_length int",
    )


def measured(spark: SparkSession, models: Mapping[str, Candidates]) -> dict[str, Row]:
    return {row.model: row for row in aggregate(frame(spark, models), EVERYTHING).collect()}


def test_auc_counts_won_pairs_and_half_of_the_tied_pairs(spark: SparkSession) -> None:
    # Clicked .2 .5 .9, unclicked .1 .2 .5: they win 1+½, 2+½ and 3 of 9 pairs.
    candidates = [(0.2, 1), (0.5, 1), (0.9, 1), (0.1, 0), (0.2, 0), (0.5, 0)]
    row = measured(spark, {"m": candidates})["m"]
    assert row.auc == pytest.approx(7 / 9, abs=1e-15)
    assert (row.candidates, row.clicks) == (6, 3)
    likelihoods = [0.2, 0.5, 0.9, 1 - 0.1, 1 - 0.2, 1 - 0.5]
    assert row.logloss == pytest.approx(-sum(map(math.log, likelihoods)) / 6, abs=1e-14)


def test_auc_is_null_without_both_labels_and_half_when_all_scores_tie(spark: SparkSession) -> None:
    rows = measured(
        spark,
        {
            "only_clicks": [(0.2, 1), (0.3, 1)],
            "no_clicks": [(0.2, 0), (0.3, 0)],
            "one": [(0.4, 1)],
            "tied": [(0.3, 1), (0.3, 0), (0.3, 0)],
            "worst": [(0.1, 1), (0.2, 0)],
        },
    )
    got = {model: row.auc for model, row in rows.items()}
    assert got == {"only_clicks": None, "no_clicks": None, "one": None, "tied": 0.5, "worst": 0.0}
    assert rows["only_clicks"].logloss == pytest.approx(-(math.log(0.2) + math.log(0.3)) / 2)


def test_scores_of_exactly_0_and_1_are_clipped_in_the_log_loss_and_ranked_in_auc(
    spark: SparkSession,
) -> None:
    row = measured(spark, {"m": [(0.0, 1), (1.0, 0), (-0.0, 0), (1.0, 1)]})["m"]
    # 0.0 ties with -0.0, and 1.0 with 1.0: (0 + ½) + (½ + 1) of 4 pairs.
    assert row.auc == 0.5
    clipped = [1e-15, 1 - (1 - 1e-15), 1 - 1e-15, 1 - 1e-15]
    assert row.logloss == pytest.approx(-sum(map(math.log, clipped)) / 4, rel=1e-12)


@st.composite
def many_models(draw: st.DrawFn) -> dict[str, Candidates]:
    """Up to 60 models, so that one call of Spark tests many cases."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    models: dict[str, Candidates] = {}
    for number in range(draw(st.integers(20, 60))):
        size = int(random.integers(1, 80))
        grid = int(random.choice([1, 2, 3, 10, 1000, 10**9]))
        scores = random.integers(0, grid + 1, size) / grid
        if random.random() < 0.5:
            scores = scores ** random.integers(2, 30)  # mostly small, like click probabilities
        labels = (random.random(size) < random.choice([0.02, 0.3, 0.9])).astype(int)
        models[f"m{number}"] = list(zip(scores.tolist(), labels.tolist(), strict=True))
    return models


@given(models=many_models())
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_auc_and_log_loss_equal_those_of_scikit_learn(
    spark: SparkSession, models: dict[str, Candidates]
) -> None:
    rows = measured(spark, models)
    assert rows.keys() == models.keys()
    for model, candidates in models.items():
        scores, labels = map(np.array, zip(*candidates, strict=True))
        row = rows[model]
        assert (row.candidates, row.clicks) == (len(labels), labels.sum())
        if 0 < labels.sum() < len(labels):
            assert row.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12), model
        else:
            assert row.auc is None
        clipped = np.clip(scores, 1e-15, 1 - 1e-15)
        expected = log_loss(labels, clipped, labels=[0, 1])
        assert row.logloss == pytest.approx(expected, abs=1e-12), model


def test_a_slice_is_measured_on_its_own_candidates_only(spark: SparkSession) -> None:
    random = np.random.default_rng(3)
    scores = random.integers(0, 20, 400) / 20
    labels = (random.random(400) < scores).astype(int)
    candidates = list(zip(scores.tolist(), labels.tolist(), strict=True))
    scored = frame(spark, {"a": candidates, "b": [(1 - s, y) for s, y in candidates]})
    rows = aggregate(scored, slices((1, 10, 50))).collect()
    got = {(row.model, row.slice, row.slice_value): row for row in rows}
    parts = {"0": (0, 1), "1-9": (1, 10), "10-49": (10, 50), "50+": (50, 400), "all": (0, 400)}
    assert len(got) == 2 * len(parts)
    for value, (first, end) in parts.items():
        kind = "all" if value == "all" else "history_length"
        s, y = scores[first:end], labels[first:end]
        if len(set(y)) < 2:
            assert got["a", kind, value].auc is None
            continue
        assert got["a", kind, value].auc == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert got["b", kind, value].auc == pytest.approx(1 - roc_auc_score(y, s), abs=1e-12)
        assert got["a", kind, value].candidates == len(y)


def test_order_and_partitions_of_rows_do_not_change_the_result(spark: SparkSession) -> None:
    random = np.random.default_rng(5)
    candidates = [(float(s), int(s > random.random())) for s in random.random(3000)]
    backwards = frame(spark, {"m": candidates}).orderBy(F.desc("item_id")).coalesce(1)
    spread = frame(spark, {"m": candidates}).repartition(7)
    assert aggregate(backwards, EVERYTHING).collect() == aggregate(spread, EVERYTHING).collect()


def test_more_models_and_slices_take_no_more_shuffles(spark: SparkSession) -> None:
    models = {name: [(0.2, 1), (0.1, 0)] for name in ("a", "b", "c")}
    plan = aggregate(frame(spark, models), slices((1, 10, 50)))._jdf.queryExecution().executedPlan()
    assert plan.toString().count("Exchange") == 2


def test_a_request_counts_once_and_each_bad_value_counts(spark: SparkSession) -> None:
    rows = [
        ("m", "u", "r0", TIME, "i0", 1, 0.5, 0),
        ("m", "u", "r0", TIME, "i1", 0, math.nan, 0),
        ("m", "u", "r1", TIME, "i0", 0, 1.5, 3),
        ("m", "u", "r1", TIME, "i1", 0, -0.1, 3),
        ("m", "u", "r2", TIME, "i1", 2, None, 3),
        ("m", "u", "r2", TIME, "i1", 0, 1.0, 12),
    ]
    scored = spark.createDataFrame(
        rows,
        f"{CANDIDATE}, history_length int",
    )
    got = {row.slice_value: row for row in count_requests(scored, slices((1, 10))).collect()}
    columns = ("requests", "candidates", "bad_scores", "bad_labels")
    assert {value: tuple(row[name] for name in columns) for value, row in got.items()} == {
        "all": (3, 6, 4, 1),
        "0": (1, 2, 1, 0),
        "1-9": (2, 3, 3, 1),
        "10+": (1, 1, 0, 0),
    }


def test_the_fingerprint_depends_on_candidates_and_labels_but_not_on_their_order(
    spark: SparkSession,
) -> None:
    rows = [("r0", "i0", 0), ("r0", "i1", 1), ("r1", "i0", 0)]
    variants = {
        "rows": rows,
        "backwards": rows[::-1],
        "other_label": [("r0", "i0", 1), *rows[1:]],
        "other_item": [("r0", "i2", 0), *rows[1:]],
        "labels_swapped": [("r0", "i0", 1), ("r0", "i1", 0), rows[2]],
        "one_twice": [rows[0], rows[0], rows[1]],
    }
    scored = spark.createDataFrame(
        [
            (name, "u", row[0], TIME, *row[1:], 0.5)
            for name, variant in variants.items()
            for row in variant
        ],
        CANDIDATE,
    )
    got = {row.model: row.fingerprint for row in count_requests(scored, EVERYTHING).collect()}
    assert got["rows"] == got.pop("backwards")
    assert len(set(got.values())) == len(got) == 5


@pytest.mark.parametrize("distinct", [False, True])
def test_a_request_is_one_users_request_id_at_one_time(spark: SparkSession, distinct: bool) -> None:
    """Two users share an id, and one of them has it again on the next day; with a control."""
    later = TIME + datetime.timedelta(days=1)
    requests = [("u", "r", TIME), ("v", "r", TIME), ("v", "r", later)]
    rows = [
        ("m", user, f"{request}{n}" if distinct else request, time, item, 0, 0.5)
        for n, (user, request, time) in enumerate(requests)
        for item in ("i0", "i1")
    ]
    counted = count_requests(spark.createDataFrame(rows, CANDIDATE), EVERYTHING).first()
    assert counted is not None
    assert (counted.requests, counted.candidates) == (3, 6)


@pytest.mark.parametrize(
    ("edges", "names"),
    [
        ((1, 10, 50), ["all", "0", "1-9", "10-49", "50+"]),
        ((1,), ["all", "0", "1+"]),
        ((5, 6), ["all", "0-4", "5", "6+"]),
    ],
)
def test_slices_of_history_length_are_named_by_their_range(
    edges: tuple[int, ...], names: list[str]
) -> None:
    assert [one.value for one in slices(edges)] == names


def test_one_entry_is_enough_to_add_a_metric(spark: SparkSession) -> None:
    click_rate = Metric(
        name="click_rate",
        title="click rate",
        unit="0 to 1",
        comment="share of clicked candidates",
        explanation="The share of candidates that were clicked.",
        decimals=3,
        higher_is_better=True,
        needs_probabilities=False,
        of_block=lambda: F.sum("click"),
        value=lambda: F.sum("click_rate") / (F.sum("clicks") + F.sum("others")),
    )
    scored = frame(spark, {"m": [(0.2, 1), (0.9, 0), (0.5, 0), (0.4, 1), (0.1, 1)]})
    (row,) = aggregate(scored, EVERYTHING, [*METRICS, click_rate]).collect()
    assert row.click_rate == pytest.approx(0.6)
    # Control: the other metrics do not change.
    (without,) = aggregate(scored, EVERYTHING).collect()
    assert row.asDict() == {**without.asDict(), "click_rate": row.click_rate}
