"""Random request rows of any shape, without logs, to measure the speed of training.

All histories are full, so that no computation is on padding. Labels are random, so these rows say
nothing about the quality of a model.

Legend: R requests of a file, M candidates, N history steps, I items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfn import storage
from mfn.indices import FIRST_INDEX
from mfn.settings import Settings

ROWS_OF_A_FILE, TEST_ROWS = 5_000, 500
COARSE_SIZES = {"category": 2_000, "brand": 20_000}
USER_SIZES, CONTEXT_SIZES = {"age": 10, "gender": 5}, {"device": 6}
CLICKED_SHARE = 0.1


@dataclass(frozen=True)
class Shape:
    """Numbers of requests, candidates per request, history steps and items.

    Items are drawn from a Zipf distribution, as in real logs, or uniformly, so that the number of
    distinct items in a batch hardly depends on the number of items.
    """

    requests: int
    candidates: int
    history: int
    items: int
    distribution: Literal["zipf", "uniform"] = "zipf"

    def draw(self, random: np.random.Generator, rows: int, width: int) -> np.ndarray:
        """Draw items, [rows, width]; Zipf: the item of rank n has a probability of about 1/n."""
        if self.distribution == "uniform":
            return random.integers(FIRST_INDEX, FIRST_INDEX + self.items, (rows, width))
        ranks = np.exp(random.random((rows, width)) * math.log(self.items)).astype(np.int64)
        drawn: np.ndarray = FIRST_INDEX + np.minimum(ranks - 1, self.items - 1)
        return drawn


def publish(settings: Settings, shape: Shape) -> None:
    """Publish splits of this shape for the run date, with a few test rows."""
    random = np.random.default_rng(shape.items)
    splits = {}
    with storage.publish(settings.layout.splits) as folder:
        Path(folder, "items").mkdir()
        pq.write_table(_items(random, shape.items), f"{folder}/items/part-00000.parquet")
        for split, requests in {"train": shape.requests, "test": TEST_ROWS}.items():
            Path(folder, split).mkdir()
            files = []
            for place, first in enumerate(range(0, requests, ROWS_OF_A_FILE)):
                name, rows = f"part-{place:05d}.parquet", min(ROWS_OF_A_FILE, requests - first)
                table = _rows(random, rows, shape)
                pq.write_table(table, f"{folder}/{split}/{name}", row_group_size=rows)
                files.append({"name": name, "rows": rows})
            candidates = requests * shape.candidates
            splits[split] = {"rows": requests, "candidates": candidates, "files": files}
        storage.write_json(f"{folder}/{storage.MANIFEST}", _manifest(settings, shape, splits))


def _items(random: np.random.Generator, items: int) -> pa.Table:
    rows = items + FIRST_INDEX
    columns = {"item": np.arange(rows, dtype=np.int32), "item_id": np.arange(rows, dtype=np.int32)}
    for name, size in COARSE_SIZES.items():
        columns[name] = random.integers(FIRST_INDEX, size, rows, dtype=np.int32)
        columns[name][:FIRST_INDEX] = range(FIRST_INDEX)
    no_entities = pa.array([[]] * rows, pa.list_(pa.int32()))
    return pa.table({**columns, "entities": no_entities})


def _rows(random: np.random.Generator, rows: int, shape: Shape) -> pa.Table:
    def drawn(sizes: dict[str, int]) -> np.ndarray:
        return np.stack([random.integers(FIRST_INDEX, s, rows) for s in sizes.values()], axis=1)

    labels = random.random((rows, shape.candidates)) < CLICKED_SHARE
    return pa.table(
        {
            "user_fields": _lists(drawn(USER_SIZES)),
            "context_fields": _lists(drawn(CONTEXT_SIZES)),
            "history": _lists(shape.draw(random, rows, shape.history)),
            "history_length": pa.array(np.full(rows, shape.history, dtype=np.int32)),
            "candidates": _lists(shape.draw(random, rows, shape.candidates)),
            "labels": _lists(labels),
            "candidate_count": pa.array(np.full(rows, shape.candidates, dtype=np.int32)),
        }
    )


def _lists(values: np.ndarray) -> pa.Array:
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(ends, values.astype(np.int32).ravel())


def _manifest(settings: Settings, shape: Shape, splits: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"item_id": shape.items + FIRST_INDEX, **COARSE_SIZES}
    sizes |= {f"user.{name}": size for name, size in USER_SIZES.items()}
    sizes |= {f"context.{name}": size for name, size in CONTEXT_SIZES.items()}
    return {
        "date": settings.date.isoformat(),
        "splits": splits,
        "vocabularies": {
            name: {"size": size, "fingerprint": f"of {name}"} for name, size in sizes.items()
        },
        "item_fields": ["item_id", *COARSE_SIZES],
        "user_fields": [*USER_SIZES],
        "context_fields": [*CONTEXT_SIZES],
        "history_length": shape.history,
        "candidates": shape.candidates,
    }
