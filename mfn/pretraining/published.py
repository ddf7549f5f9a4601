"""Readers of a run date's published E and centers, for training and scoring."""

from __future__ import annotations

from torch import Tensor

from mfn import storage
from mfn.models import artifact
from mfn.settings import Settings
from mfn.splits.published import Splits


def current_frozen(settings: Settings, splits: Splits) -> str:
    """The folder of the run date's frozen embedding E.

    Raises:
        NotPublished: `pretrain_embeddings` has not run for this date.
        WrongArtifact: E was learnt with other vocabularies than those of the splits.
    """
    return _current(settings.layout.embeddings, "pretrain_embeddings", splits)


def key(level: str, interests: int) -> str:
    """Name of the tensor that holds the K centers of a level."""
    return f"{level}.{interests}"


def read_centers(settings: Settings, splits: Splits, interests: int) -> dict[str, Tensor]:
    """The published centers of a run date by level, [K, d].

    Raises:
        NotPublished: `train_centers` has not run for this date.
        WrongArtifact: they were learnt with other vocabularies, or not for this number K.
    """
    folder = _current(settings.layout.centers, "train_centers", splits)
    tensors = artifact.read_tensors(folder)
    levels = [level.name for level in splits.features.levels]
    for level in levels:
        if key(level, interests) not in tensors:
            raise artifact.WrongArtifact(
                f"{folder}: expected {interests} centers of level {level}, got "
                f"{sorted(tensors)}; run jobs/train_centers.py with this model in the settings"
            )
    return {level: tensors[key(level, interests)] for level in levels}


def _current(published: str, job: str, splits: Splits) -> str:
    """The folder that the job published last, after a check of its vocabularies."""
    folder = storage.current(published, job)
    manifest = storage.read_json(f"{folder}/{storage.MANIFEST}")
    artifact.check_vocabularies(manifest["vocabularies"], splits.manifest["vocabularies"], folder)
    return folder
