"""From the vectors of each field's values to the frozen embedding E.

Legend: V values of a field, D width of a field's vectors, I rows of the item table, A attributes
of an item.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mfn.indices import FIRST_INDEX
from mfn.models.batch import ENTITY, Features
from mfn.models.embedding import (
    FrozenEmbedding,
    ItemTable,
    fields_of,
    freeze,
    offsets_of,
)

ITEM, CATEGORY = "item_id", "category"


@dataclass(frozen=True)
class FieldVectors:
    """Vectors of the values of a field, [V, D], and a mask of the values that were met, [V].

    The vectors of the others have no meaning.
    """

    vectors_VD: Tensor
    known_V: Tensor


def frozen_of(
    features: Features, items: ItemTable, vectors: Mapping[str, FieldVectors]
) -> FrozenEmbedding:
    """E from the vectors of each item field; item ids that were not met get their neighbours'."""
    table_VD = torch.cat([vectors[name].vectors_VD for name in features.item_fields])
    known_V = torch.cat([vectors[name].known_V for name in features.item_fields])
    return with_neighbours(freeze(features, items, table_VD, known_V), features, items)


def with_neighbours(
    frozen: FrozenEmbedding, features: Features, items: ItemTable
) -> FrozenEmbedding:
    """Give item ids without a vector the mean of the items that share their category or entities.

    The mean is over the attributes of the item: its category and its entities. Each counts with the
    mean vector of the items that have it, weighted by log(I / n), where n of the I items with a
    vector have it: what few items have says more. An id without such an attribute stays without a
    vector, and gets the mean of all ids.
    """
    if ITEM not in features.item_fields:
        return frozen
    # Attributes of each item as rows of the table of all fields, [I, A], and a mask of real ones.
    # Missing and unknown values are none.
    attributes_IA = torch.cat(
        [
            *(items.ids_IF[:, [at]] for at, name in enumerate(items.id_fields) if name == CATEGORY),
            items.entities_IX.clamp(min=0),
        ],
        dim=1,
    )
    reserved_V = torch.zeros(sum(features.sizes.values()), dtype=torch.bool)
    for field in fields_of(reserved_V, features.sizes).values():
        field[:FIRST_INDEX] = True
    real_IA = ~reserved_V[attributes_IA]
    if ENTITY in features.item_fields:
        real_IA[:, -items.entities_IX.shape[1] :] &= items.entities_IX >= 0
    # Ids as positions in the field's own vectors.
    ids_I = items.ids_IF[:, items.id_fields.index(ITEM)] - offsets_of(features.sizes)[ITEM]
    vectors_VD, learnt_V = frozen.vectors[ITEM], frozen.learnt[ITEM]
    width = vectors_VD.shape[1]
    # For each attribute, the sum of the vectors of the items that have it, and their number.
    item, at = torch.nonzero(real_IA & learnt_V[ids_I][:, None], as_tuple=True)
    attribute = attributes_IA[item, at]
    count = torch.bincount(attribute, minlength=len(reserved_V)).float()
    total = torch.zeros(len(reserved_V), width).index_add_(0, attribute, vectors_VD[ids_I[item]])
    weight = torch.where(count > 0, torch.log(learnt_V[ids_I].sum() / count.clamp(min=1)), 0)
    # For each id without a vector, the weighted mean over the attributes of its items.
    item, at = torch.nonzero(real_IA & ~learnt_V[ids_I][:, None], as_tuple=True)
    attribute, of_item = attributes_IA[item, at], ids_I[item]
    share = weight[attribute]
    mean = total[attribute] / count[attribute].clamp(min=1)[:, None]
    sums_VD = torch.zeros_like(vectors_VD).index_add_(0, of_item, mean * share[:, None])
    shares_V = torch.zeros(len(learnt_V)).index_add_(0, of_item, share)
    near_V = shares_V > 0
    near_V[:FIRST_INDEX] = False
    filled_VD = torch.where(
        near_V[:, None], sums_VD / shares_V.clamp(min=1e-12)[:, None], vectors_VD
    )
    return dataclasses.replace(
        frozen,
        vectors={**frozen.vectors, ITEM: filled_VD},
        learnt={**frozen.learnt, ITEM: learnt_V | near_V},
    )


def beside(first: FrozenEmbedding, second: FrozenEmbedding) -> FrozenEmbedding:
    """An E of twice the width: each field's two vectors beside each other, each standardised."""

    def standardised(one: FrozenEmbedding, name: str) -> Tensor:
        standard_VD = (one.vectors[name] - one.mean[name]) / one.std[name]
        return torch.where(one.learnt[name][:, None], standard_VD, 0)

    vectors = {
        name: torch.cat([standardised(first, name), standardised(second, name)], dim=1)
        for name in first.vectors
    }
    return FrozenEmbedding(
        vectors,
        {name: first.learnt[name] | second.learnt[name] for name in vectors},
        {name: vectors_VD.new_zeros(vectors_VD.shape[1]) for name, vectors_VD in vectors.items()},
        {name: torch.ones(()) for name in vectors},
    )


def known(parts: Sequence[Mapping[str, FieldVectors]]) -> dict[str, Tensor]:
    """By field, the mask of the values that one of the parts of E knows, [V]."""
    return {
        name: torch.stack([part[name].known_V for part in parts]).any(dim=0) for name in parts[0]
    }
