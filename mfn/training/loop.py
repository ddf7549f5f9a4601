"""The work of each worker of the job `train`: it trains the models of a day one after the other.

This module imports neither Spark nor Delta.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
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
from mfn.models.embedding import Exchange, Pretrained, fields_of
from mfn.models.ranker import Ranker
from mfn.models.settings import PretrainedCentersSettings, RankerSettings
from mfn.models.similarity import CENTERS
from mfn.pretraining.published import read_centers
from mfn.settings import Settings
from mfn.splits.published import Splits

TABLE = "embedding.weight"
"""Name of the trainable embedding table among a model's tensors."""

log = logging.getLogger("mfn")


def train_models(
    workers: Workers,
    settings: Settings,
    splits: Splits,
    frozen_folder: str,
    claims: tuple[storage.Claim, ...],
    todo: Mapping[str, str],
    starts: Mapping[str, str | None],
) -> dict[str, TrainingStats]:
    """Train models, and publish each one as soon as it is done.

    Args:
        workers: this worker and its collectives.
        frozen_folder: folder of the frozen embedding E.
        claims: claims of this run; it publishes nothing once a later run has taken one over.
        todo: models to train, by name, each with the fingerprint of its inputs.
        starts: by model, the folder of the earlier model that it starts from, if any.

    Returns:
        the statistics of each training, by model.
    """
    own = settings.train
    if workers.size > 1 and workers.rank == 0:
        set_up_logging(settings.log_format)  # a worker's process does not inherit the driver's
    torch.set_num_threads(own.threads)
    pretrained = artifact.read_pretrained(frozen_folder)
    item_indices = splits.item_indices()
    stats: dict[str, TrainingStats] = {}
    for name, fingerprint in todo.items():
        workers.heartbeat(f"the start of {name}")
        exchange = workers if own.table == "sharded" else None
        model = make_model(
            settings.models[name], item_indices, pretrained, settings, splits, exchange,
            starts[name],
        )  # fmt: skip
        checkpoints = Checkpoints(
            settings.layout.checkpoints(name), fingerprint, workers.size, settings.checkpoints
        )
        with contextlib.closing(Events(settings.layout.tensorboard(name))) as events:
            written = events if own.tensorboard and workers.rank == 0 else None
            stats[name] = fit(model, name, settings, splits, workers, checkpoints, written)
        tensors = model.full_state_dict()
        if workers.rank == 0:
            with storage.holding(claims), storage.publish(settings.layout.model(name)) as folder:
                description = describe(name, model, settings, splits, stats[name])
                description |= {
                    "embeddings": frozen_folder,
                    "fingerprint": fingerprint,
                    "started_from": starts[name],
                }
                artifact.write_model(folder, tensors, description)
            checkpoints.remove()
    return stats


def make_model(
    model_settings: RankerSettings,
    item_indices: Mapping[str, torch.Tensor],
    pretrained: Pretrained,
    settings: Settings,
    splits: Splits,
    exchange: Exchange | None = None,
    start: str | None = None,
) -> Ranker:
    """A model before training: drawn from train.seed, with E, and with centers if it uses them.

    Args:
        exchange: if given, the rows of the trainable embedding are divided among the workers.
        start: folder of an earlier model; if given, its parameters are the initial values.
    """
    model = Ranker(
        model_settings,
        splits.features,
        item_indices,
        settings.embeddings.dimension,
        settings.embeddings.initial_std,
        settings.train.seed,
        exchange,
        pretrained.frozen.dimension,
        settings.matches,
    )
    centers = (
        read_centers(settings, splits, model_settings.centers)
        if isinstance(model_settings, PretrainedCentersSettings)
        else {}
    )
    model.load_frozen(pretrained.frozen, centers)
    if start is not None:
        # Rows of new ids keep their random values: today's E is another space than the earlier
        # model's.
        start_from(model, start)
    elif model_settings.start_at_pretrained:
        model.start_at(pretrained.start)
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
    """Train a model with the learning rate, batch size and epochs of the settings."""
    own = settings.train
    schedule = Schedule(own.learning_rate, own.batch_requests, own.seed, str(settings.date))
    trainer = Trainer(model, schedule, workers, events)
    files = splits.files("train")
    stats = trainer.train(files, own.epochs, name, checkpoints)
    measures = trainer.measures(files) if workers.rank == 0 else {}
    if measures:
        log.info("%s: %s", name, ", ".join(f"{k} {v:.3f}" for k, v in measures.items()))
    return replace(stats, measures=measures)


def describe(
    name: str, model: Ranker, settings: Settings, splits: Splits, stats: TrainingStats
) -> dict[str, Any]:
    """The description in a model folder: settings, schema, vocabularies, statistics of training."""
    manifest, of_training = splits.manifest, asdict(stats)
    measures = of_training.pop("measures")
    return {
        "name": name,
        "date": settings.date.isoformat(),
        "negative_sampling_rate": manifest["negative_sampling_rate"],
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code_version": __version__,
        "settings": model.settings.model_dump(mode="json"),
        "train_settings": settings.train.model_dump(mode="json"),
        "dimension": model.embedding.weight.shape[1],
        "frozen_dimension": model.frozen_dimension,
        "matches": settings.matches.model_dump(mode="json"),
        "parameters": parameter_count(model),
        "measures": measures,
        "train": of_training,
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
    """Copy the trained parameters of an earlier model; rows of new ids keep their random values.

    The frozen embedding and the centers remain those of today: the earlier model's tuned centers
    are points in the space of another E.
    """
    schema = storage.read_json(f"{folder}/{storage.MODEL}")["schema"]
    tensors = artifact.read_tensors(folder)
    earlier = fields_of(tensors.pop(TABLE), Features.from_manifest(schema).sizes)
    for name, rows_of_field in earlier.items():
        rows, indices = model.embedding.field(name)
        known = rows_of_field[indices]
        rows[: len(known)] = known
    for name, parameter in model.named_parameters():
        if name != TABLE and not name.endswith(CENTERS):
            parameter.copy_(tensors[name])
