"""A peer: DIN of FuxiCTR, fed by its `RankDataLoader` with its feature map.

FuxiCTR's model zoo has a DIN for given histories, but the package does not include it. `DIN` is the
same model, built here from the package's layers and base model, as its documentation recommends for
new models. Histories share the embeddings of the candidate's fields (`share_embedding`).

The loader reads Parquet or npz. The rows are converted to npz before the timing starts: the Parquet
loader starts Ray and reads the file again in every epoch, which is several times slower on one
core.

All settings apply. Everything else is its default: Dice in the attention, ReLU in the MLP,
embeddings drawn with a standard deviation of 1e-4, and the norm of the gradient clipped at 10 in
every step. Its `fit` requires validation rows and at the end loads the best saved weights. Here are
no validation rows, so the model overrides both steps to do nothing.

    ENVIRONMENT/bin/python -m bench.peers.fuxictr_din TASK.json RESULT.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import DIN_Attention, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything

from bench.peers import common

DATASET = "rows"
TRAIN, TEST = "train.npz", "test.npz"


class DIN(BaseModel):
    """One attention over all fields of the items together."""

    def __init__(self, features: FeatureMap, task: common.Task) -> None:
        settings, about = task.settings, task.about
        super().__init__(
            features, model_root=str(task.scratch), metrics=["AUC"], monitor="AUC", verbose=0
        )
        self.fields = [common.plain(field) for field in about.item_fields]
        self.histories = [common.plain(history) for history in about.histories]
        self.embeddings = FeatureEmbeddingDict(features, settings.dimension)
        self.attention = DIN_Attention(
            settings.dimension * len(self.fields),
            attention_units=list(settings.attention_units),
            hidden_activations="Dice",
        )
        self.mlp = MLP_Block(
            input_dim=features.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=list(settings.mlp_units),
            hidden_activations="ReLU",
            output_activation=self.output_activation,
        )
        self.compile("adam", "binary_crossentropy", settings.learning_rate)
        self.optimizer = common.adam(self, settings)  # names select only the default Adam
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Click probabilities, under the library's name for them."""
        indices = self.get_inputs(inputs)
        embedded = self.embeddings(indices)
        interest = self.attention(
            torch.cat([embedded[field] for field in self.fields], dim=-1),
            torch.cat([embedded[history] for history in self.histories], dim=-1),
            indices[self.histories[0]] != common.PADDING,
        )
        parts = interest.chunk(len(self.histories), dim=-1)
        embedded.update(zip(self.histories, parts, strict=True))
        return {"y_pred": self.mlp(self.embeddings.dict2tensor(embedded, flatten_emb=True))}

    def eval_step(self) -> None:
        """Does nothing: there are no validation rows."""

    def load_weights(self, checkpoint: str) -> None:
        """Does nothing: the weights of the last step are used."""


def train(task: common.Task) -> common.Trained:
    """Prepare the files, then load them and train."""
    folder = task.scratch / DATASET
    features = _prepare(task, folder)
    seed_everything(task.settings.seed)
    model = DIN(features, task)
    counted = common.Counted(model.mlp)
    options: dict[str, Any] = {
        "data_format": "npz",
        "batch_size": task.settings.batch_candidates,
        "num_workers": 0,
    }
    with common.Clock() as clock:
        rows, _ = RankDataLoader(
            features, stage="train", train_data=str(folder / TRAIN), shuffle=True, **options
        )
        model.fit(rows, epochs=task.settings.epochs)

    def predict() -> np.ndarray:
        rows = RankDataLoader(features, stage="test", test_data=str(folder / TEST), **options)
        return np.asarray(model.predict(rows))

    return common.Trained(model, counted.rows, clock.seconds, predict)


def _prepare(task: common.Task, folder: Path) -> FeatureMap:
    """Write the library's files: the feature map and the rows."""
    about = task.about
    folder.mkdir(exist_ok=True)
    columns = [*about.fields, *about.histories, common.LABEL]
    for file, prepared in ((common.TRAIN, TRAIN), (common.TEST, TEST)):
        arrays = common.read(task.data / file, columns)
        np.savez(
            folder / prepared,
            **{common.plain(name): array for name, array in arrays.items()},
        )
    specifications: list[dict[str, Any]] = [
        {common.plain(field): {"type": "categorical", **_indices(about.sizes[field])}}
        for field in about.fields
    ]
    specifications += [
        {
            common.plain(common.history_of(field)): {
                "type": "sequence",
                "max_len": about.history_length,
                "share_embedding": common.plain(field),
                **_indices(about.sizes[field]),
            }
        }
        for field in about.item_fields
    ]
    path = folder / "feature_map.json"
    path.write_text(
        json.dumps({"dataset_id": DATASET, "labels": [common.LABEL], "features": specifications})
    )
    features = FeatureMap(DATASET, str(folder))
    features.load(str(path), {"embedding_dim": task.settings.dimension})
    return features


def _indices(size: int) -> dict[str, int]:
    return {"vocab_size": size, "padding_idx": common.PADDING}


if __name__ == "__main__":
    common.serve(train, ["fuxictr", "torch", "numpy"])
