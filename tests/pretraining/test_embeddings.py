"""The frozen embedding: the rows that it learns from, early stopping, standardisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pyspark.sql import SparkSession

from mfn import storage
from mfn.errors import DataRefused
from mfn.indices import FIRST_INDEX
from mfn.models import artifact
from mfn.models.artifact import WrongArtifact
from mfn.models.embedding import FrozenItems, ItemEncoder, ItemTable, freeze, offsets_of
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.pretraining.published import current_frozen
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.synthetic import ITEMS, SIZES, publish_splits

ROWS = {"pretraining": [60, 50], "pretraining_validation": [30], "train": [40], "test": [20]}


@pytest.fixture
def day(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(embeddings={"max_epochs": 2, "dimension": 8})


def learn(spark: SparkSession, day: Settings, **seeds: int) -> bytes:
    publish_splits(day, ROWS, seeds)
    pretrain_embeddings(spark, day)
    folder = current_frozen(day, Splits.published(day))
    return Path(folder, artifact.TENSORS).read_bytes()


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
    counts = pretrain_embeddings(spark, settings)
    folder = current_frozen(settings, Splits.published(settings))
    losses = storage.read_json(f"{folder}/{storage.MANIFEST}")["validation_log_losses"]
    assert 1 < len(losses) < 12
    assert losses[-1] > losses[-2] == min(losses) == counts["validation_log_loss"]
    shorter = settings.embeddings.model_copy(update={"max_epochs": len(losses) - 1})
    best = artifact.read_frozen(folder)
    counts = pretrain_embeddings(spark, settings.model_copy(update={"embeddings": shorter}))
    assert counts["epochs"] == len(losses) - 1
    again = artifact.read_frozen(current_frozen(settings, Splits.published(settings)))
    assert all(torch.equal(best.vectors[name], again.vectors[name]) for name in best.vectors)


def test_only_values_in_the_pretraining_rows_are_learnt(spark: SparkSession, day: Settings) -> None:
    learn(spark, day)
    splits = Splits.published(day)
    frozen = artifact.read_frozen(current_frozen(day, splits))
    rows = spark.read.parquet(f"{splits.folder}/pretraining").collect()
    items = {item for row in rows for item in [*row.history, *row.candidates]}
    category = splits.item_indices()["category"]
    expected = {int(category[item]) for item in items if item}
    assert set(frozen.learnt["category"].nonzero().flatten().tolist()) == expected


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
