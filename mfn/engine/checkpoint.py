"""Checkpoints: a killed training resumes from them and ends with the same parameters.

A checkpoint is a folder with one file of tensors, or one file per worker if the embedding table is
divided among the workers, and a small JSON file. The JSON file is written last. It holds a digest
of each part, so that an incomplete checkpoint is detected, and the fingerprint of the training's
inputs, so that the checkpoint of another training is not used. The order of rows and the state of
random generators are not saved: they follow from the position (`mfn.engine.shards`).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import fsspec
import safetensors.torch
import torch
from torch import Tensor

from mfn import storage
from mfn.engine.stats import EpochStats
from mfn.errors import Unreadable
from mfn.models import artifact
from mfn.settings import CheckpointSettings

ABOUT = "checkpoint.json"
ENDED = "ended"
ROWS = "rows."
"""Prefix in the names of tensors of which a part holds only some rows."""

log = logging.getLogger("mfn")


@dataclass(frozen=True)
class Part:
    """The part of a training's state that one worker holds.

    Attributes:
        common: tensors that are the same on all workers.
        rows: of tensors as long as the embedding table, the rows index, index + count, index +
            2 * count, ...
        index: number of this part, from 0.
        count: number of parts.
    """

    common: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]
    index: int = 0
    count: int = 1

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors to write; only the first part has those that all workers have in common."""
        rows = {f"{ROWS}{name}": tensor for name, tensor in self.rows.items()}
        return {**(self.common if self.index == 0 else {}), **rows}


@dataclass(frozen=True)
class Position:
    """Progress of a training: statistics of each epoch so far, the last perhaps unfinished."""

    epochs: tuple[EpochStats, ...]
    epoch_ended: bool

    def __str__(self) -> str:
        """The name of its checkpoint; names sort in the order of positions."""
        return f"{len(self.epochs):04d}-" + (
            ENDED if self.epoch_ended else f"{self.epochs[-1].steps:09d}"
        )


class Checkpoints:
    """The checkpoints of one training, in a folder on any file system of fsspec."""

    def __init__(
        self, folder: str, fingerprint: str, workers: int, settings: CheckpointSettings
    ) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.workers, self.settings = workers, settings
        self.saved_at = time.monotonic()
        self.files, self.path = fsspec.url_to_fs(folder)

    def due(self, steps: int) -> bool:
        """Whether to write a checkpoint after this many steps of an epoch."""
        minutes = (time.monotonic() - self.saved_at) / 60
        return steps % self.settings.every_steps == 0 or minutes >= self.settings.every_minutes

    def write(self, part: Part, position: Position) -> int:
        """Write a part of a checkpoint; return its digest."""
        content = artifact.as_bytes(part.tensors)
        path = f"{self.path}/{position}/{_name(part.index, part.count)}"
        storage.write_bytes(self.files, path, content)
        return _digest(content)

    def complete(self, position: Position, digests: Sequence[int]) -> None:
        """Mark a checkpoint as complete once all its parts are written; remove old checkpoints.

        The newest ones are kept, and the newest one at the end of an epoch: with another number of
        workers a training can resume only from there.
        """
        about = {
            "fingerprint": self.fingerprint,
            "workers": self.workers,
            "epochs": [asdict(one) for one in position.epochs],
            "epoch_ended": position.epoch_ended,
            "digests": list(digests),
        }
        storage.replace_json(f"{self.folder}/{position}/{ABOUT}", about)
        self.saved_at = time.monotonic()
        names = self._names()
        ended = [one for one in names if one.endswith(ENDED)]
        for old in set(names) - {*names[-self.settings.keep :], *ended[-1:]}:
            self.files.rm(f"{self.path}/{old}", recursive=True)

    def newest(self, index: int = 0, count: int = 1) -> tuple[Position, Part] | None:
        """The newest checkpoint that this training can resume from, or None.

        Newer ones that it cannot use are logged with the reason.

        Args:
            index: number of the part to read, from 0.
            count: number of parts; it may differ from the number that was written.
        """
        for name in reversed(self._names()):
            try:
                return self._read(name, index, count)
            except _Unusable as reason:
                log.warning("%s/%s: skipped checkpoint: %s", self.folder, name, reason)
        return None

    def remove(self) -> None:
        """Remove all checkpoints, once the training is done."""
        if self.files.exists(self.path):
            self.files.rm(self.path, recursive=True)

    def keep_batch(self, worker: int, tensors: Mapping[str, Tensor]) -> str:
        """Write a batch to a file for inspection; return its path."""
        path = f"{self.path}/batch-of-worker-{worker}.safetensors"
        storage.write_bytes(self.files, path, artifact.as_bytes(tensors))
        return str(self.files.unstrip_protocol(path))

    def _names(self) -> list[str]:
        """Names of the checkpoints' folders, oldest first."""
        if not self.files.exists(self.path):
            return []
        found = (str(one).rstrip("/").rpartition("/")[2] for one in self.files.ls(self.path, False))
        return sorted(name for name in found if name[:1].isdigit())

    def _read(self, name: str, index: int, count: int) -> tuple[Position, Part]:
        """Read a part of this checkpoint.

        Raises:
            _Unusable: this training cannot resume from it; the message says why.
        """
        try:
            about = storage.read_json(f"{self.folder}/{name}/{ABOUT}")
            if about["fingerprint"] != self.fingerprint:
                raise _Unusable("made with other rows, settings or code")
            if about["workers"] != self.workers and not about["epoch_ended"]:
                raise _Unusable(
                    f"written within an epoch by {about['workers']} workers, and there are now "
                    f"{self.workers}"
                )
            epochs = tuple(EpochStats(**one) for one in about["epochs"])
            position = Position(epochs, bool(about["epoch_ended"]))
            return position, self._part(name, about["digests"], index, count)
        except FileNotFoundError as error:
            raise _Unusable("incomplete: a file is missing") from error
        except (Unreadable, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Unusable(f"{ABOUT} cannot be read: {error}") from error

    def _part(self, name: str, digests: Sequence[int], index: int, count: int) -> Part:
        """Collect the rows of this part from the parts on disk, which may be divided otherwise.

        One part is read after the other, so that only one is in memory at a time.
        """
        common: dict[str, Tensor] = {}
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}  # by tensor, indices and rows
        for number, digest in enumerate(digests):
            content = self.files.cat_file(f"{self.path}/{name}/{_name(number, len(digests))}")
            if _digest(content) != digest:
                raise _Unusable("damaged: its tensors have another digest than was written")
            for key, tensor in safetensors.torch.load(content).items():
                if key.startswith(ROWS):
                    # Indices of the file's rows in the whole table; then those of this part.
                    rows = number + len(digests) * torch.arange(len(tensor))
                    mine = rows % count == index
                    found.setdefault(key.removeprefix(ROWS), []).append(
                        (rows[mine] // count, tensor[mine])
                    )
                else:
                    common[key] = tensor
        rows_by_name = {key: _ordered(parts) for key, parts in found.items()}
        return Part(common, rows_by_name, index, count)


def _ordered(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Rows in the order of their indices, which are 0, 1, 2, … in some order."""
    indices, rows = (torch.cat(some) for some in zip(*parts, strict=True))
    ordered = torch.empty_like(rows)
    ordered[indices] = rows
    return ordered


class _Unusable(Exception):
    """This training cannot resume from a checkpoint; the message says why."""


def _name(index: int, count: int) -> str:
    return f"part-{index:05d}-of-{count:05d}.safetensors"


def _digest(content: bytes) -> int:
    """A hash of 48 bits: workers exchange it as a float64, which holds such integers exactly."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "big")
