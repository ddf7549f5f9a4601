"""What the peers' scripts share: the task, the rows, the count of what was trained, the result.

It runs in the peers' environments, so it imports only what each of them has: torch, NumPy, PyArrow
and scikit-learn.
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
    """The model and how it is trained; the peers' scripts say what they can't take."""

    dimension: int
    attention_units: list[int]
    batch_candidates: int
    learning_rate: float
    epochs: int
    seed: int
    mlp_units: Sequence[int] = (64, 32)


@dataclass(frozen=True)
class About:
    """What about.json tells of the rows."""

    item_fields: list[str]
    user_fields: list[str]
    context_fields: list[str]
    sizes: dict[str, int]
    history_length: int
    train_rows: int
    test_rows: int

    @property
    def fields(self) -> list[str]:
        """Columns with one index a row."""
        return [*self.user_fields, *self.context_fields, *self.item_fields]

    @property
    def histories(self) -> list[str]:
        """Columns with N indices a row, in the order of the item fields."""
        return [history_of(field) for field in self.item_fields]


@dataclass(frozen=True)
class Task:
    """Rows to train on, a folder for the peer's own files, and whether to predict afterwards."""

    data: Path
    scratch: Path
    settings: Settings
    about: About
    auc: bool


class Counted:
    """Counts the rows that pass through a module in training, whatever its model is told."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows = 0
        module.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:
            self.rows += len(inputs[0])


@dataclass(frozen=True)
class Trained:
    """What a peer's training gives back."""

    model: torch.nn.Module
    rows: int
    seconds: float
    predict: Callable[[], np.ndarray]
    """The probabilities of the test rows, in their order."""


def adam(model: torch.nn.Module, settings: Settings) -> torch.optim.Adam:
    """PyTorch's fused Adam: takes 15 to 30 % off a peer's time with its plain one."""
    return torch.optim.Adam(model.parameters(), settings.learning_rate, fused=True)


def history_of(field: str) -> str:
    """The column with the history of an item field."""
    return f"history.{field}"


def plain(column: str) -> str:
    """A column's name without the points that torch allows in no module's name."""
    return column.replace(".", "__")


def read(path: Path, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file; lists, all of one length, become two-dimensional arrays."""
    table = pq.read_table(path, columns=list(columns))
    return {name: _array(table.column(name).combine_chunks()) for name in columns}


def _array(column: Any) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):  # so combine_chunks answers in some versions
        column = column.chunk(0)
    array: np.ndarray
    if pa.types.is_list(column.type):
        array = column.flatten().to_numpy().reshape(len(column), -1)
    else:
        array = column.to_numpy()
    return array


def serve(train: Callable[[Task], Trained], packages: Sequence[str]) -> None:
    """Train as the task file says, and write the result file.

    Args:
        train: reads the prepared rows and trains on them, inside its seconds.
        packages: those whose versions are told.
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
    given = json.loads(path.read_text())
    data = Path(given["data"]).resolve()
    return Task(
        data=data,
        scratch=Path(given["scratch"]).resolve(),
        settings=Settings(**given["settings"]),
        about=About(**json.loads((data / "about.json").read_text())),
        auc=given["auc"],
    )


class Clock:
    """Seconds of a with block."""

    seconds = 0.0

    def __enter__(self) -> Clock:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._start
