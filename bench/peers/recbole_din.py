"""A peer: DIN of RecBole, fed by its own data loader.

Histories are given, so the rows have the format that its documentation describes for this case:
atomic files of splits (`benchmark_filename`), with the history as `item_id_list:token_seq`, and a
table of items. It reads them once and saves its data loaders (`save_dataloaders`). The timing
starts with loading these, the fastest way that RecBole has. Nothing is filtered and no negatives
are drawn, because the rows have labels.

Differences from the settings:

- Attention and MLP share one list of units. It is set to that of the attention, which takes most of
  the time.
- The attention uses the sigmoid function, the MLP uses Dice and batch normalization, and embeddings
  are initialized by Xavier; no setting changes that.
- Its DIN does not use fields of users and of context. They are omitted, and all rows have the same
  user.
- It looks up the other fields of candidates and histories in its table of items, so an item must
  have the same category in all rows.

    ENVIRONMENT/bin/python -m bench.peers.recbole_din TASK.json RESULT.json
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.utils import load_split_dataloaders
from recbole.model.sequential_recommender import DIN
from recbole.trainer import Trainer
from recbole.utils import init_seed

from bench.peers import common

DATASET = "rows"
USER, LIST_SUFFIX = "user", "_list"
SPLITS = {"train": (common.TRAIN, None), "valid": (common.TEST, 10), "test": (common.TEST, None)}
"""Source file and number of rows of each split. RecBole requires validation rows; none are used."""

Rows = dict[str, np.ndarray]


def train(task: common.Task) -> common.Trained:
    """Prepare the files, then load them and train."""
    warnings.simplefilter("ignore", FutureWarning)  # pandas warns for every column
    # On import of the package, another model's module turns on a debug check of all gradients for
    # NaN, for the whole process. Without the check, training takes about half the time.
    torch.autograd.set_detect_anomaly(False)
    with contextlib.chdir(task.scratch):  # it writes TensorBoard files to the working directory
        config = _config(task, _prepare(task))
        init_seed(task.settings.seed, config["reproducibility"])
        prepared, *_ = data_preparation(config, create_dataset(config))
        model = DIN(config, prepared.dataset)
        trainer = Trainer(config, model)
        trainer.optimizer = common.adam(model, task.settings)  # names select only the default Adam
        del prepared
        counted = common.Counted(model.dnn_mlp_layers)
        with common.Clock() as clock:
            rows, _, test = load_split_dataloaders(config)
            trainer.fit(rows, verbose=False, saved=False)

    def predict() -> np.ndarray:
        model.eval()
        rows, size = test.dataset.inter_feat, task.settings.batch_candidates
        with torch.no_grad():
            batches = (rows[start : start + size] for start in range(0, len(rows), size))
            return np.concatenate([model.predict(batch).numpy() for batch in batches])

    return common.Trained(model, counted.rows, clock.seconds, predict)


def _config(task: common.Task, longest: int) -> Config:
    settings, item = task.settings, task.about.item_fields[0]
    chosen: dict[str, Any] = {
        "data_path": str(task.scratch),
        "checkpoint_dir": str(task.scratch),
        "benchmark_filename": list(SPLITS),
        "save_dataloaders": True,
        "USER_ID_FIELD": USER,
        "ITEM_ID_FIELD": item,
        "LABEL_FIELD": common.LABEL,
        "LIST_SUFFIX": LIST_SUFFIX,
        "MAX_ITEM_LIST_LENGTH": longest,
        "alias_of_item_id": [item + LIST_SUFFIX],
        "load_col": None,  # all columns
        "train_neg_sample_args": None,
        # Full-ranking evaluation, which never runs here: RecBole can save data loaders of labelled
        # rows, but not load them.
        "eval_args": {"order": "TO", "mode": "full"},
        "metrics": ["Recall"],
        "valid_metric": "Recall@10",
        "repeatable": True,  # required for sequential models
        "embedding_size": settings.dimension,
        "mlp_hidden_size": list(settings.attention_units),
        "train_batch_size": settings.batch_candidates,
        "learning_rate": settings.learning_rate,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "use_gpu": False,
        "show_progress": False,
    }
    return Config(model="DIN", dataset=DATASET, config_dict=chosen)


def _prepare(task: common.Task) -> int:
    """Write the atomic files, and remove data loaders that were saved for other files.

    Returns:
        the length of the longest history; all histories are padded to it.
    """
    for saved in task.scratch.glob("*.pth"):
        saved.unlink()
    folder = task.scratch / DATASET
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    about = task.about
    columns = [*about.item_fields, *about.histories, common.LENGTH, common.LABEL]
    parts = {file: common.read(task.data / file, columns) for file in (common.TRAIN, common.TEST)}
    for split, (file, count) in SPLITS.items():
        path = folder / f"{DATASET}.{split}.inter"
        _write_rows(about.item_fields[0], parts[file], count, path)
    _write_items(about, list(parts.values()), folder / f"{DATASET}.item")
    return max(int(rows[common.LENGTH].max()) for rows in parts.values())


def _write_rows(item: str, rows: Rows, count: int | None, path: Path) -> None:
    names = (item, common.history_of(item), common.LENGTH, common.LABEL)
    columns = [rows[name][:count] for name in names]
    with path.open("w") as out:
        out.write(
            f"{USER}:token\t{item}:token\t{item}{LIST_SUFFIX}:token_seq\t{common.LABEL}:float\n"
        )
        for candidate, history, length, label in zip(*columns, strict=True):
            listed = " ".join(map(str, history[:length].tolist()))
            out.write(f"1\t{candidate}\t{listed}\t{label}\n")


def _write_items(about: common.About, parts: list[Rows], path: Path) -> None:
    """Write all items, so that embeddings have their full size; unseen items have empty fields.

    Raises:
        ValueError: an item has two values of a field.
    """
    item, *fields = about.item_fields
    table = np.zeros((about.sizes[item], len(fields)), np.int32)  # [items, fields]
    # By field: items, and their values in the same rows, of candidates and of histories.
    seen = [
        (column, rows[items].reshape(-1), rows[values].reshape(-1))
        for column, field in enumerate(fields)
        for rows in parts
        for items, values in (
            (item, field),
            (common.history_of(item), common.history_of(field)),
        )
    ]
    for column, items, values in seen:
        table[items, column] = values
    for column, items, values in seen:
        if not np.array_equal(table[items, column], values):
            raise ValueError(f"expected one {fields[column]} per {item}")
    with path.open("w") as out:
        out.write("\t".join(f"{field}:token" for field in about.item_fields) + "\n")
        for index, values in enumerate(table.tolist()[1:], start=1):
            out.write("\t".join([str(index), *(str(value or "") for value in values)]) + "\n")


if __name__ == "__main__":
    common.serve(train, ["recbole", "torch", "numpy"])
