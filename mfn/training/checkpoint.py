"""Checkpoints: what a training that was killed needs to go on to the parameters it would have had.

A checkpoint is a folder of tensors, and a small file that says what they are. That file is written
last, with a digest of the tensors, so that a torn checkpoint is seen; and it names what the
training follows from, so that another's is not taken for its own. Of the order of rows and of
random numbers nothing is kept: they follow from the position (`mfn.training.plan`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import fsspec
import safetensors.torch
import torch
from torch import Tensor

from mfn import storage
from mfn.settings import CheckpointSettings

TENSORS = "tensors.safetensors"
ABOUT = "checkpoint.json"
ENDED = "ended"

log = logging.getLogger("mfn")


@dataclass(frozen=True)
class Tally:
    """What an epoch has done so far, over all workers; the seconds are those of worker 0."""

    steps: int = 0
    requests: int = 0
    candidates: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    talked: float = 0.0


@dataclass(frozen=True)
class Saved:
    """A checkpoint: tensors by name, the epoch it lies in, and the tallies up to it.

    The last tally is that of the epoch, which may have ended.
    """

    tensors: Mapping[str, Tensor]
    tallies: tuple[Tally, ...]
    epoch_ended: bool


class Checkpoints:
    """The checkpoints of one training, in a folder that fsspec reaches."""

    def __init__(
        self, folder: str, made_from: str, workers: int, often: CheckpointSettings
    ) -> None:
        self.folder, self.made_from, self.workers, self.often = folder, made_from, workers, often
        self.saved_at = time.monotonic()
        self.files, self.path = fsspec.url_to_fs(folder)

    def due(self, steps: int) -> bool:
        """Whether one should be written after that many steps of an epoch."""
        minutes = (time.monotonic() - self.saved_at) / 60
        return steps % self.often.steps == 0 or minutes >= self.often.minutes

    def save(self, saved: Saved) -> None:
        """Write a checkpoint; then remove all but the newest, and the newest of an epoch's end.

        Only that one is of use to another number of workers.

        Raises:
            ValueError: a tensor holds a number that is NaN or infinite; nothing is written.
        """
        for name, tensor in saved.tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} holds numbers that are NaN or infinite")
        at = ENDED if saved.epoch_ended else f"{saved.tallies[-1].steps:09d}"
        name = f"{len(saved.tallies):04d}-{at}"
        inner = f"{self.path}/{name}"
        self.files.makedirs(inner, exist_ok=True)
        content = safetensors.torch.save({k: v.contiguous() for k, v in saved.tensors.items()})
        self.files.pipe_file(f"{inner}/{TENSORS}", content)
        about = {
            "made_from": self.made_from,
            "workers": self.workers,
            "tallies": [asdict(one) for one in saved.tallies],
            "epoch_ended": saved.epoch_ended,
            "digest": _digest(content),
        }
        storage.replace_json(f"{self.folder}/{name}/{ABOUT}", about)
        self.saved_at = time.monotonic()
        names = self._names()
        ended = [one for one in names if one.endswith(ENDED)]
        for old in set(names) - {*names[-self.often.kept :], *ended[-1:]}:
            self.files.rm(f"{self.path}/{old}", recursive=True)

    def newest(self) -> Saved | None:
        """The newest checkpoint that this training can go on from; others are named in the log."""
        for name in reversed(self._names()):
            try:
                return self._read(name)
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
        self.files.makedirs(self.path, exist_ok=True)
        self.files.pipe_file(path, safetensors.torch.save(dict(tensors)))
        return str(self.files.unstrip_protocol(path))

    def _names(self) -> list[str]:
        """Folders of checkpoints, the oldest first."""
        if not self.files.exists(self.path):
            return []
        found = (str(one).rstrip("/").rpartition("/")[2] for one in self.files.ls(self.path, False))
        return sorted(name for name in found if name[:1].isdigit())

    def _read(self, name: str) -> Saved:
        try:
            about: dict[str, Any] = json.loads(self.files.cat_file(f"{self.path}/{name}/{ABOUT}"))
            if about["made_from"] != self.made_from:
                raise _NotOurs("it is of other rows, settings or code")
            if about["workers"] != self.workers and not about["epoch_ended"]:
                raise _NotOurs(
                    f"it lies within an epoch of {about['workers']} workers, and there are now "
                    f"{self.workers}"
                )
            content = self.files.cat_file(f"{self.path}/{name}/{TENSORS}")
            if _digest(content) != about["digest"]:
                raise _NotOurs("its tensors are not those that were written")
            tallies = tuple(Tally(**one) for one in about["tallies"])
            tensors = safetensors.torch.load(content)
            return Saved(tensors, tallies, bool(about["epoch_ended"]))
        except FileNotFoundError as error:
            raise _NotOurs("it was not written to its end") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _NotOurs(f"what it says of itself cannot be read: {error}") from error


class _NotOurs(Exception):
    """A checkpoint that this training cannot go on from."""


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
