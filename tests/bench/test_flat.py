"""The peers' rows have all candidates of the request rows, with the same values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from bench import flat
from mfn.settings import Settings
from mfn.splits.published import Splits
from tests.synthetic import N, X, publish_splits


def test_each_candidate_has_one_row_with_its_features_and_history(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings()
    publish_splits(settings, {"train": [12, 9], "test": [7]})
    splits = Splits.published(settings)
    folder = tmp_path / "flat"
    flat.write(splits, folder)
    items = {name: column.tolist() for name, column in splits.item_indices().items()}
    about = json.loads((folder / "about.json").read_text())
    for split in ("train", "test"):
        expected = []
        for file in splits.files(split):
            for row in pq.read_table(file.url.removeprefix("file://")).to_pylist():
                for position in range(row["candidate_count"]):
                    item, history = row["candidates"][position], row["history"]
                    expected.append(
                        (
                            row["labels"][position],
                            row["user_fields"][0], row["context_fields"][0],
                            item, items["category"][item], items["entity"][item][X - 2],
                            history, [items["brand"][one] for one in history],
                            row["history_length"],
                        )
                    )  # fmt: skip
        found = [
            (
                row["label"], row["user.age"], row["context.device"],
                row["item_id"], row["category"], row[f"entity.{X - 2}"],
                row["history.item_id"], row["history.brand"], row["history_length"],
            )
            for row in pq.read_table(folder / f"{split}.parquet").to_pylist()
        ]  # fmt: skip
        assert found == expected
        assert about[f"{split}_rows"] == len(expected)
    assert about["history_length"] == N
    assert about["sizes"]["item_id"] == len(items["category"])
    assert about["sizes"]["entity.0"] == splits.features.sizes["entity"]
