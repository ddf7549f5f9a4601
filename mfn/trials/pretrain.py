"""E and the centers of each seed, under the seed's own root; all seeds share the splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pyspark.sql import SparkSession

from mfn import job
from mfn.pretraining.centers import train_centers
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.schema import VOCABULARIES
from mfn.settings import Settings
from mfn.trials.plan import pretrainings
from mfn.trials.trial import Trial

SHARED = ("splits", VOCABULARIES.name)
"""Folders in the common root that each seed's root links to."""


def pretrain(spark: SparkSession, root: str, trials: Iterable[Trial]) -> None:
    """Learn E and the centers that trainings read, unless they exist.

    Args:
        root: the common root, which has the splits; it must be a local folder.

    Raises:
        NotPublished: there are no splits of the date of one of the trainings.
    """
    for settings in pretrainings(trials):
        pretrain_root(spark, root, settings)


def pretrain_root(spark: SparkSession, root: str, settings: Settings) -> None:
    """Learn E and the centers of one of `pretrainings`, unless they exist.

    Raises:
        NotPublished: there are no splits of this date.
    """
    share(root, settings.root)
    for step in (pretrain_embeddings, train_centers):
        job.run(step, spark, settings)


def share(root: str, of_seed: str) -> None:
    """Make the root of a seed, with links to the shared folders of the common root."""
    folder = Path(of_seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        if not (folder / name).is_symlink():
            os.symlink(Path(root) / name, folder / name)
