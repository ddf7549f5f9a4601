"""Checkpoints: what a training that was killed needs to go on to the parameters it would have had.

A checkpoint is a folder of tensors in one part, or in as many as workers share the embedding table,
and a small file that says what they are. That file is written last, with a digest of each part, so
that a torn checkpoint is seen; and it names what the training follows from, so that another's is
not taken for its own. Of the order of rows and of random numbers nothing is kept: they follow from
the position (`mfn.engine.plan`).
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
from mfn.models import artifact
from mfn.settings import CheckpointSettings

ABOUT = "checkpoint.json"
ENDED = "ended"
ROWS = "rows."
"""What the names of tensors begin with of which a part holds some rows."""

log = logging.getLogger("mfn")


@dataclass(frozen=True)
class Part:
    """What one worker holds of a training's state.

    Attributes:
        common: tensors that are the same on all workers.
        rows: of tensors as long as the embedding table, row `place` and each `of`-th after it.
    """

    common: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]
    place: int = 0
    of: int = 1

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is written of it: what all have in common is in the first part alone."""
        rows = {f"{ROWS}{name}": tensor for name, tensor in self.rows.items()}
        return {**(self.common if self.place == 0 else {}), **rows}


@dataclass(frozen=True)
class Position:
    """How far a training has come: the epochs of its epochs, of which the last may have ended."""

    epochs: tuple[EpochStats, ...]
    epoch_ended: bool

    def __str__(self) -> str:
        """The name of its checkpoint; names sort as positions do."""
        return f"{len(self.epochs):04d}-" + (
            ENDED if self.epoch_ended else f"{self.epochs[-1].steps:09d}"
        )


class Checkpoints:
    """The checkpoints of one training, in a folder that fsspec reaches."""

    def __init__(
        self, folder: str, fingerprint: str, workers: int, often: CheckpointSettings
    ) -> None:
        self.folder, self.fingerprint, self.workers, self.often = (
            folder,
            fingerprint,
            workers,
            often,
        )
        self.saved_at = time.monotonic()
        self.files, self.path = fsspec.url_to_fs(folder)

    def due(self, steps: int) -> bool:
        """Whether one should be written after that many steps of an epoch."""
        minutes = (time.monotonic() - self.saved_at) / 60
        return steps % self.often.every_steps == 0 or minutes >= self.often.every_minutes

    def write(self, part: Part, position: Position) -> int:
        """Write a part of a checkpoint; returns its digest."""
        content = artifact.as_bytes(part.tensors)
        path = f"{self.path}/{position}/{_name(part.place, part.of)}"
        storage.write_bytes(self.files, path, content)
        return _digest(content)

    def complete(self, position: Position, digests: Sequence[int]) -> None:
        """Say that all parts of a checkpoint are written; then remove old checkpoints.

        The newest are kept, and the newest of an epoch's end: only that one is of use to another
        number of workers.
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
        for old in set(names) - {*names[-self.often.keep :], *ended[-1:]}:
            self.files.rm(f"{self.path}/{old}", recursive=True)

    def newest(self, place: int = 0, of: int = 1) -> tuple[Position, Part] | None:
        """The newest checkpoint that this training can go on from; others are named in the log.

        Whatever parts it was written in, the rows are those that this place has.
        """
        for name in reversed(self._names()):
            try:
                return self._read(name, place, of)
            except _NotOurs as reason:
                log.warning("%s/%s: passed over: %s", self.folder, name, reason)
        return None

    def remove(self) -> None:
        """Remove all of them, once they are of no more use."""
        if self.files.exists(self.path):
            self.files.rm(self.path, recursive=True)

    def keep_batch(self, worker: int, tensors: Mapping[str, Tensor]) -> str:
        """Keep a batch for inspection; returns where."""
        path = f"{self.path}/batch-of-worker-{worker}.safetensors"
        storage.write_bytes(self.files, path, artifact.as_bytes(tensors))
        return str(self.files.unstrip_protocol(path))

    def _names(self) -> list[str]:
        """Folders of checkpoints, the oldest first."""
        if not self.files.exists(self.path):
            return []
        found = (str(one).rstrip("/").rpartition("/")[2] for one in self.files.ls(self.path, False))
        return sorted(name for name in found if name[:1].isdigit())

    def _read(self, name: str, place: int, of: int) -> tuple[Position, Part]:
        try:
            about = storage.read_json(f"{self.folder}/{name}/{ABOUT}")
            if about["fingerprint"] != self.fingerprint:
                raise _NotOurs("it is of other rows, settings or code")
            if about["workers"] != self.workers and not about["epoch_ended"]:
                raise _NotOurs(
                    f"it lies within an epoch of {about['workers']} workers, and there are now "
                    f"{self.workers}"
                )
            epochs = tuple(EpochStats(**one) for one in about["epochs"])
            position = Position(epochs, bool(about["epoch_ended"]))
            return position, self._part(name, about["digests"], place, of)
        except FileNotFoundError as error:
            raise _NotOurs("it was not written to its end") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _NotOurs(f"what it says of itself cannot be read: {error}") from error

    def _part(self, name: str, digests: Sequence[int], place: int, of: int) -> Part:
        """Read one part after the other, so that no more than one lies in memory."""
        common: dict[str, Tensor] = {}
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for number, digest in enumerate(digests):
            content = self.files.cat_file(f"{self.path}/{name}/{_name(number, len(digests))}")
            if _digest(content) != digest:
                raise _NotOurs("its tensors are not those that were written")
            for key, tensor in safetensors.torch.load(content).items():
                if key.startswith(ROWS):
                    rows = number + len(digests) * torch.arange(len(tensor))
                    mine = rows % of == place
                    found.setdefault(key.removeprefix(ROWS), []).append(
                        (rows[mine] // of, tensor[mine])
                    )
                else:
                    common[key] = tensor
        return Part(common, {key: _ordered(parts) for key, parts in found.items()}, place, of)


def _ordered(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Rows in the order of their numbers, which are 0, 1, 2, … in some order."""
    numbers, rows = (torch.cat(some) for some in zip(*parts, strict=True))
    ordered = torch.empty_like(rows)
    ordered[numbers] = rows
    return ordered


class _NotOurs(Exception):
    """A checkpoint that this training cannot go on from."""


def _name(place: int, of: int) -> str:
    return f"part-{place:05d}-of-{of:05d}.safetensors"


def _digest(content: bytes) -> int:
    """Short enough for a floating point number, in which workers tell it each other."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "big")
