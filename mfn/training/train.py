"""The job `train`: all models of a day, one after the other, in one launch of the workers."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from pyspark.sql import SparkSession

from mfn import __version__, fingerprint, storage
from mfn.errors import DataRefused
from mfn.job import Counts, job, set_up_logging
from mfn.models import artifact
from mfn.models.embedding import Exchange, FrozenEmbedding
from mfn.models.ranker import Ranker
from mfn.models.settings import PretrainedCentersSettings, RankerSettings
from mfn.pretraining.published import current_frozen, read_centers
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.training.checkpoint import Checkpoints
from mfn.training.events import Events
from mfn.training.loop import Account, Schedule, Trainer, parameter_count
from mfn.training.warm_start import newest_before, refuse_another, start_from
from mfn.training.workers import Workers, launch

log = logging.getLogger("mfn")


def _reads(spark: SparkSession, settings: Settings) -> Any:
    splits = Splits.published(settings)
    models = settings.models_to_train
    with_centers = any(isinstance(one, PretrainedCentersSettings) for one in models.values())
    return [
        splits.folder,
        current_frozen(settings, splits),
        storage.current(settings.centers_folder, "train_centers") if with_centers else None,
        settings.train.of_the_result,
        _starts(settings),
        {name: model.model_dump() for name, model in models.items()},
    ]


def _writes(settings: Settings) -> list[str]:
    return [f"{settings.model_folder(name)}/{storage.POINTER}" for name in settings.models_to_train]


def _part(settings: Settings) -> str:
    return "".join(f"-{name}" for name in sorted(settings.train.only))


@job(_reads, _writes, part=_part)
def train(spark: SparkSession, settings: Settings) -> Counts:
    """Train every configured model on the training rows; publish each as it is done.

    A model that is published already, from the same rows, settings and code, is left alone; one
    whose training was killed goes on from its last checkpoint.

    Raises:
        DataRefused: there are no training rows, or E, centers or an earlier model do not fit them.
        TrainingFailed: a model's loss is no number any more (with one worker).
        WorkersFailed: one of several workers has ended; it has said why.
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
            read_centers(settings, splits, model.interests)
    todo = {
        name: made
        for name in settings.models_to_train
        if (made := _model_fingerprint(name, settings, splits, frozen_folder, starts[name]))
        != _published(name, settings)
        or settings.force
    }
    for name in todo:
        if (start := starts[name]) is not None:
            refuse_another(spark, settings, splits, name, start)
            log.info("%s: starts from %s", name, start)
    work = partial(
        _train,
        settings=settings,
        splits=splits,
        frozen_folder=frozen_folder,
        claims=storage.claims(),
        todo=todo,
        starts=starts,
    )
    own = settings.train
    accounts = launch(work, own.num_workers, own.stall_seconds) if todo else {}
    told: dict[str, int | float | str] = {
        "rows": sum(one.requests for one in accounts.values()),
        "workers": own.num_workers,
    }
    if left_alone := len(settings.models_to_train) - len(todo):
        told["models_left_alone"] = left_alone
    for name, account in accounts.items():
        told[f"{name}.loss"] = account.loss
        told[f"{name}.candidates_per_second"] = round(account.candidates_per_second)
        told[f"{name}.wait_share"] = account.wait_share
        told[f"{name}.communication_share"] = account.communication_share
    return told


def _train(
    workers: Workers,
    settings: Settings,
    splits: Splits,
    frozen_folder: str,
    claims: tuple[storage.Claim, ...],
    todo: Mapping[str, str],
    starts: Mapping[str, str | None],
) -> dict[str, Account]:
    """Train the models `todo`, which maps their names to what each is made from."""
    own = settings.train
    if workers.size > 1 and workers.rank == 0:
        set_up_logging(settings.log_format)  # its process has not the driver's
    torch.set_num_threads(own.threads)
    frozen = artifact.read_frozen(frozen_folder)
    item_indices = splits.item_indices()
    accounts: dict[str, Account] = {}
    for name, made in todo.items():
        workers.alive(f"the beginning of {name}")
        exchange = workers if own.table == "sharded" else None
        model = make_model(
            settings.models[name], item_indices, frozen, settings, splits, exchange, starts[name]
        )
        checkpoints = Checkpoints(
            f"{settings.model_folder(name)}/checkpoints", made, workers.size, settings.checkpoints
        )
        with contextlib.closing(Events(settings.events_folder(name))) as events:
            told = events if own.tensorboard and workers.rank == 0 else None
            accounts[name] = fit(model, name, settings, splits, workers, checkpoints, told)
        tensors = model.whole_state()
        if workers.rank == 0:
            with storage.holding(claims), storage.publish(settings.model_folder(name)) as folder:
                description = describe(name, model, settings, splits, accounts[name])
                description |= {
                    "embeddings": frozen_folder, "fingerprint": made, "started_from": starts[name]
                }  # fmt: skip
                artifact.write_model(folder, tensors, description)
            checkpoints.remove()
    return accounts


def _starts(settings: Settings) -> dict[str, str | None]:
    """By model, the folder of the earlier one that it starts from, if any."""
    warm = settings.train.warm_start
    return {
        name: newest_before(settings, name) if warm else None for name in settings.models_to_train
    }


def _model_fingerprint(
    name: str, settings: Settings, splits: Splits, frozen_folder: str, start: str | None
) -> str:
    """Fingerprint of all that a model's parameters follow from, but the number of workers."""
    model = settings.models[name]
    with_centers = isinstance(model, PretrainedCentersSettings)
    return fingerprint.of_values(
        fingerprint.of_package(),
        [splits.folder, frozen_folder, start],
        storage.current(settings.centers_folder, "train_centers") if with_centers else None,
        [name, model.model_dump()],
        {**settings.train.of_the_result, "num_workers": None},
    )


def _published(name: str, settings: Settings) -> str | None:
    """What the published model was made from; None if there is none."""
    try:
        folder = storage.current(settings.model_folder(name), "train")
        found = storage.read_json(f"{folder}/{storage.MODEL}")
    except FileNotFoundError:
        return None
    same_workers = found["train_settings"]["num_workers"] == settings.train.num_workers
    return str(found["fingerprint"]) if same_workers else None


def make_model(
    model_settings: RankerSettings,
    item_indices: Mapping[str, torch.Tensor],
    frozen: FrozenEmbedding,
    settings: Settings,
    splits: Splits,
    exchange: Exchange | None = None,
    start: str | None = None,
) -> Ranker:
    """A model as training begins: drawn from train.seed, with E, and its centers if it has any.

    With an `exchange` its trainable embedding is spread over the workers. It begins with the
    parameters of the model in the folder `start`, if there is one.
    """
    model = Ranker(
        model_settings,
        splits.features,
        item_indices,
        frozen.dimension,
        settings.embeddings.initial_std,
        settings.train.seed,
        exchange,
    )
    centers = (
        read_centers(settings, splits, model_settings.interests)
        if isinstance(model_settings, PretrainedCentersSettings)
        else {}
    )
    model.load_frozen(frozen, centers)
    if start is not None:
        # Rows of new ids then stay as they are drawn: E of today is no space of an earlier model.
        start_from(model, start)
    elif model_settings.start_at_frozen:
        model.start_at(frozen)
    return model


def fit(
    model: Ranker,
    name: str,
    settings: Settings,
    splits: Splits,
    workers: Workers,
    checkpoints: Checkpoints | None = None,
    events: Events | None = None,
) -> Account:
    """Train a model for the epochs of the settings."""
    own = settings.train
    schedule = Schedule(own.learning_rate, own.batch_requests, own.seed, str(settings.date))
    trainer = Trainer(model, schedule, workers, events)
    return trainer.train(splits.files("train"), own.epochs, name, checkpoints)


def describe(
    name: str, model: Ranker, settings: Settings, splits: Splits, account: Account
) -> dict[str, Any]:
    """What a model folder says of itself: settings, schema, vocabularies and how it was made."""
    manifest = splits.manifest
    return {
        "name": name,
        "date": settings.date.isoformat(),
        "negatives_kept": manifest["negatives_kept"],
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code_version": __version__,
        "settings": model.settings.model_dump(mode="json"),
        "train_settings": settings.train.model_dump(mode="json"),
        "dimension": model.embedding.weight.shape[1],
        "parameters": parameter_count(model),
        "train": asdict(account),
        "splits": splits.folder,
        "schema": {
            key: manifest[key]
            for key in (
                "item_fields", "constant_fields", "user_fields", "context_fields",
                "history_length", "candidates", "entities", "vocabularies",
            )
        },
    }  # fmt: skip
