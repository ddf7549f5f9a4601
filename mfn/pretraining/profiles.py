"""A description of each interest center in the words of the catalogue: table `interest_centers`.

Legend: U users of the sample, N history steps, n behaviours, I items, K centers, d width of an
item vector, X entities of an item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import Tensor
from torch.nn import functional

from mfn.indices import FIRST_INDEX
from mfn.models.batch import ENTITY
from mfn.models.entropies import assignment
from mfn.models.settings import Centers
from mfn.pretraining.descent import Sample, duplicates, nearest
from mfn.schema import INTEREST_CENTERS
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.splits.vocabulary import usable

CATEGORY = "category"
ITEMS, VALUES = 10, 5
"""Maximum number of items, and of categories or words, in a profile."""


@dataclass(frozen=True)
class Profile:
    """A center: what it is worth on the sample's behaviours, and indices that describe it.

    A behaviour belongs to its nearest center; a user belongs to every center of her behaviours.

    Attributes:
        behaviour_share: share of behaviours that belong to it.
        user_share: share of users who belong to it.
        next_share: share of its behaviours whose next one, of the same user, belongs to it too;
            None if none of its behaviours has a next one.
        mean_weight: mean P of its behaviours for it; None if it has none.
        duplicate: whether it is at nearly the same place as an earlier center.
    """

    behaviour_share: float
    user_share: float
    next_share: float | None
    mean_weight: float | None
    duplicate: bool
    items: list[int]
    categories: list[int]
    entities: list[int]


@torch.no_grad()
def profiles(
    centers_Kd: Tensor, sample: Sample, item_indices: Mapping[str, Tensor], same_item_I: Tensor
) -> list[Profile]:
    """A profile of each center, over the sample's first users.

    Items are those of the center's behaviours with the largest E cᵀ. Categories and words are
    those with the largest p log(p / q), if above 0, where p is the share among the center's
    behaviours and q the share among all behaviours.

    Args:
        centers_Kd: [K, d].
        sample: the histories of users.
        item_indices: the item table, a tensor for each field.
        same_item_I: for each row of it, one row that stands for all versions of the item.
    """
    # The nearest center of each behaviour, -1 at padding.
    frozen_UNd, mask_UN = sample.first
    center_UN = nearest(centers_Kd, frozen_UNd).masked_fill(~mask_UN, -1)
    history_UN = sample.history_UN[sample.first_users]
    # Distinct items, and for each the position of one behaviour among all real behaviours.
    item_n, first_n = _distinct(same_item_I[history_UN[mask_UN]])
    frozen_nd = frozen_UNd[mask_UN]
    empty_IX = torch.zeros(len(item_indices[ENTITY]), 0, dtype=torch.long)
    categories_IX = item_indices[CATEGORY][:, None] if CATEGORY in item_indices else empty_IX
    weight_UN = assignment(frozen_UNd, centers_Kd, mask_UN).max(dim=2).values
    duplicate_K = duplicates(centers_Kd)
    has_next_UN = mask_UN & functional.pad(mask_UN[:, 1:], (0, 1))
    # The values of each kind, and how often each is among all behaviours.
    of_all = [
        (values_IX, _counts(values_IX, history_UN[mask_UN]))
        for values_IX in (categories_IX, item_indices[ENTITY])
    ]
    found = []
    for center, center_d in enumerate(centers_Kd):
        chosen_UN = center_UN == center
        own_n = center_UN[mask_UN][first_n] == center
        # Whether the next behaviour belongs to it, for its behaviours that have a next one.
        next_UN = functional.pad(chosen_UN[:, 1:], (0, 1))[chosen_UN & has_next_UN]
        # Items of the center by E cᵀ, largest first; items of other centers sort last and are cut.
        score_n = (frozen_nd[first_n] @ center_d).masked_fill(~own_n, -torch.inf)
        order = torch.argsort(score_n, descending=True, stable=True)[: int(own_n.sum())]
        found.append(
            Profile(
                float(chosen_UN.sum() / mask_UN.sum()),
                float(chosen_UN.any(dim=1).sum() / mask_UN.any(dim=1).sum()),
                float(next_UN.double().mean()) if len(next_UN) else None,
                float(weight_UN[chosen_UN].mean()) if bool(chosen_UN.any()) else None,
                bool(duplicate_K[center]),
                item_n[order[:ITEMS]].tolist(),
                *(
                    _characteristic(_counts(values_IX, history_UN[chosen_UN]), every)
                    for values_IX, every in of_all
                ),
            )
        )
    return found


def _distinct(item_n: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct items, and for each the position of one of its behaviours."""
    items, inverse = torch.unique(item_n, return_inverse=True)
    first = torch.zeros(len(items), dtype=torch.long)
    first[inverse] = torch.arange(len(item_n))
    return items, first


def _counts(values_IX: Tensor, items: Tensor) -> Tensor:
    """How often each value is among these behaviours; reserved indices are not counted."""
    size = int(values_IX.max()) + 1 if values_IX.numel() else 1
    values = values_IX[items].flatten()
    return torch.bincount(values[values >= FIRST_INDEX], minlength=size).double()


def _characteristic(own: Tensor, every: Tensor) -> list[int]:
    """The values with the largest p log(p / q), at most VALUES, from their counts.

    Args:
        own: among the behaviours of a center.
        every: among all behaviours.
    """
    p, q = own / own.sum().clamp(min=1), every / every.sum().clamp(min=1)
    weight = torch.where(own > 0, p * torch.log(p / q.clamp(min=1e-300)), 0)
    order = torch.argsort(weight, descending=True, stable=True)[:VALUES]
    return [int(value) for value in order if weight[value] > 0]


def table(
    spark: SparkSession,
    settings: Settings,
    splits: Splits,
    found: Mapping[tuple[str, Centers], list[Profile]],
) -> DataFrame:
    """Rows of INTEREST_CENTERS, from the profiles by level and centers."""
    every = [profile for of_level in found.values() for profile in of_level]
    items = spark.read.parquet(f"{splits.folder}/items").select(F.col("item").alias("index"), "key")
    entries = usable(spark, settings.root, settings.date, [])

    def of_field(name: str) -> DataFrame:
        return entries.where(F.col("field") == name).select("index", "key")

    item = _names(items, (index for one in every for index in one.items))
    category = _names(of_field(CATEGORY), (index for one in every for index in one.categories))
    word = _names(of_field(ENTITY), (index for one in every for index in one.entities))
    rows = [
        (
            settings.date,
            level,
            centers.interests,
            centers.marginal,
            centers.norm,
            center,
            one.behaviour_share,
            one.user_share,
            one.next_share,
            one.mean_weight,
            one.duplicate,
            [item[index] for index in one.items],
            [category[index] for index in one.categories],
            [word[index] for index in one.entities],
        )
        for (level, centers), of_level in found.items()
        for center, one in enumerate(of_level)
    ]
    return spark.createDataFrame(rows, INTEREST_CENTERS.columns).coalesce(1)


def _names(keys: DataFrame, indices: Iterable[int]) -> dict[int, str]:
    """The keys of some indices, and names for reserved indices."""
    wanted = sorted(set(indices))
    reserved = {1: "(missing)", 2: "(unknown)"}
    rows = keys.where(F.col("index").isin(wanted) & F.col("key").isNotNull()).collect()
    return reserved | {row["index"]: row["key"] for row in rows}
