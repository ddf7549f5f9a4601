"""The job `train_centers`: interest centers C, one set for each level and number of interests.

They are learnt in one process, whatever train.num_workers is. The settings bound the sample of
users, so starting workers would take longer than the training. What the centers are worth is
measured here, without labels (`mfn.pretraining.center_measures`).

Legend: U users, N history steps, K centers, d width of an item vector.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pyspark.sql import Observation, SparkSession
from pyspark.sql import functions as F
from torch import Tensor

from mfn import storage, tables
from mfn.errors import DataRefused
from mfn.job import Counts, job
from mfn.models import artifact
from mfn.models.embedding import ItemTable, offsets_of
from mfn.models.settings import Centers, PretrainedCentersSettings
from mfn.pretraining.center_measures import CenterMeasures, measure, warnings
from mfn.pretraining.descent import Sample, learn
from mfn.pretraining.frozen import encoder_of
from mfn.pretraining.histories import latest_histories, matrix, sample
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
    torch.set_num_threads(settings.centers.threads)
    splits = Splits.published(settings)
    frozen_folder = current_frozen(settings, splits)
    frozen = artifact.read_pretrained(frozen_folder).frozen
    users = sample_of_users(spark, splits, settings.centers)
    if not len(users.history_UN):
        first, last = splits.manifest["windows"]["pretraining"]
        raise DataRefused(
            f"pretraining: expected users with a history from {first} to {last}, got none; "
            "give logs of more days, or increase windows.history_days"
        )
    log.info("centers: a sample of %d of %d users", len(users.history_UN), users.users)
    features, item_indices = splits.features, splits.item_indices()
    items = ItemTable(features, item_indices, offsets_of(features.sizes))
    encoder = encoder_of(features, items, frozen)
    tensors: dict[str, Tensor] = {}
    measures: dict[str, CenterMeasures] = {}
    described: dict[str, dict[str, Any]] = {}
    same_item_I = splits.same_items()
    found: dict[tuple[str, Centers], list[Profile]] = {}
    for level in encoder.levels:
        of_level = Sample(encoder, level.name, users.history_UN)
        for centers in wanted(settings):
            name = key(level.name, centers)
            learnt = learn(of_level, centers, settings.centers, name)
            tensors[name] = learnt.centers_Kd
            measures[name] = measure(learnt, of_level)
            # The settings that the centers were learnt for; the norm that was measured is beside.
            asked = {"level": level.name, "marginal": centers.marginal, "held_norm": centers.norm}
            described[name] = {**asked, **asdict(measures[name])}
            found[level.name, centers] = profiles(
                learnt.centers_Kd, of_level, item_indices, same_item_I
            )
            log.info("centers %s: %s", name, measures[name])
            for line in warnings(measures[name]):
                log.warning("centers %s: %s", name, line)
    of_centers = table(spark, settings, splits, found)
    tables.replace(of_centers, settings.root, INTEREST_CENTERS, {"run_date": [settings.date]})
    with storage.publish(settings.layout.centers) as folder:
        artifact.write_tensors(folder, tensors)
        storage.write_json(
            f"{folder}/{storage.MANIFEST}",
            {
                "centers": described,
                "sampled_users": len(users.history_UN),
                "users": users.users,
                "profiles": [row.asDict() for row in of_centers.drop("run_date").collect()],
                "embeddings": frozen_folder,
                "vocabularies": splits.manifest["vocabularies"],
                "settings": settings.centers.model_dump(mode="json"),
            },
        )
    return {
        "rows": len(users.history_UN),
        "users": users.users,
        **{f"L_E_{name}": one.L_E for name, one in measures.items()},
        **{f"converged_{name}": int(one.converged) for name, one in measures.items()},
        **{f"collapsed_{name}": one.empty + one.duplicates for name, one in measures.items()},
    }


def wanted(settings: Settings) -> list[Centers]:
    """The centers that the configured models need, each once, in the models' order."""
    models = settings.models.values()
    return list(
        dict.fromkeys(m.centers for m in models if isinstance(m, PretrainedCentersSettings))
    )


@dataclass(frozen=True)
class Users:
    """A random sample of users, and of how many it is.

    Attributes:
        history_UN: the latest history of each user of the sample, item rows.
        users: number of users with a history.
    """

    history_UN: Tensor
    users: int


def sample_of_users(spark: SparkSession, splits: Splits, settings: CenterSettings) -> Users:
    """The latest history of a random sample of at most sample_users users.

    One shuffle, by user, of each task's latest history of a user.
    """
    counted = Observation()
    histories = latest_histories(spark, splits, "pretraining").observe(
        counted, F.count("*").alias("users")
    )
    drawn = sample(histories, settings.sample_users, settings.seed).select("history").toPandas()
    history_UN = matrix(drawn["history"], int(splits.manifest["history_length"]))
    return Users(history_UN, int(counted.get["users"]))
