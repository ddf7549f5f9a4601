"""The job `compare`: a row a model, chosen on the day before, and nothing trained twice."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mfn import tables
from mfn.errors import DataRefused
from mfn.models.settings import NAMED_MODELS, MfnSettings
from mfn.schema import OVER_SEEDS
from mfn.settings import Settings
from mfn.trials.compare import compare
from tests.synthetic import publish_splits, publish_vocabularies

ROWS = {"pretraining": [60], "pretraining_validation": [30], "train": [120], "test": [60]}


@pytest.fixture
def day(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(
        embeddings={"dimension": 8, "max_epochs": 1},
        centers={"max_steps": 3},
        train={"batch_requests": 16},
        compare={
            "seeds": [1, 2],
            "choosing_seeds": [1, 3],
            "learning_rates": [0.003, 0.03],
            "max_epochs": 1,
        },
        models={"base": NAMED_MODELS["base"], "mfn": MfnSettings(similarity_interests=3)},
    )


def day_before(settings: Settings) -> Settings:
    earlier = settings.date - datetime.timedelta(days=1)
    return settings.model_copy(update={"date": earlier})


def trained(settings: Settings) -> dict[str, int]:
    """Pointers to what every training left, and when they were written."""
    found = Path(settings.root).glob("**/trials/**/CURRENT")
    return {str(path.relative_to(settings.root)): path.stat().st_mtime_ns for path in found}


def test_a_comparison_has_a_row_a_model_and_trains_nothing_twice(
    spark: SparkSession, day: Settings
) -> None:
    publish_vocabularies(spark, day_before(day))
    for settings in (day_before(day), day):
        publish_splits(settings, ROWS, {"test": settings.date.day})
    told = compare(spark, day)
    assert told["chosen_on"] == str(day_before(day).date)
    rows = {row.model: row for row in tables.read(spark, day.root, OVER_SEEDS, "compare").collect()}
    assert set(rows) == {"base", "mfn"}
    for name, row in rows.items():
        assert (row.run_date, row.base_model, row.seeds) == (day.date, "base", 2)
        assert row.learning_rate in day.compare.learning_rates
        assert row.epochs == 1
        assert row.auc_mean == told[f"auc_{name}"]
        assert row.relaimpr_low <= row.relaimpr <= row.relaimpr_high
        assert 0.5 < row.auc_mean < 1
        assert row.auc_std > 0
    assert rows["base"].relaimpr == 0
    once = trained(day)
    # Two seeds with each of two rates on the day before, and two seeds on this one, of two models.
    assert len(once) == 2 * 2 * 2 + 2 * 2
    compare(spark, day)
    assert trained(day) == once
    other = day.model_copy(update={"train": day.train.model_copy(update={"batch_requests": 8})})
    compare(spark, other)  # the control: other settings are other trainings
    assert trained(day) != once
    assert tables.read(spark, day.root, OVER_SEEDS, "compare").count() == 2


def test_a_day_before_that_has_no_splits_is_named_with_what_to_run(
    spark: SparkSession, day: Settings
) -> None:
    publish_splits(day, ROWS)
    with pytest.raises(DataRefused, match=r"build_splits\.py with --date 2026-03-07"):
        compare(spark, day)
    assert trained(day) == {}


def test_a_root_that_processes_of_this_machine_cannot_share_is_refused(
    spark: SparkSession, day: Settings
) -> None:
    with pytest.raises(DataRefused, match="root: compare trains in processes of this machine"):
        compare(spark, day.model_copy(update={"root": "memory://somewhere"}))
