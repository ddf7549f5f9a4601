"""Alg. 1: early stopping, and the replacement of collapsed centers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mfn.indices import FIRST_INDEX
from mfn.models.embedding import FrozenItems, ItemEncoder, ItemTable, offsets_of
from mfn.pretraining.descent import MAX_REPLACEMENTS, Sample, collapsed, describe, learn, replace
from mfn.pretraining.profiles import profiles
from mfn.settings import CenterSettings
from mfn.splits.published import Splits

ITEMS, GROUPS, X = 23, 4, 2
"""Items 3 to 22 in four groups of five, whose vectors in E are far apart."""
SAME = torch.arange(ITEMS)
"""No item has several versions."""


def indices() -> dict[str, Tensor]:
    item = torch.arange(ITEMS)
    group = (item - FIRST_INDEX).clamp(min=0) % GROUPS
    category = FIRST_INDEX + group
    return {
        "item_id": item,
        "category": torch.where(item < FIRST_INDEX, item, category),
        # The first word is specific to the group; all items have the second.
        "entity": torch.stack([FIRST_INDEX + group, torch.full_like(item, 7)], dim=1),
    }


@pytest.fixture
def sample_of() -> Callable[[list[list[int]]], Sample]:
    """Builds a sample of these histories, with an E of only the categories, [I, 4]."""
    manifest = {
        "item_fields": ["category"],
        "user_fields": [],
        "context_fields": [],
        "history_length": 6,
        "vocabularies": {"category": {"size": FIRST_INDEX + GROUPS}},
    }
    features = Splits("", manifest).features

    def make(histories: list[list[int]]) -> Sample:
        items = ItemTable(features, {"category": indices()["category"]}, offsets_of(features.sizes))
        frozen = FrozenItems(features, GROUPS)
        frozen.weight_VD[FIRST_INDEX:] = 3 * torch.eye(GROUPS)
        padded = [[*history, *[0] * (6 - len(history))] for history in histories]
        encoder = ItemEncoder(features.levels, items, frozen)
        return Sample(encoder, "category", torch.tensor(padded))

    return make


def of_group(group: int, count: int = 3) -> list[int]:
    """The first items of a group."""
    return [FIRST_INDEX + group + GROUPS * n for n in range(count)]


def test_empty_and_duplicate_centers_are_collapsed() -> None:
    behaviours = torch.tensor([[1.0, 0], [0, 1], [1, 0.1]])
    apart = torch.tensor([[5.0, 0], [0, 5]])
    assert collapsed(apart, behaviours) == []
    empty = torch.tensor([[5.0, 0], [-5, -5], [0, 5]])
    assert collapsed(empty, behaviours) == [1]
    duplicate = torch.tensor([[5.0, 0], [0, 5], [5, 0.1]])
    assert collapsed(duplicate, behaviours) == [2]
    assert collapsed(torch.ones(3, 2), behaviours) == [1, 2]


def test_a_collapsed_center_moves_to_the_behaviour_farthest_from_the_other_centers() -> None:
    behaviours = torch.tensor([[1.0, 0], [0, 1], [-1, 0.2]])
    centers = torch.tensor([[4.0, 0], [4, 0], [0, 4]])
    replaced = replace(centers, [1], behaviours)
    assert torch.equal(replaced[[0, 2]], centers[[0, 2]])
    assert replaced[1].tolist() == pytest.approx(
        (4 * behaviours[2] / behaviours[2].norm()).tolist()
    )
    assert collapsed(replaced, behaviours) == []


def test_equal_centers_are_replaced_by_distinct_ones() -> None:
    behaviours = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    assert collapsed(replace(torch.tensor([[4.0, 0]] * 3), [0, 1, 2], behaviours), behaviours) == []


def test_surplus_centers_are_reported_as_collapsed_and_others_are_not(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    sample = sample_of([of_group(n % GROUPS) for n in range(40)])
    settings = CenterSettings(max_steps=20, batch_users=8)
    fit = learn(sample, GROUPS, settings, "fit")
    assert describe(fit, sample, "user")["collapsed"] == 0
    more = learn(sample, GROUPS + 2, settings, "more")
    stats = describe(more, sample, "user")
    assert stats["collapsed"] == 2
    assert stats["replaced"] == more.replaced >= 2 * MAX_REPLACEMENTS


def test_the_descent_stops_when_ten_steps_improve_the_loss_too_little(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    sample = sample_of([of_group(n % GROUPS) for n in range(40)])
    few, all_ = (
        learn(sample, GROUPS, CenterSettings(max_steps=95, min_progress=minimum), "steps").steps
        for minimum in (1.0, 0.0)
    )
    assert (few, all_) == (10, 95)


def test_a_profile_names_values_that_are_more_frequent_at_its_center(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    """Compared with counts by hand; the word that all items have is in no profile."""
    histories = [of_group(0), of_group(0, 2) + of_group(1, 1), of_group(2, 1)]
    sample = sample_of(histories)
    centers = 5 * torch.eye(GROUPS)
    found = profiles(centers, sample, indices(), SAME)
    assert [round(one.behaviour_share * 7) for one in found] == [5, 1, 1, 0]
    assert [round(one.user_share * 3) for one in found] == [2, 1, 1, 0]
    assert [sorted(one.items) for one in found] == [[3, 7, 11], [4], [5], []]
    assert [one.categories for one in found] == [[3], [4], [5], []]
    assert [one.entities for one in found] == [[3], [4], [5], []]


def test_items_of_a_profile_are_sorted_by_their_score(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    sample = sample_of([of_group(0, 1) + of_group(1, 1)])
    leaning = torch.tensor([[2.0, 5, 0, 0], [-9, -9, 0, 0]])
    found = profiles(leaning, sample, indices(), SAME)
    assert found[0].items == [of_group(1, 1)[0], of_group(0, 1)[0]]
    assert found[1].items == []


def test_versions_of_an_item_are_one_item_of_a_profile(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    """Rows 3 and 7 of the same group are versions of one item."""
    sample = sample_of([[3, 7, 11]])
    same = SAME.clone()
    same[7] = 3
    (one, *_) = profiles(5 * torch.eye(GROUPS), sample, indices(), same)
    assert sorted(one.items) == [3, 11]
    assert one.behaviour_share == 1
