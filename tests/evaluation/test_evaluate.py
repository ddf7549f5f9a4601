"""The job `evaluate`: what it writes and refuses, and that it does not change other days."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import log_loss, roc_auc_score

from mfn import tables
from mfn.errors import DataRefused, NotPublished
from mfn.evaluation.evaluate import evaluate
from mfn.evaluation.yardsticks import read_truth
from mfn.schema import COMPARISONS, EVENTS, METRICS, PREDICTIONS, TRUTH
from mfn.settings import Settings

DAY = datetime.date(2026, 3, 8)
DAY_BEFORE = datetime.date(2026, 3, 7)
SIZE = 24
LABELS = [1 if n % 3 == 0 or n == 7 else 0 for n in range(SIZE)]
BASE = [((n * 7) % 11) / 11 for n in range(SIZE)]
MFN = [0.1 + 0.5 * LABELS[n] + ((n * 5) % 7) / 20 for n in range(SIZE)]
ORACLE = [0.2 + 0.6 * LABELS[n] for n in range(SIZE)]
CHOSEN = [(n * 3) % 5 for n in range(SIZE)]
"""Number of clicks on item n on the day before."""

TIME = datetime.datetime(2026, 3, 8, tzinfo=datetime.UTC)
"""Time of the requests."""

Make = Callable[..., Settings]
Scores = Mapping[str, Sequence[float]]


def request(n: int) -> str:
    return f"r{n // 4}"


def write_predictions(
    spark: SparkSession,
    settings: Settings,
    scores: Scores,
    labels: Sequence[int] = LABELS,
    items: str = "i",
    history: int = 4,
) -> None:
    """Write predictions, and events if there are none yet.

    Request number r has 4 candidates and a history of `history` * r behaviours.
    """
    if not tables.is_there(spark, settings.root, EVENTS):
        before = settings.date - datetime.timedelta(days=1)
        events = [(before, f"{before} 12:00", "click", f"i{n}") for n in range(SIZE)]
        write_events(spark, settings, [e for n, e in enumerate(events) for _ in range(CHOSEN[n])])
    rows = [
        (
            settings.date,
            model,
            request(n),
            "u",
            TIME,
            f"{items}{n}",
            labels[n],
            score,
            n // 4 * history,
        )
        for model, of_model in scores.items()
        for n, score in enumerate(of_model)
    ]
    frame = spark.createDataFrame(rows, PREDICTIONS.columns)
    where: dict[str, Sequence[Any]] = {"run_date": [settings.date], "model": sorted(scores)}
    tables.replace(frame, settings.root, PREDICTIONS, where)


def write_events(
    spark: SparkSession,
    settings: Settings,
    events: Sequence[tuple[datetime.date, str, str, str]],
) -> None:
    """Write clean events, each given as day of the folder, time in UTC, type and item."""
    rows = [
        (day, f"e{n}", datetime.datetime.fromisoformat(f"{time}+00:00"), "u", kind, item)
        for n, (day, time, kind, item) in enumerate(events)
    ]
    frame = spark.createDataFrame([(*row, None, None, None) for row in rows], EVENTS.columns)
    tables.replace(frame, settings.root, EVENTS, {"dt": sorted({event[0] for event in events})})


def write_truth(
    spark: SparkSession, settings: Settings, rows: Sequence[tuple[str, str, str, float]]
) -> Path:
    folder = Path(settings.logs_folder("truth")) / f"dt={settings.date}"
    spark.createDataFrame(rows, TRUTH).write.mode("overwrite").parquet(str(folder))
    return folder


def truth_rows(scores: Sequence[float] = ORACLE) -> list[tuple[str, str, str, float]]:
    return [(request(n), "u", f"i{n}", score) for n, score in enumerate(scores)]


def rows_of(spark: SparkSession, settings: Settings, table: Any) -> list[Any]:
    return sorted(tables.read(spark, settings.root, table, "evaluate").collect())


def test_metrics_and_comparisons_equal_those_computed_with_scikit_learn(
    spark: SparkSession, make_settings: Make
) -> None:
    settings = make_settings(evaluate={"history_edges": (1, 10)})
    write_predictions(spark, settings, {"base": BASE, "mfn": MFN})
    counts = evaluate(spark, settings)

    metrics = {(r.model, r.slice_value): r for r in rows_of(spark, settings, METRICS)}
    parts = {"all": range(24), "0": range(4), "1-9": range(4, 12), "10+": range(12, 24)}
    by_model: dict[str, Sequence[float]] = {"base": BASE, "mfn": MFN, "popularity": CHOSEN}
    assert metrics.keys() == {(model, part) for model in by_model for part in parts}
    for (model, part), row in metrics.items():
        inside = parts[part]
        labels = [LABELS[n] for n in inside]
        scores = [by_model[model][n] for n in inside]
        assert row.run_date == DAY
        assert row.slice == ("all" if part == "all" else "history_length")
        assert (row.requests, row.candidates, row.clicks) == (
            len(inside) // 4,
            len(inside),
            sum(labels),
        )
        assert row.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert row.candidates_from == "logged"
        if model == "popularity":
            assert row.logloss is None
            continue
        clipped = [min(max(s, 1e-15), 1 - 1e-15) for s in scores]
        assert row.logloss == pytest.approx(log_loss(labels, clipped), abs=1e-12)

    comparisons = {(r.model, r.slice_value): r for r in rows_of(spark, settings, COMPARISONS)}
    assert comparisons.keys() == metrics.keys()
    for (model, part), row in comparisons.items():
        auc, base = metrics[model, part].auc, metrics["base", part].auc
        assert (row.base_model, row.auc, row.base_auc) == ("base", auc, base)
        if base <= 0.5:  # so in part 0: RelaImpr is undefined there
            assert row.relaimpr is None
        else:
            assert row.relaimpr == pytest.approx(((auc - 0.5) / (base - 0.5) - 1) * 100)
    assert comparisons["mfn", "0"].relaimpr is None

    assert (counts["rows"], counts["models"]) == (72, 2)
    assert (counts["requests"], counts["candidates"], counts["clicks"]) == (6, 24, sum(LABELS))
    assert counts["auc_mfn"] == metrics["mfn", "all"].auc
    assert "candidates_without_truth" not in counts


def test_the_oracle_is_measured_only_on_candidates_with_a_known_truth(
    spark: SparkSession, make_settings: Make
) -> None:
    settings = make_settings()
    write_predictions(spark, settings, {"base": BASE, "mfn": MFN})
    # Two candidates without truth, one repeated row, and two rows of requests without
    # predictions: one has the request id of another user.
    known = truth_rows([1 - s for s in ORACLE])[2:]
    write_truth(
        spark,
        settings,
        [*known, known[0], ("elsewhere", "u", "i3", 0.9), (request(5), "v", "i5", 0.9)],
    )
    counts = evaluate(spark, settings)
    metrics = {(r.model, r.slice): r for r in rows_of(spark, settings, METRICS)}
    oracle = metrics["oracle", "all"]
    expected = roc_auc_score(LABELS[2:], [1 - s for s in ORACLE[2:]])
    assert oracle.auc == pytest.approx(expected, abs=1e-12) == 0
    assert (oracle.candidates, counts["candidates_without_truth"]) == (22, 2)
    assert metrics["mfn", "all"].candidates == 24
    assert "oracle" in {r.model for r in rows_of(spark, settings, COMPARISONS)}
    assert counts["rows"] == 24 + 24 + 24 + 22


def test_popularity_counts_only_behaviours_of_the_windows_before_the_test_window(
    spark: SparkSession, make_settings: Make
) -> None:
    settings = make_settings(
        windows={"test_days": 2, "training_days": 2, "pretraining_days": 2},
        logs={"day_time_zone": "Europe/Paris"},
    )
    window = [datetime.date(2026, 3, day) for day in range(3, 7)]  # test: 7 and 8 March
    events = []
    for n in range(SIZE):
        for turn in range((n * 7) % 11):
            day = window[turn % 4]
            kind = ("click", "cart", "purchase", "impression")[(n + turn) % 4]
            events.append((day, f"{day} 12:00", kind, f"i{n}"))
    counted = Counter(item for _, _, kind, item in events if kind != "impression")
    # None of these counts: too old; in the test window; in it, but in the folder of an earlier day.
    wrong = [
        (datetime.date(2026, 3, 2), "2026-03-02 12:00"),
        (datetime.date(2026, 3, 7), "2026-03-07 12:00"),
        (datetime.date(2026, 3, 8), "2026-03-08 12:00"),
        (datetime.date(2026, 3, 6), "2026-03-06 23:30"),
    ]
    for n in range(0, SIZE, 2):
        events += [(day, time, "click", f"i{n}") for day, time in wrong for _ in range(20)]
    write_events(spark, settings, events)
    write_predictions(spark, settings, {"base": BASE, "mfn": MFN})
    counts = evaluate(spark, settings)
    naive = [counted[f"i{n}"] for n in range(SIZE)]
    assert len(set(naive)) > 4
    assert counts["auc_popularity"] == pytest.approx(roc_auc_score(LABELS, naive), abs=1e-12)
    (row,) = [
        one
        for one in rows_of(spark, settings, COMPARISONS)
        if (one.model, one.slice) == ("popularity", "all")
    ]
    assert row.auc == counts["auc_popularity"]
    # Control: with a longer window and another time zone, more events count.
    longer = make_settings(windows={"test_days": 2, "training_days": 2, "pretraining_days": 3})
    naive = [count + 40 * (n % 2 == 0) for n, count in enumerate(naive)]
    assert evaluate(spark, longer)["auc_popularity"] == pytest.approx(
        roc_auc_score(LABELS, naive), abs=1e-12
    )


def test_metrics_rows_say_whether_candidates_were_drawn(
    spark: SparkSession, make_settings: Make
) -> None:
    drawn = make_settings(logs={"made_by": "ingest"})
    write_predictions(spark, drawn, {"base": BASE, "mfn": MFN})
    evaluate(spark, drawn)
    assert {r.candidates_from for r in rows_of(spark, drawn, METRICS)} == {"drawn by popularity"}
    # Control: without negatives, and with simulated logs, candidates are logged.
    without = make_settings(logs={"made_by": "ingest"}, ingest={"negatives": 0})
    simulated = make_settings(logs={"made_by": "simulate_logs"})
    assert {without.candidates_from, simulated.candidates_from} == {"logged"}


def test_truth_of_a_day_without_success_file_is_not_read(
    spark: SparkSession, make_settings: Make
) -> None:
    settings = make_settings()
    folder = write_truth(spark, settings, truth_rows())
    truth = read_truth(spark, settings)
    assert truth is not None
    assert truth.count() == SIZE
    (folder / "_SUCCESS").unlink()
    assert read_truth(spark, settings) is None


def test_truth_is_read_for_exactly_the_days_of_the_test_window(
    spark: SparkSession, make_settings: Make
) -> None:
    for day in range(5, 9):
        date = datetime.date(2026, 3, day)
        write_truth(spark, make_settings(date=date), [(f"r{day}", "u", "i", 0.5)])
    truth = read_truth(spark, make_settings(windows={"test_days": 2}))
    assert truth is not None
    assert sorted(row.request_id for row in truth.collect()) == ["r7", "r8"]


def test_a_rerun_writes_the_same_rows_and_keeps_those_of_other_days(
    spark: SparkSession, make_settings: Make
) -> None:
    settings, before = make_settings(), make_settings(date=DAY_BEFORE)
    for one, scores in (
        (before, {"base": MFN, "mfn": BASE}),
        (settings, {"base": BASE, "mfn": MFN}),
    ):
        write_predictions(spark, one, scores)
    evaluate(spark, before)
    of_before = [rows_of(spark, settings, table) for table in (METRICS, COMPARISONS)]
    evaluate(spark, settings)
    first = [rows_of(spark, settings, table) for table in (METRICS, COMPARISONS)]
    evaluate(spark, settings)
    evaluate(spark, before)
    assert [rows_of(spark, settings, table) for table in (METRICS, COMPARISONS)] == first
    for all_days, day_before in zip(first, of_before, strict=True):
        assert [row for row in all_days if row.run_date == DAY_BEFORE] == day_before
        assert {row.run_date for row in all_days} == {DAY, DAY_BEFORE}


def test_a_configured_model_without_predictions_is_refused_with_its_name(
    spark: SparkSession, make_settings: Make, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(models={"base": {}, "mfn": {}, "mfn_k16": {"extractor": "mfn"}})
    with pytest.raises(NotPublished, match=r"predictions: no such table; run jobs/predict"):
        evaluate(spark, settings)
    write_predictions(spark, settings, {"base": BASE, "mfn": MFN})
    with pytest.raises(
        DataRefused, match=r"2026-03-08, but found none of mfn_k16; run jobs/predict"
    ):
        evaluate(spark, settings)
    assert not tables.is_there(spark, settings.root, METRICS)
    # Control: with its predictions, or without it in the settings, the day is evaluated.
    write_predictions(spark, settings, {"mfn_k16": BASE})
    assert evaluate(spark, settings)["models"] == 3
    assert caplog.records == []
    counts = evaluate(spark, make_settings())
    assert counts["models_not_configured"] == "mfn_k16"
    (warning,) = caplog.messages
    assert warning.startswith("evaluate 2026-03-08: removes the rows of mfn_k16 from ")
    assert "evaluation/metrics and " in warning
    assert {r.model for r in rows_of(spark, settings, METRICS)} == {"base", "mfn", "popularity"}


@pytest.mark.parametrize(
    "other",
    [
        {"items": "other"},
        {"labels": [1 - label for label in LABELS]},
        {"history": 5},
        {},
    ],
    ids=["items", "labels", "history", "control"],
)
def test_a_model_scored_on_different_candidates_than_base_is_refused(
    spark: SparkSession, make_settings: Make, other: dict[str, Any]
) -> None:
    settings = make_settings()
    write_predictions(spark, settings, {"base": BASE})
    write_predictions(spark, settings, {"mfn": MFN}, **other)
    if not other:
        assert evaluate(spark, settings)["models"] == 2
        return
    with pytest.raises(
        DataRefused, match=r"predictions of mfn .* same candidates.* in those of base"
    ):
        evaluate(spark, settings)
    assert not tables.is_there(spark, settings.root, METRICS)


def test_scores_that_are_not_probabilities_are_refused_with_their_count(
    spark: SparkSession, make_settings: Make
) -> None:
    settings = make_settings()
    bad = [math.nan, 1.5, -1e-9, *MFN[3:]]
    write_predictions(spark, settings, {"base": BASE, "mfn": bad})
    with pytest.raises(DataRefused, match=r"of mfn .* from 0 to 1.* but 3 of 24 are not"):
        evaluate(spark, settings)
    write_predictions(spark, settings, {"mfn": [0.0, 1.0, 5e-324, *MFN[3:]]})
    assert evaluate(spark, settings)["models"] == 2
    # Two different probabilities for one candidate: its score is null, and that is refused.
    write_truth(spark, settings, [*truth_rows(), ("r0", "u", "i0", 0.123)])
    with pytest.raises(DataRefused, match=r"truth .* but 1 of 24 are not; run jobs/simulate_logs"):
        evaluate(spark, settings)
