"""Read the published splits of a day, for training and scoring."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mfn import storage
from mfn.errors import Unreadable
from mfn.indices import ITEM_FIELDS
from mfn.locations import files_at
from mfn.models.batch import ENTITY, Features
from mfn.settings import Settings

VECTOR_OF_ENTITIES = "entities"
THREADS = 16


@dataclass(frozen=True)
class SplitFile:
    """A Parquet file of one row group, and its number of rows by the footer."""

    url: str
    rows: int


@dataclass(frozen=True)
class Splits:
    """One version of a day's splits: the folder and its manifest."""

    folder: str
    manifest: Mapping[str, Any]

    @classmethod
    def published(cls, settings: Settings) -> Splits:
        """The current splits of the run date.

        Raises:
            NotPublished: `build_splits` has not run for this date.
        """
        return cls.at(storage.current(settings.layout.splits, "build_splits"))

    @classmethod
    def at(cls, folder: str) -> Splits:
        """The splits in the folder of one version."""
        return cls(folder, storage.read_json(f"{folder}/{storage.MANIFEST}"))

    @property
    def features(self) -> Features:
        """The fields of this day's rows."""
        return Features.from_manifest(self.manifest)

    def files(self, split: str) -> list[SplitFile]:
        """Files of a split that have rows, with URLs as Petastorm needs them."""
        files, path = files_at(f"{self.folder}/{split}")
        return [
            SplitFile(_url(files, f"{path}/{one['name']}"), int(one["rows"]))
            for one in self.manifest["splits"][split]["files"]
            if one["rows"]
        ]

    def check_files(self, *splits: str) -> None:
        """Check that all files of these splits are there, and have the rows that were published.

        It reads the end of each file, in threads, and no rows.

        Raises:
            Unreadable: files are missing, damaged or changed; the message names all of them.
        """
        files = [file for split in splits for file in self.files(split)]
        with ThreadPoolExecutor(THREADS) as threads:
            problems = [problem for problem in threads.map(_problem, files) if problem]
        if problems:
            raise Unreadable(
                "\n".join([*problems, "make the splits again: jobs/build_splits.py --force"])
            )

    def item_indices(self) -> dict[str, Tensor]:
        """The item table, one tensor per field: [I] each, and `entity` [I, X].

        Raises:
            Unreadable: a file of it is damaged.
        """
        columns = [*(name for name in ITEM_FIELDS if name in self.features.item_fields)]
        table = self._item_table(*columns, VECTOR_OF_ENTITIES)
        indices = {name: torch.tensor(table.column(name).to_numpy()) for name in columns}
        flat = table.column(VECTOR_OF_ENTITIES).combine_chunks().flatten().to_numpy()
        indices[ENTITY] = torch.tensor(flat.reshape(len(table), -1))
        return {name: column.long() for name, column in indices.items()}

    def same_items(self) -> Tensor:
        """For each row of the item table, the first row of the same item, [I]."""
        keys = self._item_table("key").column("key").combine_chunks()
        codes = keys.dictionary_encode().indices.fill_null(-1).to_numpy()
        _, first, item = np.unique(codes, return_index=True, return_inverse=True)
        # Rows without key are the reserved ones.
        return torch.from_numpy(np.where(codes < 0, np.arange(len(codes)), first[item]))

    def _item_table(self, *columns: str) -> pa.Table:
        """Columns of the item table, sorted by row."""
        import pyarrow.dataset as ds  # here: it imports pandas, which would slow down Spark tasks

        files, path = files_at(f"{self.folder}/items")
        try:
            table = (
                ds.dataset(path, filesystem=files, format="parquet")
                .to_table(columns=["item", *columns])
                .sort_by("item")
                .combine_chunks()
            )
        except pa.ArrowException as error:
            raise Unreadable(
                f"{self.folder}/items: expected Parquet files, got something else ({error}); run "
                "jobs/build_splits.py again"
            ) from error
        rows = table.column("item").to_numpy()
        if not np.array_equal(rows, np.arange(len(rows))):
            raise ValueError(f"{self.folder}/items: expected the rows 0, 1, 2, … once each")
        return table


def _problem(file: SplitFile) -> str | None:
    """What is wrong with a file, as far as its footer shows; None if nothing is."""
    import pyarrow.parquet as pq  # here: as in `_item_table`

    files, path = files_at(file.url)
    try:
        with files.open(path, "rb") as opened:
            rows = pq.ParquetFile(opened).metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        return f"{file.url}: cannot be read as Parquet; the reader says: {said}"
    if rows != file.rows:
        return f"{file.url}: expected {file.rows} rows, as its split was published, got {rows}"
    return None


def _url(files: fsspec.AbstractFileSystem, path: str) -> str:
    return str(files.unstrip_protocol(path))
