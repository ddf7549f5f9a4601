"""Readers of a run date's published E and centers, for training and scoring."""

from __future__ import annotations

from torch import Tensor

from mfn import storage
from mfn.models import artifact
from mfn.models.settings import Centers
from mfn.settings import Settings
from mfn.splits.published import Splits


def current_frozen(settings: Settings, splits: Splits) -> str:
    """The folder of the run date's frozen embedding E.

    Raises:
        NotPublished: `pretrain_embeddings` has not run for this date.
        WrongArtifact: E was learnt with other vocabularies than those of the splits.
    """
    return _current(settings.layout.embeddings, "pretrain_embeddings", splits)


def key(level: str, centers: Centers) -> str:
    """Name of the tensor that holds these centers of a level."""
    length = "free" if centers.norm is None else f"{centers.norm:g}"
    return f"{level}.{centers.interests}.{centers.marginal}.{length}"


def read_centers(settings: Settings, splits: Splits, centers: Centers) -> dict[str, Tensor]:
    """The published centers of a run date by level, [K, e].

    Raises:
        NotPublished: `train_centers` has not run for this date.
        WrongArtifact: they were learnt with other vocabularies, or not for these settings.
    """
    folder = _current(settings.layout.centers, "train_centers", splits)
    tensors = artifact.read_tensors(folder)
    levels = [level.name for level in splits.features.levels]
    for level in levels:
        if key(level, centers) not in tensors:
            raise artifact.WrongArtifact(
                f"{folder}: expected the centers {key(level, centers)}, got "
                f"{sorted(tensors)}; run jobs/train_centers.py with this model in the settings"
            )
    return {level: tensors[key(level, centers)] for level in levels}


def _current(published: str, job: str, splits: Splits) -> str:
    """The folder that the job published last, after a check of its vocabularies."""
    folder = storage.current(published, job)
    manifest = storage.read_json(f"{folder}/{storage.MANIFEST}")
    artifact.check_vocabularies(manifest["vocabularies"], splits.manifest["vocabularies"], folder)
    return folder
