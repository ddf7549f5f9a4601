"""The models of a day, trained one after the other: what each worker of `train` does.

It loads neither Spark nor Delta.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from mfn import __version__, storage
from mfn.engine.checkpoint import Checkpoints
from mfn.engine.events import Events
from mfn.engine.stats import TrainingStats
from mfn.engine.trainer import Schedule, Trainer, parameter_count
from mfn.engine.workers import Workers
from mfn.log_setup import set_up_logging
from mfn.models import artifact
from mfn.models.batch import Features
from mfn.models.embedding import Exchange, FrozenEmbedding, fields_of
from mfn.models.ranker import Ranker
from mfn.models.settings import PretrainedCentersSettings, RankerSettings
from mfn.pretraining.published import read_centers
from mfn.settings import Settings
from mfn.splits.published import Splits

TABLE = "embedding.weight"
"""The name of the trainable embedding among a model's tensors."""


def train_models(
    workers: Workers,
    settings: Settings,
    splits: Splits,
    frozen_folder: str,
    claims: tuple[storage.Claim, ...],
    todo: Mapping[str, str],
    starts: Mapping[str, str | None],
) -> dict[str, TrainingStats]:
    """Train the models `todo`, which maps their names to what each is made from."""
    own = settings.train
    if workers.size > 1 and workers.rank == 0:
        set_up_logging(settings.log_format)  # its process has not the driver's
    torch.set_num_threads(own.threads)
    frozen = artifact.read_frozen(frozen_folder)
    item_indices = splits.item_indices()
    accounts: dict[str, TrainingStats] = {}
    for name, made in todo.items():
        workers.heartbeat(f"the beginning of {name}")
        exchange = workers if own.table == "sharded" else None
        model = make_model(
            settings.models[name], item_indices, frozen, settings, splits, exchange, starts[name]
        )
        checkpoints = Checkpoints(
            settings.layout.checkpoints(name), made, workers.size, settings.checkpoints
        )
        with contextlib.closing(Events(settings.layout.tensorboard(name))) as events:
            told = events if own.tensorboard and workers.rank == 0 else None
            accounts[name] = fit(model, name, settings, splits, workers, checkpoints, told)
        tensors = model.full_state_dict()
        if workers.rank == 0:
            with storage.holding(claims), storage.publish(settings.layout.model(name)) as folder:
                description = describe(name, model, settings, splits, accounts[name])
                description |= {
                    "embeddings": frozen_folder, "fingerprint": made, "started_from": starts[name]
                }  # fmt: skip
                artifact.write_model(folder, tensors, description)
            checkpoints.remove()
    return accounts


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
) -> TrainingStats:
    """Train a model for the epochs of the settings."""
    own = settings.train
    schedule = Schedule(own.learning_rate, own.batch_requests, own.seed, str(settings.date))
    trainer = Trainer(model, schedule, workers, events)
    return trainer.train(splits.files("train"), own.epochs, name, checkpoints)


def describe(
    name: str, model: Ranker, settings: Settings, splits: Splits, account: TrainingStats
) -> dict[str, Any]:
    """What a model folder says of itself: settings, schema, vocabularies and how it was made."""
    manifest = splits.manifest
    return {
        "name": name,
        "date": settings.date.isoformat(),
        "negative_sampling_rate": manifest["negative_sampling_rate"],
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


@torch.no_grad()
def start_from(model: Ranker, folder: str) -> None:
    """Take the trained parameters of an earlier model; rows of new ids stay as they were drawn.

    The frozen embedding and the centers stay today's.
    """
    schema = storage.read_json(f"{folder}/{storage.MODEL}")["schema"]
    tensors = artifact.read_tensors(folder)
    earlier = fields_of(tensors.pop(TABLE), Features.from_manifest(schema).sizes)
    for name, rows_of_field in earlier.items():
        rows, indices = model.embedding.field(name)
        known = rows_of_field[indices]
        rows[: len(known)] = known
    for name, parameter in model.named_parameters():
        if name != TABLE:
            parameter.copy_(tensors[name])
