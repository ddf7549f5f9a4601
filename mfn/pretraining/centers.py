"""Interest centers C, one set a level and number of interests: Alg. 1 of the paper.

Legend: B users of a mini-batch, N history steps, K centers, d width of an item's vector.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F
from sklearn.cluster import kmeans_plusplus
from torch import Tensor

from mfn import storage
from mfn.job import Counts, DataRefused, job
from mfn.models import artifact
from mfn.models.centers import Marginal, assignment, entropies
from mfn.models.embedding import FrozenEmbedding, FrozenItems, ItemEncoder, ItemTable, offsets_of
from mfn.models.settings import PretrainedCentersSettings
from mfn.pretraining.embeddings import current_frozen
from mfn.schema import PADDING
from mfn.settings import CenterSettings, Settings
from mfn.splits.published import Splits
from mfn.training.progress import Progress

log = logging.getLogger("mfn")


def _reads(spark: SparkSession, settings: Settings) -> Any:
    splits = Splits.published(settings)
    frozen = current_frozen(settings, splits)
    return [splits.folder, frozen, settings.centers.model_dump(), wanted(settings)]


@job(_reads, lambda settings: [f"{settings.centers_folder}/{storage.POINTER}"])
def train_centers(spark: SparkSession, settings: Settings) -> Counts:
    """Learn the interest centers C on the pretraining rows' histories and E; publish them."""
    splits = Splits.published(settings)
    frozen_folder = current_frozen(settings, splits)
    frozen = artifact.read_frozen(frozen_folder)
    history_UN = torch.from_numpy(histories_of_users(spark, splits, settings.centers))
    if not len(history_UN):
        first, last = splits.manifest["windows"]["pretraining"]
        raise DataRefused(
            f"pretraining: expected users with a history from {first} to {last}, got none; "
            "give longer logs, or more windows.history_days"
        )
    encoder = _encoder(splits, frozen)
    tensors: dict[str, Tensor] = {}
    account: dict[str, dict[str, float | list[float]]] = {}
    for level in encoder.levels:
        for interests in wanted(settings):
            sample = Sample(encoder, level.name, history_UN)
            name = key(level.name, interests)
            tensors[name] = learn(sample, interests, settings.centers, name)
            account[name] = describe(tensors[name], sample, settings.centers.marginal)
            log.info("centers %s: %s", name, account[name])
    with storage.publish(settings.centers_folder) as folder:
        artifact.write_tensors(folder, tensors)
        storage.write_json(
            f"{folder}/{storage.MANIFEST}",
            {
                "centers": account,
                "embeddings": frozen_folder,
                "vocabularies": splits.manifest["vocabularies"],
                "settings": settings.centers.model_dump(mode="json"),
            },
        )
    return {
        "rows": len(history_UN),
        **{f"L_E_{name}": float(str(told["L_E"])) for name, told in account.items()},
        **{f"empty_{name}": float(str(told["empty"])) for name, told in account.items()},
    }


def wanted(settings: Settings) -> list[int]:
    """The numbers of interests that the configured models ask centers for."""
    models = settings.models.values()
    return sorted({m.interests for m in models if isinstance(m, PretrainedCentersSettings)})


def key(level: str, interests: int) -> str:
    """Name of a level's K centers among the published tensors."""
    return f"{level}.{interests}"


def read_centers(settings: Settings, splits: Splits, interests: int) -> dict[str, Tensor]:
    """The published centers of a run date by level, [K, d].

    Raises:
        NotPublished: `train_centers` has not run for this date.
        WrongArtifact: they were learnt with other vocabularies, or not for this K.
    """
    folder = storage.current(settings.centers_folder, "train_centers")
    account = storage.read_json(f"{folder}/{storage.MANIFEST}")
    artifact.check_vocabularies(account["vocabularies"], splits.manifest["vocabularies"], folder)
    tensors = artifact.read_tensors(folder)
    levels = [level.name for level in splits.features.levels]
    for level in levels:
        if key(level, interests) not in tensors:
            raise artifact.WrongArtifact(
                f"{folder}: expected {interests} centers of the level {level}, got "
                f"{sorted(tensors)}; run jobs/train_centers.py with this model configured"
            )
    return {level: tensors[key(level, interests)] for level in levels}


def histories_of_users(spark: SparkSession, splits: Splits, settings: CenterSettings) -> np.ndarray:
    """The latest history of a random sample of users, [U, N] item rows.

    U is at most as many as all steps can take, whatever the data's size. One shuffle, by user.
    """
    latest = Window.partitionBy("user_id").orderBy(F.desc("request_time"), F.desc("request_id"))
    sample = (
        spark.read.parquet(f"{splits.folder}/pretraining")
        .where(F.col("history_length") > 0)
        .withColumn("place", F.row_number().over(latest))
        .where(F.col("place") == 1)
        .orderBy(F.xxhash64("user_id", F.lit(settings.seed)))
        .limit(settings.steps * settings.batch_users)
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


@dataclass(frozen=True)
class Sample:
    """Histories of users, to be seen through E at one level."""

    encoder: ItemEncoder
    level: str
    history_UN: Tensor

    def take(self, users_B: Tensor) -> tuple[Tensor, Tensor]:
        """E of these users' behaviours, [B, N, d], and which steps are real, [B, N]."""
        history_BN = self.history_UN[users_B]
        items, inverse_BN = torch.unique(history_BN, return_inverse=True)
        vectors = self.encoder.frozen_vectors(items)[self.level]
        return vectors[inverse_BN], history_BN != PADDING

    def draw(self, users: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """A uniform sample of users."""
        return self.take(torch.randint(len(self.history_UN), (users,), generator=random))


def learn(sample: Sample, interests: int, settings: CenterSettings, name: str) -> Tensor:
    """Alg. 1: K centers, [K, d], from k-means++ on E by gradient descent on L_E."""
    random = torch.Generator().manual_seed(settings.seed)
    frozen_BNd, mask_BN = sample.draw(settings.batch_users, random)
    centers_Kd = start(frozen_BNd[mask_BN], interests, settings.seed).requires_grad_()
    descent = torch.optim.SGD([centers_Kd], lr=settings.learning_rate)
    with Progress(f"centers {name}", settings.steps, shown=True) as progress:
        for _ in range(settings.steps):
            frozen_BNd, mask_BN = sample.draw(settings.batch_users, random)
            P_BNK = assignment(frozen_BNd, centers_Kd, mask_BN)
            loss = entropies(P_BNK, mask_BN, settings.marginal).loss
            descent.zero_grad()
            loss.backward()
            descent.step()
            progress.advance(f"L_E {float(loss.detach()):.4f}")
    return centers_Kd.detach()


def start(behaviours_nd: Tensor, interests: int, seed: int) -> Tensor:
    """K behaviours that lie far apart (k-means++); fewer distinct ones are drawn again."""
    count = min(interests, len(behaviours_nd))
    chosen, _ = kmeans_plusplus(behaviours_nd.numpy(), count, random_state=seed)
    again = [place % count for place in range(interests)]
    return torch.from_numpy(chosen[again].copy())


@torch.no_grad()
def describe(
    centers_Kd: Tensor, sample: Sample, marginal: Marginal
) -> dict[str, float | list[float]]:
    """What the centers are worth, over a sample of at most 4096 users."""
    users = torch.arange(min(len(sample.history_UN), 4096))
    frozen_BNd, mask_BN = sample.take(users)
    P_BNK = assignment(frozen_BNd, centers_Kd, mask_BN)
    found = entropies(P_BNK, mask_BN, marginal)
    P_nK = P_BNK[mask_BN]
    nearest_n = P_nK.argmax(dim=1)
    share_K = torch.bincount(nearest_n, minlength=len(centers_Kd)) / len(nearest_n)
    return {
        "L_E": float(found.loss),
        "L_SE": float(found.single),
        "L_ME": float(found.marginal),
        "behaviour_share": [round(float(share), 4) for share in share_K],
        "empty": int((share_K == 0).sum()),
        "norm": float(centers_Kd.norm(dim=1).mean()),
        "mean_largest_share": float(P_nK.max(dim=1).values.mean()),
    }
