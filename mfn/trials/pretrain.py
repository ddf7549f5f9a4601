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
from mfn.trials.plan import of_seed

SHARED = ("splits", VOCABULARIES.name)
"""Folders in the common root that each seed's root links to."""


def pretrain(
    spark: SparkSession, settings: Settings, seeds: Iterable[int], words: str | None = None
) -> None:
    """Learn E and the centers of every seed, unless they exist."""
    for seed in seeds:
        seed_settings = share(settings, seed, words)
        for step in (pretrain_embeddings, train_centers):
            job.run(step, spark, seed_settings)


def share(settings: Settings, seed: int, words: str | None = None) -> Settings:
    """Make the root of a seed, with links to the shared folders; give its settings.

    The root must be a local folder.
    """
    seed_settings = of_seed(settings, seed, words)
    root = Path(seed_settings.root)
    root.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        if not (root / name).is_symlink():
            os.symlink(Path(settings.root) / name, root / name)
    return seed_settings
