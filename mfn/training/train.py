"""The job `train`: starts the workers once; they train all models of a day one after the other."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from mfn import fingerprint, storage
from mfn.engine.horovod_workers import launch
from mfn.errors import DataRefused
from mfn.job import Counts, job
from mfn.models.settings import PretrainedCentersSettings
from mfn.pretraining.published import current_frozen, read_centers
from mfn.settings import Settings
from mfn.spark import check_horovod
from mfn.splits.published import Splits
from mfn.training.loop import train_models
from mfn.training.warm_start import check_start, newest_before

log = logging.getLogger("mfn")


def _reads(spark: SparkSession, settings: Settings) -> Any:
    splits = Splits.published(settings)
    models = settings.models_to_train
    with_centers = any(isinstance(one, PretrainedCentersSettings) for one in models.values())
    return [
        splits.folder,
        current_frozen(settings, splits),
        storage.current(settings.layout.centers, "train_centers") if with_centers else None,
        settings.train.of_the_result,
        settings.matches.model_dump(),
        _starts(settings),
        {name: model.model_dump() for name, model in models.items()},
    ]


def _writes(settings: Settings) -> list[str]:
    return [f"{settings.layout.model(name)}/{storage.POINTER}" for name in settings.models_to_train]


def _part(settings: Settings) -> str:
    return "".join(f"-{name}" for name in sorted(settings.train.only))


@job(
    _reads,
    _writes,
    part=_part,
    check=check_horovod,
    sections=("embeddings", "train", "matches", "checkpoints", "models"),
)
def train(spark: SparkSession, settings: Settings) -> Counts:
    """Train every configured model on the training rows; publish each as it is done.

    A model that is already published with the same rows, settings and code is skipped. A training
    that was killed resumes from its last checkpoint.

    Raises:
        DataRefused: there are no training rows, or one of their files is damaged; or E, centers or
            an earlier model do not fit them.
        TrainingFailed: a model's loss is NaN or infinite (with one worker).
        WorkersFailed: one of several workers failed; the message says why.
    """
    splits = Splits.published(settings)
    if not splits.files("train"):
        first, last = splits.manifest["windows"]["train"]
        raise DataRefused(
            f"train: expected rows from {first} to {last}, got none; give logs of these days"
        )
    frozen_folder = current_frozen(settings, splits)
    starts = _starts(settings)
    for model in settings.models_to_train.values():
        if isinstance(model, PretrainedCentersSettings):
            read_centers(settings, splits, model.centers)
    fingerprints = {
        name: _model_fingerprint(name, settings, splits, frozen_folder, starts[name])
        for name in settings.models_to_train
    }
    todo = {
        name: new
        for name, new in fingerprints.items()
        if new != _published_fingerprint(name, settings) or settings.force
    }
    for name in todo:
        if (start := starts[name]) is not None:
            check_start(spark, settings, splits, name, start)
            log.info("%s: starts from %s", name, start)
    work = partial(
        train_models,
        settings=settings,
        splits=splits,
        frozen_folder=frozen_folder,
        claims=storage.claims(),
        todo=todo,
        starts=starts,
    )
    own, stats = settings.train, {}
    if todo:
        splits.check_files("train")
        stats = launch(work, own.num_workers, own.stall_seconds)
    counts: dict[str, int | float | str] = {
        "rows": sum(one.requests for one in stats.values()),
        "workers": own.num_workers,
    }
    if skipped := len(settings.models_to_train) - len(todo):
        counts["models_skipped"] = skipped
    for name, one in stats.items():
        counts[f"{name}.loss"] = one.loss
        counts[f"{name}.candidates_per_second"] = round(one.candidates_per_second)
        counts[f"{name}.wait_share"] = one.wait_share
        counts[f"{name}.communication_share"] = one.communication_share
    return counts


def _starts(settings: Settings) -> dict[str, str | None]:
    """By model, the folder of the earlier model that it starts from, if any."""
    warm = settings.train.warm_start
    return {
        name: newest_before(settings, name) if warm else None for name in settings.models_to_train
    }


def _model_fingerprint(
    name: str, settings: Settings, splits: Splits, frozen_folder: str, start: str | None
) -> str:
    """Fingerprint of all inputs of a model's training, except the number of workers."""
    model = settings.models[name]
    with_centers = isinstance(model, PretrainedCentersSettings)
    return fingerprint.of_values(
        fingerprint.of_package(),
        [splits.folder, frozen_folder, start],
        storage.current(settings.layout.centers, "train_centers") if with_centers else None,
        [name, model.model_dump(), settings.matches.model_dump()],
        {**settings.train.of_the_result, "num_workers": None},
    )


def _published_fingerprint(name: str, settings: Settings) -> str | None:
    """Fingerprint of the published model; None without one, or with another number of workers."""
    try:
        folder = storage.current(settings.layout.model(name), "train")
        description = storage.read_json(f"{folder}/{storage.MODEL}")
    except FileNotFoundError:
        return None
    same_workers = description["train_settings"]["num_workers"] == settings.train.num_workers
    return str(description["fingerprint"]) if same_workers else None
