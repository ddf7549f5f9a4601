"""The plain click model of the pretraining rows: Base, stopped early.

The epoch with the lowest log loss on the last pretraining day is kept. All models start their
trainable embedding at its vectors. E may be made of what they have learnt.

Legend: V rows of the table of all fields, D width of a field's embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mfn.engine.stats import TrainingStats
from mfn.engine.trainer import Schedule, Trainer
from mfn.engine.workers import Workers
from mfn.models.embedding import TableStart, fields_of
from mfn.models.ranker import Ranker
from mfn.models.settings import BaseSettings
from mfn.pretraining.frozen import FieldVectors
from mfn.settings import Settings
from mfn.splits.published import Splits

log = logging.getLogger("mfn")


@dataclass(frozen=True)
class ClickModel:
    """The embedding of the click model before and after its training, by field.

    Attributes:
        initial: by field, [size, D], as drawn.
        trained: by field, [size, D].
        epochs: statistics of each epoch.
        log_losses: on the validation rows, after each epoch.
    """

    initial: dict[str, Tensor]
    trained: dict[str, Tensor]
    epochs: Sequence[TrainingStats]
    log_losses: Sequence[float]

    @property
    def start(self) -> TableStart:
        """The start of the trainable table of all models."""
        return TableStart(dict(self.trained), {name: self._met(name) for name in self.trained})

    def learnt(self, name: str) -> FieldVectors:
        """What training has added to the vectors of a field's values.

        The vectors themselves are mostly their random start. A value that was rarely met has
        learnt little, and its vector stays short.
        """
        return FieldVectors(self.trained[name] - self.initial[name], self._met(name))

    def _met(self, name: str) -> Tensor:
        """Mask of the values that training has changed."""
        return (self.trained[name] != self.initial[name]).any(dim=1)


def train_click_model(workers: Workers, settings: Settings, splits: Splits) -> ClickModel:
    """Train Base on the pretraining rows, until the validation log loss rises."""
    own = settings.embeddings
    torch.set_num_threads(own.threads)
    model = Ranker(
        BaseSettings(start_at_pretrained=False),
        splits.features,
        splits.item_indices(),
        own.dimension,
        own.initial_std,
        own.seed,
    )
    initial_VD = best_VD = model.embedding.weight.detach().clone()
    schedule = Schedule(own.learning_rate, own.batch_requests, own.seed, str(settings.date))
    trainer = Trainer(model, schedule, workers)
    epochs: list[TrainingStats] = []
    losses: list[float] = []
    for epoch in range(own.max_epochs):
        epochs.append(trainer.epoch(splits.files("pretraining"), epoch, "click model"))
        losses.append(trainer.log_loss(splits.files("pretraining_validation")))
        log.info("click model: epoch %d, validation log loss %.4f", epoch + 1, losses[-1])
        if losses[-1] > min(losses):
            break
        best_VD = model.embedding.weight.detach().clone()
    sizes = splits.features.sizes
    return ClickModel(fields_of(initial_VD, sizes), fields_of(best_VD, sizes), epochs, losses)
