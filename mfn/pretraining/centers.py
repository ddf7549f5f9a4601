"""The job `train_centers`: interest centers C, one set for each level and number of interests.

They are learnt in one process, whatever train.num_workers is. The settings bound the sample of
users, so starting workers would take longer than the training.

Legend: U users, N history steps, K centers, d width of an item vector.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F
from torch import Tensor

from mfn import storage, tables
from mfn.errors import DataRefused
from mfn.job import Counts, job
from mfn.models import artifact
from mfn.models.embedding import FrozenEmbedding, FrozenItems, ItemEncoder, ItemTable, offsets_of
from mfn.models.settings import Centers, PretrainedCentersSettings
from mfn.pretraining.descent import Sample, describe, learn
from mfn.pretraining.profiles import Profile, profiles, table
from mfn.pretraining.published import current_frozen, key
from mfn.schema import INTEREST_CENTERS
from mfn.settings import CenterSettings, Settings
from mfn.splits.published import Splits

log = logging.getLogger("mfn")


def _reads(spark: SparkSession, settings: Settings) -> Any:
    splits = Splits.published(settings)
    frozen = current_frozen(settings, splits)
    return [splits.folder, frozen, settings.centers.model_dump(), wanted(settings)]


@job(
    _reads,
    lambda settings: [f"{settings.layout.centers}/{storage.POINTER}"],
    sections=("centers", "models"),
)
def train_centers(spark: SparkSession, settings: Settings) -> Counts:
    """Learn and publish the interest centers C, from E and the histories of the pretraining rows.

    Raises:
        DataRefused: no user has a history in the pretraining window.
    """
    splits = Splits.published(settings)
    frozen_folder = current_frozen(settings, splits)
    frozen = artifact.read_pretrained(frozen_folder).frozen
    history_UN = torch.from_numpy(histories_of_users(spark, splits, settings.centers))
    if not len(history_UN):
        first, last = splits.manifest["windows"]["pretraining"]
        raise DataRefused(
            f"pretraining: expected users with a history from {first} to {last}, got none; "
            "give logs of more days, or increase windows.history_days"
        )
    encoder = _encoder(splits, frozen)
    tensors: dict[str, Tensor] = {}
    stats: dict[str, dict[str, float | list[float]]] = {}
    item_indices, same_item_I = splits.item_indices(), splits.same_items()
    found: dict[tuple[str, Centers], list[Profile]] = {}
    for level in encoder.levels:
        sample = Sample(encoder, level.name, history_UN)
        for centers in wanted(settings):
            name = key(level.name, centers)
            learnt = learn(sample, centers, settings.centers, name)
            tensors[name] = learnt.centers_Kd
            stats[name] = describe(learnt, sample, centers.marginal)
            found[level.name, centers] = profiles(
                learnt.centers_Kd, sample, item_indices, same_item_I
            )
            log.info("centers %s: %s", name, stats[name])
            if stats[name]["collapsed"]:
                log.warning(
                    "centers %s: %s of %d are empty or duplicates, after %s replacements; "
                    "fewer interests may be enough for these data",
                    name,
                    stats[name]["collapsed"],
                    centers.interests,
                    stats[name]["replaced"],
                )
    of_centers = table(spark, settings, splits, found)
    tables.replace(of_centers, settings.root, INTEREST_CENTERS, {"run_date": [settings.date]})
    with storage.publish(settings.layout.centers) as folder:
        artifact.write_tensors(folder, tensors)
        storage.write_json(
            f"{folder}/{storage.MANIFEST}",
            {
                "centers": stats,
                "profiles": [row.asDict() for row in of_centers.drop("run_date").collect()],
                "embeddings": frozen_folder,
                "vocabularies": splits.manifest["vocabularies"],
                "settings": settings.centers.model_dump(mode="json"),
            },
        )
    return {
        "rows": len(history_UN),
        **{f"L_E_{name}": float(str(one["L_E"])) for name, one in stats.items()},
        **{f"collapsed_{name}": int(str(one["collapsed"])) for name, one in stats.items()},
    }


def wanted(settings: Settings) -> list[Centers]:
    """The centers that the configured models need, each once, in the models' order."""
    models = settings.models.values()
    return list(
        dict.fromkeys(m.centers for m in models if isinstance(m, PretrainedCentersSettings))
    )


def histories_of_users(spark: SparkSession, splits: Splits, settings: CenterSettings) -> np.ndarray:
    """The latest history of a random sample of users, [U, N] item rows.

    U is at most max_steps times batch_users, whatever the size of the data. One shuffle, by user.
    """
    latest = Window.partitionBy("user_id").orderBy(F.desc("request_time"), F.desc("request_id"))
    sample = (
        spark.read.parquet(f"{splits.folder}/pretraining")
        .where(F.col("history_length") > 0)
        .withColumn("place", F.row_number().over(latest))
        .where(F.col("place") == 1)
        .orderBy(F.xxhash64("user_id", F.lit(settings.seed)))
        .limit(settings.max_steps * settings.batch_users)
        .select("history")
    )
    histories = sample.toPandas()["history"].tolist()
    length = int(splits.manifest["history_length"])
    return np.array(histories, dtype=np.int64).reshape(len(histories), length)


def _encoder(splits: Splits, frozen: FrozenEmbedding) -> ItemEncoder:
    features = splits.features
    items = ItemTable(features, splits.item_indices(), offsets_of(features.sizes))
    encoded = FrozenItems(features, frozen.dimension)
    encoded.load(frozen)
    return ItemEncoder(features.levels, items, encoded)
