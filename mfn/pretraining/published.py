"""What training and scoring read of a day's pretraining."""

from __future__ import annotations

from torch import Tensor

from mfn import storage
from mfn.models import artifact
from mfn.settings import Settings
from mfn.splits.published import Splits


def current_frozen(settings: Settings, splits: Splits) -> str:
    """The folder of the run date's E.

    Raises:
        NotPublished: `pretrain_embeddings` has not run for this date.
        WrongArtifact: E was learnt on splits with other vocabularies.
    """
    return _current(settings.layout.embeddings, "pretrain_embeddings", splits)


def key(level: str, interests: int) -> str:
    """Name of a level's K centers among the published tensors."""
    return f"{level}.{interests}"


def read_centers(settings: Settings, splits: Splits, interests: int) -> dict[str, Tensor]:
    """The published centers of a run date by level, [K, d].

    Raises:
        NotPublished: `train_centers` has not run for this date.
        WrongArtifact: they were learnt with other vocabularies, or not for this K.
    """
    folder = _current(settings.layout.centers, "train_centers", splits)
    tensors = artifact.read_tensors(folder)
    levels = [level.name for level in splits.features.levels]
    for level in levels:
        if key(level, interests) not in tensors:
            raise artifact.WrongArtifact(
                f"{folder}: expected {interests} centers of the level {level}, got "
                f"{sorted(tensors)}; run jobs/train_centers.py with this model configured"
            )
    return {level: tensors[key(level, interests)] for level in levels}


def _current(published: str, job: str, splits: Splits) -> str:
    """The folder that the job published last, if it was learnt with the vocabularies of these."""
    folder = storage.current(published, job)
    account = storage.read_json(f"{folder}/{storage.MANIFEST}")
    artifact.check_vocabularies(account["vocabularies"], splits.manifest["vocabularies"], folder)
    return folder
