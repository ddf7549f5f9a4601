"""Shared code of the peers' scripts: the task, the rows, the count of trained rows, the result.

It runs in the peers' environments, so it imports only packages that all of them have: torch, NumPy,
PyArrow and scikit-learn.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.metrics import roc_auc_score

TRAIN, TEST = "train.parquet", "test.parquet"
LABEL, LENGTH = "label", "history_length"
PADDING = 0


@dataclass(frozen=True)
class Settings:
    """Settings of model and training; each peer's script lists those that it cannot apply."""

    dimension: int
    attention_units: list[int]
    batch_candidates: int
    learning_rate: float
    epochs: int
    seed: int
    mlp_units: Sequence[int] = (64, 32)


@dataclass(frozen=True)
class About:
    """Content of about.json, which describes the rows."""

    item_fields: list[str]
    user_fields: list[str]
    context_fields: list[str]
    sizes: dict[str, int]
    history_length: int
    train_rows: int
    test_rows: int

    @property
    def fields(self) -> list[str]:
        """Columns with one index per row."""
        return [*self.user_fields, *self.context_fields, *self.item_fields]

    @property
    def histories(self) -> list[str]:
        """Columns with N indices per row, in the order of the item fields."""
        return [history_of(field) for field in self.item_fields]


@dataclass(frozen=True)
class Task:
    """A training to run.

    Attributes:
        data: folder of the rows.
        scratch: folder for the peer's files.
        auc: whether to predict the test rows and compute AUC.
    """

    data: Path
    scratch: Path
    settings: Settings
    about: About
    auc: bool


class Counted:
    """Counts the rows that pass through a module in training, to check what was really trained."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows = 0
        module.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:
            self.rows += len(inputs[0])


@dataclass(frozen=True)
class Trained:
    """Result of a peer's training."""

    model: torch.nn.Module
    rows: int
    seconds: float
    predict: Callable[[], np.ndarray]
    """Returns the probabilities of the test rows, in their order."""


def adam(model: torch.nn.Module, settings: Settings) -> torch.optim.Adam:
    """PyTorch's fused Adam; it makes a peer 15 to 30 % faster than its default Adam."""
    return torch.optim.Adam(model.parameters(), settings.learning_rate, fused=True)


def history_of(field: str) -> str:
    """The column with the history of an item field."""
    return f"history.{field}"


def plain(column: str) -> str:
    """A column's name without dots: torch does not allow them in names of modules."""
    return column.replace(".", "__")


def read(path: Path, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file; lists of equal length become two-dimensional arrays."""
    table = pq.read_table(path, columns=list(columns))
    return {name: _array(table.column(name).combine_chunks()) for name in columns}


def _array(column: Any) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):  # combine_chunks returns this in some versions
        column = column.chunk(0)
    array: np.ndarray
    if pa.types.is_list(column.type):
        array = column.flatten().to_numpy().reshape(len(column), -1)
    else:
        array = column.to_numpy()
    return array


def serve(train: Callable[[Task], Trained], packages: Sequence[str]) -> None:
    """Run the training of the task file, and write the result file.

    Args:
        train: reads the prepared rows and trains on them; both count in its seconds.
        packages: packages whose versions are written to the result.
    """
    torch.set_num_threads(1)
    task = _task(Path(sys.argv[1]))
    task.scratch.mkdir(parents=True, exist_ok=True)
    trained = train(task)
    auc = None
    if task.auc:
        labels = read(task.data / TEST, [LABEL])[LABEL]
        auc = float(roc_auc_score(labels, trained.predict()))
    result = {
        "candidates": trained.rows,
        "seconds": trained.seconds,
        "auc": auc,
        "parameters": sum(
            parameter.numel() for parameter in trained.model.parameters() if parameter.requires_grad
        ),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    Path(sys.argv[2]).write_text(json.dumps(result))


def _task(path: Path) -> Task:
    task = json.loads(path.read_text())
    data = Path(task["data"]).resolve()
    return Task(
        data=data,
        scratch=Path(task["scratch"]).resolve(),
        settings=Settings(**task["settings"]),
        about=About(**json.loads((data / "about.json").read_text())),
        auc=task["auc"],
    )


class Clock:
    """Measures the seconds of a with block."""

    seconds = 0.0

    def __enter__(self) -> Clock:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._start
