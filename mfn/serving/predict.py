"""The job `predict`: scores the test rows with every model, on Spark.

The rows are read once. Each task scores them with all models, one whole Arrow batch at a time, and
writes its own predictions: there is no shuffle.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from mfn import storage, tables
from mfn.errors import DataRefused
from mfn.job import Counts, job
from mfn.models import artifact
from mfn.models.batch import Batch
from mfn.models.ranker import Ranker
from mfn.schema import PREDICTIONS, REQUEST_ROWS
from mfn.settings import Settings
from mfn.splits.published import Splits


def _reads(spark: SparkSession, settings: Settings) -> Any:
    return [Splits.published(settings).folder, _models(settings)]


@job(
    _reads,
    lambda settings: [tables.path_of(settings.root, PREDICTIONS)],
    sections=("predict", "models"),
)
def predict(spark: SparkSession, settings: Settings) -> Counts:
    """Score the test rows with every configured model; replace their predictions."""
    splits = Splits.published(settings)
    counts = splits.manifest["splits"]["test"]
    if not counts["rows"]:
        first, last = splits.manifest["windows"]["test"]
        raise DataRefused(
            f"test: expected rows from {first} to {last}, got none; give logs of these days"
        )
    models = _models(settings)
    corrections = {}
    for name, folder in models.items():
        description = storage.read_json(f"{folder}/{storage.MODEL}")
        artifact.check_vocabularies(
            description["schema"]["vocabularies"], splits.manifest["vocabularies"], folder
        )
        corrections[name] = math.log(description["negative_sampling_rate"])
    work = ScoreRows(
        settings.date, splits.folder, models, corrections, settings.predict.batch_requests
    )
    scores = (
        spark.read.schema(REQUEST_ROWS)
        .parquet(f"{splits.folder}/test")
        .mapInArrow(work, PREDICTIONS.columns)
        .select(*PREDICTIONS.columns.names)
    )
    tables.replace(
        scores,
        settings.root,
        PREDICTIONS,
        {"run_date": [settings.date], "model": sorted(models)},
    )
    written = (
        tables.read(spark, settings.root, PREDICTIONS, "predict")
        .where((F.col("run_date") == settings.date) & F.col("model").isin(sorted(models)))
        .count()
    )
    expected = counts["candidates"] * len(models)
    if written != expected:
        raise RuntimeError(
            f"predictions: expected {expected} rows, {counts['candidates']} test candidates for "
            f"each of {len(models)} models, got {written}; rebuild the splits"
        )
    return {"rows": written, "models": len(models)}


def _models(settings: Settings) -> dict[str, str]:
    """By name, the folder of each model's current version."""
    return {name: storage.current(settings.layout.model(name), "train") for name in settings.models}


@dataclass(frozen=True)
class ScoreRows:
    """Turns request rows into predictions, one whole Arrow batch at a time.

    Attributes:
        models: by name, the folder of each model.
        corrections: by name, the value added to each logit: the logarithm of the share of
            negatives that the model was trained on. With a share w, the odds of a click in the
            training rows are 1 / w times as high (He et al. 2014, Practical Lessons from
            Predicting Clicks on Ads at Facebook, section 6.3).
    """

    date: datetime.date
    splits_folder: str
    models: Mapping[str, str]
    corrections: Mapping[str, float]
    batch_requests: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        """The predictions of every model for each batch of rows."""
        schema = to_arrow_schema(PREDICTIONS.columns)
        for rows in batches:
            if not rows.num_rows:
                continue
            batch = batch_of(rows)
            for name, folder in self.models.items():
                model = _model(folder, self.splits_folder)
                scores = score(model, batch, self.batch_requests, self.corrections[name])
                columns = self._columns(rows, batch, name, scores)
                yield pa.RecordBatch.from_arrays(
                    [columns[field.name].cast(field.type) for field in schema], schema=schema
                )

    def _columns(
        self, rows: pa.RecordBatch, batch: Batch, name: str, scores: np.ndarray
    ) -> dict[str, pa.Array]:
        """The columns of PREDICTIONS, one value per candidate; scores are [B, M]."""
        mask_BM = batch.candidate_mask_BM.numpy()
        row_of_candidate = np.repeat(np.arange(len(batch)), batch.candidate_count_B.numpy())
        zeros = pa.array(np.zeros(len(row_of_candidate), dtype=np.int64))  # repeats a single value
        return {
            "run_date": pa.array([self.date]).take(zeros),
            "model": pa.array([name]).take(zeros),
            "request_id": rows.column("request_id").take(pa.array(row_of_candidate)),
            "user_id": rows.column("user_id").take(pa.array(row_of_candidate)),
            "request_time": rows.column("request_time").take(pa.array(row_of_candidate)),
            "item_id": rows.column("candidate_ids").flatten(),
            "label": pa.array(batch.labels_BM.numpy()[mask_BM]),
            "score": pa.array(scores[mask_BM].astype(np.float64)),
            "history_length": rows.column("history_length").take(pa.array(row_of_candidate)),
        }


def batch_of(rows: pa.RecordBatch) -> Batch:
    """Request rows of an Arrow batch as tensors."""

    def tensor(name: str) -> torch.Tensor:
        column = rows.column(name)
        if isinstance(column, pa.ListArray):  # lists of one length: [rows, length]
            flat = column.flatten().to_numpy(zero_copy_only=False)
            return torch.from_numpy(flat.reshape(rows.num_rows, -1).astype(np.int64))
        return torch.from_numpy(column.to_numpy(zero_copy_only=False).astype(np.int64))

    return Batch.of_columns(tensor)


@torch.no_grad()
def score(model: Ranker, batch: Batch, batch_requests: int, correction: float) -> np.ndarray:
    """Probabilities of a click, [B, M] in float64; values of padded candidates have no meaning.

    Args:
        batch_requests: rows to score at a time.
        correction: added to each logit.
    """
    parts = [
        torch.sigmoid(
            model(batch.select(slice(first, first + batch_requests))).double() + correction
        )
        for first in range(0, len(batch), batch_requests)
    ]
    scores: np.ndarray = torch.cat(parts).numpy()
    return scores


@lru_cache(maxsize=32)
def _model(folder: str, splits_folder: str) -> Ranker:
    """A model, which each Python worker of Spark loads once."""
    torch.set_num_threads(1)  # each slot of Spark has one core
    splits = Splits.at(splits_folder)
    return artifact.read_model(folder, splits.item_indices(), splits.manifest["vocabularies"])
