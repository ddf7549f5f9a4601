"""E and the centers of each seed, under a root of its own that shares the splits of all."""

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
"""What the root of a seed has of the root of all."""


def pretrain(
    spark: SparkSession, settings: Settings, seeds: Iterable[int], words: str | None = None
) -> None:
    """Learn E and the centers of every seed, unless they are there."""
    for seed in seeds:
        of_this = share(settings, seed, words)
        for step in (pretrain_embeddings, train_centers):
            job.run(step, spark, of_this)


def share(settings: Settings, seed: int, words: str | None = None) -> Settings:
    """Give a seed its root, with links to what is shared; the root must be a local folder."""
    of_this = of_seed(settings, seed, words)
    root = Path(of_this.root)
    root.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        if not (root / name).is_symlink():
            os.symlink(Path(settings.root) / name, root / name)
    return of_this
