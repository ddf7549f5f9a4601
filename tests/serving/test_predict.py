"""The job `predict`: exactly one score per model and test candidate, equal to the model's."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql import Row, SparkSession

from mfn import storage, tables
from mfn.errors import NotPublished
from mfn.locations import files_at
from mfn.models import artifact
from mfn.models.artifact import WrongArtifact
from mfn.pretraining.centers import train_centers
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.schema import PREDICTIONS
from mfn.serving.predict import batch_of, predict
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.training.train import train
from tests.synthetic import publish_splits, publish_vocabularies

NEGATIVE_SAMPLING_RATE = 0.25
ROWS = {"pretraining": [40], "pretraining_validation": [20], "train": [40], "test": [30, 0, 11]}


@pytest.fixture(scope="module")
def day(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    from tests.conftest import RUN_DATE, SPARK

    settings = Settings(
        root=str(tmp_path_factory.mktemp("day")),
        date=RUN_DATE,
        spark=SPARK,
        embeddings={"max_epochs": 1, "dimension": 8},
        predict={"batch_requests": 16},
        splits={"negative_sampling_rate": NEGATIVE_SAMPLING_RATE},
    )
    publish_splits(settings, ROWS)
    publish_vocabularies(spark, settings)
    for job in (pretrain_embeddings, train_centers, train):
        job(spark, settings)
    return settings


def rows(spark: SparkSession, day: Settings) -> list[Row]:
    found = tables.read(spark, day.root, PREDICTIONS, "predict")
    return sorted(found.collect(), key=lambda r: (r.model, r.request_id, r.item_id, r.label))


def test_every_candidate_has_the_score_of_each_model_also_after_a_second_run(
    spark: SparkSession, day: Settings
) -> None:
    """Scores are probabilities among all candidates; training saw a quarter of the unclicked."""
    counts = predict(spark, day)
    found = rows(spark, day)
    splits = Splits.published(day)
    expected = []
    for name in ("base", "mfn"):
        folder = storage.current(day.layout.model(name), "train")
        model = artifact.read_model(folder, splits.item_indices(), splits.manifest["vocabularies"])
        for file in splits.files("test"):
            table = pq.read_table(file.url.removeprefix("file://")).combine_chunks()
            batch = batch_of(table.to_batches()[0])
            with torch.no_grad():
                sampled = torch.sigmoid(model(batch).double())  # probabilities among sampled rows
            scores = (sampled / (sampled + (1 - sampled) / NEGATIVE_SAMPLING_RATE)).tolist()
            for r, row in enumerate(table.to_pylist()):
                for m, item in enumerate(row["candidate_ids"]):
                    expected.append(
                        (name, row["request_id"], item, row["labels"][m], scores[r][m],
                         row["user_id"], row["history_length"])
                    )  # fmt: skip
    expected.sort(key=lambda r: r[:4])
    assert counts["rows"] == len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        assert (row.model, row.request_id, row.item_id, row.label) == wanted[:4]
        assert row.score == pytest.approx(wanted[4], abs=1e-6)
        assert (row.user_id, row.history_length) == wanted[5:]
        assert row.run_date == day.date
    predict(spark, day)
    assert rows(spark, day) == found


def test_a_model_folder_describes_settings_schema_and_training(day: Settings) -> None:
    folder = storage.current(day.layout.model("mfn"), "train")
    description = storage.read_json(f"{folder}/{storage.MODEL}")
    assert description["settings"]["extractor"] == "mfn"
    assert description["settings"]["similarity_interests"] == 32
    assert description["schema"]["vocabularies"] == Splits.published(day).manifest["vocabularies"]
    assert description["train"]["requests"] == 40
    assert description["parameters"] > 0
    files, path = files_at(folder)
    assert sorted(name.rpartition("/")[2] for name in files.ls(path, detail=False)) == [
        storage.MODEL,
        artifact.TENSORS,
    ]


def test_a_model_with_other_vocabularies_is_refused(day: Settings) -> None:
    splits = Splits.published(day)
    folder = storage.current(day.layout.model("mfn"), "train")
    vocabularies = splits.manifest["vocabularies"]
    assert artifact.read_model(folder, splits.item_indices(), vocabularies)
    other = {**vocabularies, "category": {"size": 12, "fingerprint": "another"}}
    with pytest.raises(WrongArtifact, match="expected vocabulary category as in the splits"):
        artifact.read_model(folder, splits.item_indices(), other)


def test_a_model_folder_with_a_pickle_is_refused(day: Settings) -> None:
    splits = Splits.published(day)
    folder = storage.current(day.layout.model("mfn"), "train")
    vocabularies = splits.manifest["vocabularies"]
    pickled = Path(folder, "model.pkl")
    pickled.write_bytes(b"")
    try:
        with pytest.raises(WrongArtifact, match=r"also found model.pkl; a model is never read"):
            artifact.read_model(folder, splits.item_indices(), vocabularies)
    finally:
        pickled.unlink()
    assert artifact.read_model(folder, splits.item_indices(), vocabularies)


def test_an_untrained_model_is_named_in_the_error(spark: SparkSession, day: Settings) -> None:
    more = {**day.models, "mfn_k16": day.models["mfn"]}
    with pytest.raises(NotPublished, match=r"mfn_k16: nothing is published.*jobs/train.py"):
        predict(spark, day.model_copy(update={"models": more}))
