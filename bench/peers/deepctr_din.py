"""A peer: DIN of DeepCTR-Torch, trained by `fit` on NumPy arrays as in its documentation.

The arrays are read directly from the benchmark's Parquet files, without preparation. As in its
examples, histories are `VarLenSparseFeat`s with a length, and share the embedding of the
candidate's field.

All settings apply. Adam is PyTorch's fused one, because `compile` accepts an optimizer object.
Everything else is its default: Dice in the attention, ReLU in the MLP, embeddings drawn with a
standard deviation of 1e-4, and a loss summed over the batch. It also computes the mean of every
history, but does not use it. It passes indices as 32-bit floats, so indices above 16,777,216 would
be rounded.

    ENVIRONMENT/bin/python -m bench.peers.deepctr_din TASK.json RESULT.json
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.peers import common

# On import, the package looks for a newer version on the network, without a timeout. This stub
# answers at once that there is none.
_OFFLINE: Any = SimpleNamespace(
    get=lambda url: SimpleNamespace(status_code=404), codes=SimpleNamespace(ok=200)
)
sys.modules["requests"] = _OFFLINE

from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat  # noqa: E402
from deepctr_torch.models import DIN  # noqa: E402

LARGEST_INDEX = 1 << 24
"""All integers up to this one are exact as 32-bit floats."""


def train(task: common.Task) -> common.Trained:
    """Read the rows and train.

    Raises:
        ValueError: an index would be rounded.
    """
    settings, about = task.settings, task.about
    if max(about.sizes.values()) > LARGEST_INDEX:
        raise ValueError(f"expected sizes up to {LARGEST_INDEX}, got {about.sizes}")
    model = DIN(
        _columns(about, settings.dimension),
        list(map(common.plain, about.item_fields)),
        dnn_hidden_units=tuple(settings.mlp_units),
        att_hidden_size=tuple(settings.attention_units),
        l2_reg_embedding=0,
        seed=settings.seed,
    )
    model.compile(common.adam(model, settings), "binary_crossentropy")
    counted = common.Counted(model.dnn)
    with common.Clock() as clock:
        inputs, labels = _read(task, common.TRAIN)
        model.fit(
            inputs,
            labels,
            batch_size=settings.batch_candidates,
            epochs=settings.epochs,
            verbose=0,
        )

    def predict() -> np.ndarray:
        inputs, _ = _read(task, common.TEST)
        return np.asarray(model.predict(inputs, settings.batch_candidates)).reshape(-1)

    return common.Trained(model, counted.rows, clock.seconds, predict)


def _columns(about: common.About, width: int) -> list[SparseFeat | VarLenSparseFeat]:
    fields = [SparseFeat(common.plain(field), about.sizes[field], width) for field in about.fields]
    histories = [
        VarLenSparseFeat(
            SparseFeat(
                _history(field), about.sizes[field], width, embedding_name=common.plain(field)
            ),
            maxlen=about.history_length,
            length_name=common.LENGTH,
        )
        for field in about.item_fields
    ]
    return [*fields, *histories]


def _read(task: common.Task, file: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    about = task.about
    names = {
        **{field: common.plain(field) for field in about.fields},
        **{common.history_of(field): _history(field) for field in about.item_fields},
        common.LENGTH: common.LENGTH,
    }
    arrays = common.read(task.data / file, [*names, common.LABEL])
    labels = arrays[common.LABEL].astype(np.float32)
    return {name: arrays[column] for column, name in names.items()}, labels


def _history(field: str) -> str:
    """The library's name for the history of a field."""
    return f"hist_{common.plain(field)}"


if __name__ == "__main__":
    common.serve(train, ["deepctr-torch", "torch", "numpy"])
