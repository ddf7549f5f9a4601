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
from mfn.models.batch import Features
from mfn.models.embedding import (
    FrozenEmbedding,
    FrozenItems,
    ItemEncoder,
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
    # Attributes of each item as rows of the table of all fields, [I, A]. Reserved ones, such as
    # row 0, padding, are none.
    places = [at for at, name in enumerate(items.id_fields) if name == CATEGORY]
    attributes_IA = torch.cat([items.ids_IF[:, places], items.entities_IX.clamp(min=0)], dim=1)
    real_V = torch.ones(sum(features.sizes.values()), dtype=torch.bool)
    for of_field in fields_of(real_V, features.sizes).values():
        of_field[:FIRST_INDEX] = False
    # Item ids as positions in the vectors of their field.
    ids_I = items.ids_IF[:, items.id_fields.index(ITEM)] - offsets_of(features.sizes)[ITEM]
    vectors_VD, learnt_V = frozen.vectors[ITEM], frozen.learnt[ITEM]
    learnt_I = learnt_V[ids_I]

    def attributes_of(rows_I: Tensor) -> tuple[Tensor, Tensor]:
        """Each attribute of each of these rows, and the item id of the row."""
        row, place = torch.nonzero(real_V[attributes_IA] & rows_I[:, None], as_tuple=True)
        return attributes_IA[row, place], ids_I[row]

    # For each attribute, the mean vector of the items that have it, and its weight.
    attribute, id_ = attributes_of(learnt_I)
    count_V = torch.bincount(attribute, minlength=len(real_V))
    sum_VD = torch.zeros(len(real_V), vectors_VD.shape[1])
    sum_VD.index_add_(0, attribute, vectors_VD[id_])
    weight_V = torch.where(count_V > 0, torch.log(learnt_I.sum() / count_V), 0).clamp(min=0)
    # For each id without a vector, the weighted mean over the attributes of its items.
    attribute, id_ = attributes_of(~learnt_I)
    weight = weight_V[attribute]
    means = sum_VD[attribute] / count_V[attribute].clamp(min=1)[:, None]
    near_VD = torch.zeros_like(vectors_VD).index_add_(0, id_, means * weight[:, None])
    weights_V = torch.zeros(len(learnt_V)).index_add_(0, id_, weight)
    near_V = (weights_V > 0) & (torch.arange(len(learnt_V)) >= FIRST_INDEX)
    near_VD = torch.where(near_V[:, None], near_VD / weights_V[:, None], vectors_VD)
    return dataclasses.replace(
        frozen,
        vectors={**frozen.vectors, ITEM: near_VD},
        learnt={**frozen.learnt, ITEM: learnt_V | near_V},
    )


def encoder_of(features: Features, items: ItemTable, frozen: FrozenEmbedding) -> ItemEncoder:
    """The encoder of items as vectors of this E."""
    encoded = FrozenItems(features, frozen.dimension)
    encoded.load(frozen)
    return ItemEncoder(features.levels, items, encoded)


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
