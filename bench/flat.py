"""Convert request rows to the peers' rows: one row per candidate, one column per feature.

Legend: R requests of a file, N history steps, M candidates of a request, n candidates of the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfn.models.batch import ENTITY
from mfn.splits.published import Splits


def write(splits: Splits, folder: Path) -> None:
    """Write train.parquet, test.parquet, and about.json with their columns and sizes.

    Entities become one field per position in an item's list of entities. The item id is the item's
    row in the catalogue: peers identify an item by its id, and all items that are not in the
    vocabulary would otherwise share one id.
    """
    folder.mkdir(parents=True)
    features = splits.features
    items = _item_columns(splits)
    rows = {}
    for part in ("train", "test"):
        tables = [
            _flat(pq.read_table(file.url.removeprefix("file://")), splits, items)
            for file in splits.files(part)
        ]
        whole = pa.concat_tables(tables)
        pq.write_table(whole, folder / f"{part}.parquet")
        rows[part] = whole.num_rows
    users = [f"user.{name}" for name in features.user_fields]
    contexts = [f"context.{name}" for name in features.context_fields]
    sizes = {name: features.sizes[name] for name in [*users, *contexts]}
    sizes |= {name: features.sizes[name.partition(".")[0]] for name in items}
    sizes["item_id"] = len(items["item_id"])
    about = {
        "item_fields": [*items],
        "user_fields": users,
        "context_fields": contexts,
        "sizes": sizes,
        "history_length": features.history_length,
        "train_rows": rows["train"],
        "test_rows": rows["test"],
    }
    (folder / "about.json").write_text(json.dumps(about))


def _item_columns(splits: Splits) -> dict[str, np.ndarray]:
    """Index of every item by field; an array of [items] per column."""
    columns: dict[str, np.ndarray] = {}
    for name, indices in splits.item_indices().items():
        if name not in splits.features.item_fields:
            continue
        if name == "item_id":
            columns[name] = np.arange(len(indices))
        elif name == ENTITY:
            columns |= {f"{name}.{x}": indices[:, x].numpy() for x in range(indices.shape[1])}
        else:
            columns[name] = indices.numpy()
    return columns


def _flat(rows: pa.Table, splits: Splits, items: Mapping[str, np.ndarray]) -> pa.Table:
    """The rows of one file of request rows, one per candidate."""
    features = splits.features
    # Request, position and item index of each candidate, [n]; padding is 0.
    candidates_RM = _wide(rows, "candidates")
    request_n, place_n = np.nonzero(candidates_RM)
    candidate_n = candidates_RM[request_n, place_n]
    history_RN = _wide(rows, "history")
    columns = {
        "label": _wide(rows, "labels")[request_n, place_n].astype(np.int8),
        "request": request_n.astype(np.int32),
        "history_length": rows["history_length"].to_numpy()[request_n],
    }
    for kind, names in (("user", features.user_fields), ("context", features.context_fields)):
        for place, name in enumerate(names):
            columns[f"{kind}.{name}"] = _wide(rows, f"{kind}_fields")[request_n, place]
    # Fields of the candidate, [n], and of the items in its request's history, lists of [n, N].
    lists = {}
    for name, of_item in items.items():
        columns[name] = of_item[candidate_n].astype(np.int32)
        steps = of_item[history_RN][request_n].astype(np.int32)
        ends = np.arange(len(steps) + 1, dtype=np.int32) * steps.shape[1]
        lists[f"history.{name}"] = pa.ListArray.from_arrays(ends, steps.ravel())
    return pa.table({**columns, **lists})


def _wide(rows: pa.Table, name: str) -> np.ndarray:
    """A column of lists of equal length as an array [R, length]."""
    flat: np.ndarray = rows[name].combine_chunks().flatten().to_numpy()
    return flat.reshape(rows.num_rows, -1)
