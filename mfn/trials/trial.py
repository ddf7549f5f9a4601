"""One training of one model in this process: its curve, or its scores of the test rows.

A **curve** is for the choice of settings: after each epoch it measures AUC on the test window of an
earlier run date, which ends before the real test window begins. A **final** training reads the real
test window once, after the choice. Both publish a folder, and are not repeated while their inputs,
settings and code are unchanged.

Legend: n candidates of the test window, in the order of its files, rows and slates.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.metrics import log_loss

from mfn import fingerprint, storage
from mfn.engine.trainer import Schedule, Trainer, TrainingFailed, parameter_count
from mfn.engine.workers import SingleWorker
from mfn.evaluation.bootstrap import auc
from mfn.metrics import CLIP
from mfn.models import artifact
from mfn.models.batch import Batch, concatenate
from mfn.models.ranker import Ranker
from mfn.models.settings import PretrainedCentersSettings
from mfn.models.similarity import CENTERS
from mfn.pretraining.published import current_frozen, read_centers
from mfn.serving.predict import batch_of, score
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.training.loop import fit, make_model

SCORES = "scores"


@dataclass(frozen=True)
class Candidates:
    """The rows of a test window, with the user and the label of each candidate."""

    batch: Batch
    users_n: np.ndarray
    labels_n: np.ndarray

    @property
    def users(self) -> int:
        """Number of users; `users_n` holds numbers below it."""
        return int(self.users_n.max()) + 1


@lru_cache(maxsize=4)
def read_candidates(splits_folder: str) -> Candidates:
    """The candidates of the test rows, in one version of the splits."""
    batches: list[Batch] = []
    user_of_rows: list[str] = []
    for rows in rows_of_test(splits_folder):
        batches.append(batch_of(rows))
        user_of_rows += rows.column("user_id").to_pylist()
    batch = concatenate(batches)
    _, user_B = np.unique(user_of_rows, return_inverse=True)
    users_n = np.repeat(user_B, batch.candidate_count_B.numpy())
    labels_n = batch.labels_BM[batch.candidate_mask_BM].numpy()
    return Candidates(batch, users_n, labels_n)


def rows_of_test(splits_folder: str) -> Iterator[pa.RecordBatch]:
    """The test rows in one version of the splits, a batch for each file."""
    for file in Splits.at(splits_folder).files("test"):
        with fsspec.open(file.url, "rb") as opened:
            yield pq.read_table(opened).combine_chunks().to_batches()[0]


@dataclass(frozen=True)
class Trial(ABC):
    """A training that publishes its results in a folder.

    Attributes:
        name: name of the model in the settings.
        settings: settings of the run date; E and the centers are under their root.
        folder: where the results are published.
        files: maximum number of files of training rows to read; None for all.
    """

    name: str
    settings: Settings
    folder: str
    files: int | None = None

    @property
    def splits(self) -> Splits:
        """The run date's splits, with at most `files` files of training rows."""
        splits = Splits.published(self.settings)
        if self.files is None:
            return splits
        parts = splits.manifest["splits"]
        fewer = {**parts["train"], "files": parts["train"]["files"][: self.files]}
        return replace(splits, manifest={**splits.manifest, "splits": {**parts, "train": fewer}})

    def finished(self) -> bool:
        """Whether it has finished with the same inputs, settings and code as now."""
        try:
            return bool(self.manifest()["fingerprint"] == self.fingerprint())
        except FileNotFoundError:
            return False

    def manifest(self) -> dict[str, Any]:
        """The manifest that it has published with its results.

        Raises:
            NotPublished: it has not finished.
        """
        folder = storage.current(self.folder, "compare")
        manifest: dict[str, Any] = storage.read_json(f"{folder}/{storage.MANIFEST}")
        return manifest

    def fingerprint(self) -> str:
        """Fingerprint of its inputs, settings and code."""
        settings, splits = self.settings, self.splits
        model = settings.models[self.name]
        # Of the centers those that this model reads; other models' may be learnt beside them later.
        centers = (
            read_centers(settings, splits, model.centers)
            if isinstance(model, PretrainedCentersSettings)
            else {}
        )
        return fingerprint.of_values(
            fingerprint.of_package(),
            type(self).__name__,
            model.model_dump(),
            settings.matches.model_dump(),
            settings.train.of_the_result,
            [splits.folder, current_frozen(settings, splits)],
            hashlib.sha256(artifact.as_bytes(centers)).hexdigest(),
            self.files,
            self._own_settings(),
        )

    def run(self) -> None:
        """Train, and publish the results; progress is written to log.txt in the same folder."""
        torch.set_num_threads(1)
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        fingerprint_now = self.fingerprint()  # of the inputs that are read now
        with (
            Path(self.folder, "log.txt").open("w", encoding="utf-8") as log,
            contextlib.redirect_stderr(log),
        ):
            model = self.model()
            manifest, tensors = self._train(model)
        with storage.publish(self.folder) as folder:
            artifact.write_tensors(folder, tensors)
            manifest = {
                **manifest,
                "fingerprint": fingerprint_now,
                "parameters": parameter_count(model),
            }
            storage.write_json(f"{folder}/{storage.MANIFEST}", manifest)

    def model(self) -> Ranker:
        """The model before training."""
        settings, splits = self.settings, self.splits
        pretrained = artifact.read_pretrained(current_frozen(settings, splits))
        return make_model(
            settings.models[self.name], splits.item_indices(), pretrained, settings, splits
        )

    def _scores(self, model: Ranker) -> np.ndarray:
        """Probabilities of a click for the candidates of the test window, [n]."""
        splits = self.splits
        rows = read_candidates(splits.folder)
        correction = float(np.log(splits.manifest["negative_sampling_rate"]))
        model.eval()
        scores_BM = score(model, rows.batch, self.settings.predict.batch_requests, correction)
        scores_n: np.ndarray = scores_BM[rows.batch.candidate_mask_BM.numpy()]
        return scores_n

    @abstractmethod
    def _own_settings(self) -> Any:
        """Settings of the subclass that its results depend on, as JSON."""

    @abstractmethod
    def _train(self, model: Ranker) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
        """Train the model; return entries of the manifest, and tensors to publish."""


@dataclass(frozen=True)
class Point:
    """Metrics of a model on the earlier test window after `epochs` epochs; log loss in nats."""

    epochs: float
    auc: float
    log_loss: float


@dataclass(frozen=True)
class Curve(Trial):
    """AUC on an earlier run date's test window after each epoch, until an epoch lowers it.

    The curve also ends where the loss becomes NaN or infinite.

    Attributes:
        parts: AUC is measured this many times per epoch, after equal numbers of files. With more
            than one, an epoch reads the same rows in another order.
    """

    max_epochs: int = 4
    parts: int = 1

    def points(self) -> list[Point]:
        """The measured points, one per epoch or part; an empty list if the first one failed."""
        return [Point(**one) for one in self.manifest()["points"]]

    def _own_settings(self) -> Any:
        return [self.max_epochs, self.parts]

    def _train(self, model: Ranker) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
        own, splits = self.settings.train, self.splits
        schedule = Schedule(
            own.learning_rate, own.batch_requests, own.seed, str(self.settings.date)
        )
        trainer = Trainer(model, schedule, SingleWorker())
        labels_n = read_candidates(splits.folder).labels_n
        files = splits.files("train")
        points: list[Point] = []
        failed = None
        for epoch, part in itertools.product(range(self.max_epochs), range(self.parts)):
            try:
                trainer.epoch(files[part :: self.parts], epoch, self.name)
            except TrainingFailed as error:
                failed = str(error)
                break
            scores_n = self._scores(model)
            done = epoch + (part + 1) / self.parts
            points.append(Point(done, auc(labels_n, scores_n), loss(labels_n, scores_n)))
            after_epochs = [one.auc for one in points[self.parts - 1 :: self.parts]]
            if after_epochs and after_epochs[-1] < max(after_epochs):
                break
        return {"points": [asdict(one) for one in points], "failed": failed}, {}


@dataclass(frozen=True)
class Final(Trial):
    """A model with the settings' learning rate and epochs, and its scores of the test window."""

    def centers(self) -> dict[str, torch.Tensor]:
        """The tuned interest centers, by their names among the model's parameters, [K, e]."""
        tensors = artifact.read_tensors(storage.current(self.folder, "compare"))
        return {name: one for name, one in tensors.items() if name.endswith(CENTERS)}

    def scores(self) -> np.ndarray:
        """Probabilities of a click, [n]."""
        folder = storage.current(self.folder, "compare")
        scores_n: np.ndarray = artifact.read_tensors(folder)[SCORES].numpy()
        return scores_n

    def _own_settings(self) -> Any:
        return None

    def _train(self, model: Ranker) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
        stats = fit(model, self.name, self.settings, self.splits, SingleWorker())
        parameters = dict(model.named_parameters())
        centers = {name: one.detach() for name, one in parameters.items() if name.endswith(CENTERS)}
        scores_n = torch.from_numpy(self._scores(model))
        return {"train": asdict(stats)}, {SCORES: scores_n, **centers}


def loss(labels_n: np.ndarray, scores_n: np.ndarray) -> float:
    """Mean binary cross entropy in nats, of scores clipped as `evaluate` does."""
    return float(log_loss(labels_n, np.clip(scores_n, CLIP, 1 - CLIP), labels=[0, 1]))
