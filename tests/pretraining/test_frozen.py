"""E from the vectors of each field: what was not met, and two sources beside each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mfn.indices import FIRST_INDEX
from mfn.models.batch import Features
from mfn.models.embedding import FrozenEmbedding, FrozenItems, ItemEncoder, ItemTable, offsets_of
from mfn.pretraining.frozen import FieldVectors, beside, frozen_of, known

D = 3
SIZES = {"item_id": 12, "category": 6, "entity": 8}
FEATURES = Features(("item_id", "category", "entity"), (), (), SIZES, 5)
# Rows of the item table from 3 on; item id 7 has two versions.
IDS = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 2]
CATEGORIES = [0, 1, 2, 3, 3, 4, 5, 3, 4, 1, 5, 3]
ENTITIES = [[0, 0]] * 3 + [[3, 4], [3, 0], [5, 4], [6, 0], [3, 6], [3, 0], [0, 0], [2, 1], [3, 0]]
NOT_MET = (7, 8, 9)


def table() -> ItemTable:
    indices = {"item_id": IDS, "category": CATEGORIES, "entity": ENTITIES}
    tensors = {name: torch.tensor(values) for name, values in indices.items()}
    return ItemTable(FEATURES, tensors, offsets_of(SIZES))


def vectors(seed: int, not_met: tuple[int, ...] = NOT_MET) -> dict[str, FieldVectors]:
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, size in SIZES.items():
        known_V = torch.arange(size) >= FIRST_INDEX
        if name == "item_id":
            known_V[list(not_met)] = False
        found[name] = FieldVectors(torch.randn(size, D, generator=random), known_V)
    return found


def by_hand(item_id: int, ids: Tensor) -> Tensor | None:
    """The weighted mean over the category and the entities of the versions of an item."""
    attributes = [
        {("category", category), *(("entity", entity) for entity in entities)}
        for category, entities in zip(CATEGORIES, ENTITIES, strict=True)
    ]
    met = [row for row, one in enumerate(IDS) if one >= FIRST_INDEX and one not in NOT_MET]
    total, weights = torch.zeros(D), 0.0
    for row, one in enumerate(IDS):
        for attribute in attributes[row] if one == item_id else ():
            having = [other for other in met if attribute in attributes[other]]
            if attribute[1] >= FIRST_INDEX and having:
                weight = math.log(len(met) / len(having))
                total += weight * torch.stack([ids[IDS[other]] for other in having]).mean(dim=0)
                weights += weight
    return total / weights if weights else None


def test_an_item_that_was_not_met_gets_the_mean_of_those_that_share_its_attributes() -> None:
    """8 has neither category nor entity, 9 has only a category; unknown values are no attribute."""
    given = vectors(1)
    frozen = frozen_of(FEATURES, table(), given)
    ids = frozen.vectors["item_id"]
    for item_id in range(SIZES["item_id"]):
        expected = by_hand(item_id, given["item_id"].vectors_VD) if item_id in NOT_MET else None
        if expected is None:
            assert torch.equal(ids[item_id], given["item_id"].vectors_VD[item_id])
            assert bool(frozen.learnt["item_id"][item_id]) is (
                item_id >= FIRST_INDEX and item_id != 8
            )
        else:
            assert ids[item_id].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
            assert frozen.learnt["item_id"][item_id]
    # They count as not known, and do not change how the field is standardised.
    assert not known([given])["item_id"][list(NOT_MET)].any()
    met = given["item_id"].vectors_VD[[one for one in IDS if one in (3, 4, 5, 6)]]
    assert frozen.mean["item_id"].tolist() == pytest.approx(met.mean(dim=0).tolist(), abs=1e-6)


def test_items_without_categories_and_entities_have_no_neighbours() -> None:
    features = Features(("item_id",), (), (), {"item_id": 12}, 5)
    items = ItemTable(features, {"item_id": torch.tensor(IDS)}, {"item_id": 0})
    frozen = frozen_of(features, items, {"item_id": vectors(1)["item_id"]})
    assert not frozen.learnt["item_id"][list(NOT_MET)].any()


def test_nothing_learnt_gives_an_embedding_of_zeros() -> None:
    nothing = {
        name: FieldVectors(torch.zeros(size, D), torch.zeros(size, dtype=torch.bool))
        for name, size in SIZES.items()
    }
    frozen = frozen_of(FEATURES, table(), nothing)
    assert not any(of_field.any() for of_field in frozen.learnt.values())
    for vectors_ in encoder_of(frozen).frozen_vectors(torch.arange(len(IDS))).values():
        assert not vectors_.any()


def encoder_of(frozen: FrozenEmbedding) -> ItemEncoder:
    encoded = FrozenItems(FEATURES, frozen.dimension)
    encoded.load(frozen)
    return ItemEncoder(FEATURES.levels, table(), encoded)


def test_two_sources_stand_beside_each_other_and_weigh_the_same() -> None:
    """Products of items are the mean of those in the two sources, whatever their scale."""
    first, second = vectors(1), vectors(2, not_met=(5, 8))
    large = {name: FieldVectors(9 * one.vectors_VD, one.known_V) for name, one in second.items()}
    one, other = (frozen_of(FEATURES, table(), part) for part in (first, large))
    both = beside(one, other)
    assert both.dimension == 2 * D
    items = torch.arange(len(IDS))
    for name, vectors_Id in encoder_of(both).frozen_vectors(items).items():
        products = [encoder_of(part).frozen_vectors(items)[name] for part in (one, other)]
        expected = (products[0] @ products[0].T + products[1] @ products[1].T) / math.sqrt(2)
        assert torch.allclose(vectors_Id @ vectors_Id.T, expected, atol=1e-5), name
    of_both = known([first, large])["item_id"]
    assert of_both.nonzero().flatten().tolist() == [3, 4, 5, 6, 7, 9, 10, 11]
