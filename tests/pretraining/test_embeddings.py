"""The frozen embedding: the rows that it learns from, early stopping, standardisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark.sql import SparkSession

from mfn import storage
from mfn.errors import DataRefused
from mfn.indices import FIRST_INDEX
from mfn.models import artifact
from mfn.models.artifact import WrongArtifact
from mfn.models.embedding import (
    FrozenItems,
    ItemEncoder,
    ItemTable,
    Pretrained,
    fields_of,
    freeze,
    offsets_of,
)
from mfn.models.ranker import Ranker
from mfn.models.settings import BaseSettings
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.pretraining.published import current_frozen
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.synthetic import ITEMS, SIZES, publish_splits

ROWS = {"pretraining": [60, 50], "pretraining_validation": [30], "train": [40], "test": [20]}


LEARNT_LITTLE = "what the click model has learnt, which is little"


@pytest.fixture
def day(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(embeddings={"max_epochs": 2, "dimension": 8})


def learn(spark: SparkSession, day: Settings, **seeds: int) -> bytes:
    publish_splits(day, ROWS, seeds)
    pretrain_embeddings(spark, day)
    folder = current_frozen(day, Splits.published(day))
    return Path(folder, artifact.TENSORS).read_bytes()


def pretrained(
    spark: SparkSession, day: Settings, **changes: str | int
) -> tuple[Pretrained, dict[str, Any]]:
    """What is published with other settings of the embeddings, and its manifest."""
    chosen = day.model_copy(update={"embeddings": day.embeddings.model_copy(update=changes)})
    pretrain_embeddings(spark, chosen)
    folder = current_frozen(chosen, Splits.published(chosen))
    manifest: dict[str, Any] = storage.read_json(f"{folder}/{storage.MANIFEST}")
    return artifact.read_pretrained(folder), manifest


def test_rows_of_the_training_and_test_windows_do_not_change_the_embedding(
    spark: SparkSession, day: Settings
) -> None:
    before = learn(spark, day)
    assert learn(spark, day, train=2, test=2) == before
    assert learn(spark, day, pretraining=2) != before


def test_the_best_epoch_on_the_validation_day_is_kept(
    spark: SparkSession, make_settings: Callable[..., Settings]
) -> None:
    # With this learning rate the model overfits: the validation loss falls, then rises.
    settings = make_settings(
        embeddings={"max_epochs": 12, "learning_rate": 0.1, "batch_requests": 16}
    )
    publish_splits(settings, ROWS)
    best, manifest = pretrained(spark, settings)
    losses = manifest["validation_log_losses"]
    assert 1 < len(losses) < 12
    assert losses[-1] > losses[-2] == min(losses)
    again, shorter = pretrained(spark, settings, max_epochs=len(losses) - 1)
    assert shorter["validation_log_losses"] == losses[:-1]
    assert all(
        torch.equal(of, again.start.vectors[name]) for name, of in best.start.vectors.items()
    )


def test_the_start_of_all_models_is_the_click_model_and_E_is_what_it_has_learnt_or_beside_it(
    spark: SparkSession, day: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever E is made of, 𝓔 starts at the same vectors. The measures of each E are there."""
    publish_splits(day, ROWS)
    together, manifest = pretrained(spark, day)
    assert LEARNT_LITTLE not in caplog.text
    learnt, of_learnt = pretrained(spark, day, ids="ctr", words="ctr")
    both, of_both = pretrained(spark, day, ids="both")
    for other in (learnt, both):
        for name, vectors in together.start.vectors.items():
            assert torch.equal(vectors, other.start.vectors[name])
            assert torch.equal(together.start.learnt[name], other.start.learnt[name])
    splits = Splits.published(day)
    drawn = Ranker(
        BaseSettings(), splits.features, splits.item_indices(), 8, 0.2, day.embeddings.seed
    )
    initial = fields_of(drawn.embedding.weight.detach(), splits.features.sizes)
    for name, vectors in learnt.frozen.vectors.items():
        met = learnt.start.learnt[name]
        shift = learnt.start.vectors[name] - initial[name]
        assert torch.equal(vectors[met], shift[met])
    # Beside each other, each standardised.
    assert both.frozen.dimension == 16
    for name, vectors in both.frozen.vectors.items():
        for at, one in ((slice(0, 8), together.frozen), (slice(8, 16), learnt.frozen)):
            standard = (one.vectors[name] - one.mean[name]) / one.std[name]
            expected = torch.where(one.learnt[name][:, None], standard, 0)
            assert torch.allclose(vectors[:, at], expected, atol=1e-6), name
    # Of few rows the click model learns little, which the measures show.
    table = manifest["measures"]["start_correlation"]["table"]
    assert set(table) == set(splits.features.sizes)
    assert 0.9 < table["item_id"] <= 1
    assert LEARNT_LITTLE in caplog.text
    for of_one, fields in ((manifest, []), (of_learnt, SIZES), (of_both, SIZES)):
        measures = of_one["measures"]
        assert set(measures["start_correlation"]["E"]) == set(fields)
        assert set(measures["next_behaviour_auc"]) == {"category", "fine"}
        assert measures["next_behaviour_users"] <= 7
        assert set(measures["covered"]) == set(of_one["known"]) == set(SIZES)


def test_only_values_in_the_pretraining_rows_are_learnt(spark: SparkSession, day: Settings) -> None:
    publish_splits(day, ROWS)
    learnt, _ = pretrained(spark, day, ids="ctr")
    splits = Splits.published(day)
    rows = spark.read.parquet(f"{splits.folder}/pretraining").collect()
    items = {item for row in rows for item in [*row.history, *row.candidates]}
    category = splits.item_indices()["category"]
    expected = {int(category[item]) for item in items if item}
    for one in (learnt.start, learnt.frozen):
        assert set(one.learnt["category"].nonzero().flatten().tolist()) == expected


def test_every_field_of_an_item_vector_is_standardised() -> None:
    random = torch.Generator().manual_seed(1)
    features = Splits("", _manifest()).features
    indices = {
        name: torch.randint(FIRST_INDEX, SIZES[name], (ITEMS,), generator=random)
        for name in features.item_fields
        if name != "entity"
    }
    entities = torch.randint(FIRST_INDEX, SIZES["entity"], (ITEMS, 3), generator=random)
    items = ItemTable(features, {**indices, "entity": entities}, offsets_of(features.sizes))
    table_VD = 5 + 3 * torch.randn(sum(features.sizes.values()), 8, generator=random)
    frozen = freeze(features, items, table_VD, torch.ones(len(table_VD), dtype=torch.bool))
    loaded = FrozenItems(features, 8)
    loaded.load(frozen)
    every_item = torch.arange(FIRST_INDEX, ITEMS)
    vectors = ItemEncoder(features.levels, items, loaded).frozen_vectors(every_item)
    for level in features.levels:
        unscaled = vectors[level.name] * vectors[level.name].shape[1] ** 0.25
        for part in unscaled.split(8, dim=1):
            assert part.mean(dim=0).abs().max() < 1e-5
            assert float(part.square().mean()) == pytest.approx(1, abs=1e-5)


def _manifest() -> dict[str, object]:
    return {
        "item_fields": list(SIZES),
        "user_fields": [],
        "context_fields": [],
        "history_length": 6,
        "vocabularies": {name: {"size": size} for name, size in SIZES.items()},
    }


def test_an_embedding_made_with_other_vocabularies_is_refused(
    spark: SparkSession, day: Settings
) -> None:
    learn(spark, day)
    splits = Splits.published(day)
    assert current_frozen(day, splits)
    vocabularies = {**splits.manifest["vocabularies"], "brand": {"size": 9, "fingerprint": "x"}}
    other = Splits(splits.folder, {**splits.manifest, "vocabularies": vocabularies})
    with pytest.raises(WrongArtifact, match="expected vocabulary brand as in the splits"):
        current_frozen(day, other)


def test_an_empty_pretraining_window_is_refused(spark: SparkSession, day: Settings) -> None:
    publish_splits(day, {"train": [10]})
    with pytest.raises(DataRefused, match="pretraining: expected rows from"):
        pretrain_embeddings(spark, day)
