"""Alg. 1: when it stops, and what becomes of centers that say nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mfn.indices import FIRST_INDEX
from mfn.models.embedding import FrozenItems, ItemEncoder, ItemTable, offsets_of
from mfn.pretraining.descent import MENDINGS, Sample, collapsed, describe, learn, mend
from mfn.pretraining.profiles import profiles
from mfn.settings import CenterSettings
from mfn.splits.published import Splits

ITEMS, GROUPS, X = 23, 4, 2
"""Items 3 to 22, of five items each in four groups that E holds far apart."""


def indices() -> dict[str, Tensor]:
    item = torch.arange(ITEMS)
    group = (item - FIRST_INDEX).clamp(min=0) % GROUPS
    category = FIRST_INDEX + group
    return {
        "item_id": item,
        "category": torch.where(item < FIRST_INDEX, item, category),
        # The first word is the group's own, the second is one that all have.
        "entity": torch.stack([FIRST_INDEX + group, torch.full_like(item, 7)], dim=1),
    }


@pytest.fixture
def sample_of() -> Callable[[list[list[int]]], Sample]:
    """A sample of these histories, seen through an E of the categories alone, [I, 4]."""
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
    return [FIRST_INDEX + group + GROUPS * n for n in range(count)]


def test_centers_that_no_behaviour_is_nearest_to_or_that_double_another_are_collapsed() -> None:
    behaviours = torch.tensor([[1.0, 0], [0, 1], [1, 0.1]])
    apart = torch.tensor([[5.0, 0], [0, 5]])
    assert collapsed(apart, behaviours) == []
    empty = torch.tensor([[5.0, 0], [-5, -5], [0, 5]])
    assert collapsed(empty, behaviours) == [1]
    doubled = torch.tensor([[5.0, 0], [0, 5], [5, 0.1]])
    assert collapsed(doubled, behaviours) == [2]
    assert collapsed(torch.ones(3, 2), behaviours) == [1, 2]


def test_a_collapsed_center_goes_where_behaviours_are_farthest_from_the_others() -> None:
    behaviours = torch.tensor([[1.0, 0], [0, 1], [-1, 0.2]])
    centers = torch.tensor([[4.0, 0], [4, 0], [0, 4]])
    mended = mend(centers, [1], behaviours)
    assert torch.equal(mended[[0, 2]], centers[[0, 2]])
    assert mended[1].tolist() == pytest.approx((4 * behaviours[2] / behaviours[2].norm()).tolist())
    assert collapsed(mended, behaviours) == []


def test_centers_that_all_are_one_are_drawn_apart() -> None:
    behaviours = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    assert collapsed(mend(torch.tensor([[4.0, 0]] * 3), [0, 1, 2], behaviours), behaviours) == []


def test_with_as_many_centers_as_groups_none_is_collapsed_and_with_more_it_is_told(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    sample = sample_of([of_group(n % GROUPS) for n in range(40)])
    settings = CenterSettings(max_steps=20, batch_users=8)
    fit = learn(sample, GROUPS, settings, "fit")
    assert describe(fit, sample, "user")["collapsed"] == 0
    more = learn(sample, GROUPS + 2, settings, "more")
    told = describe(more, sample, "user")
    assert told["collapsed"] == 2
    assert told["replaced"] == more.replaced >= 2 * MENDINGS


def test_the_descent_ends_when_ten_steps_no_longer_lower_the_loss(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    sample = sample_of([of_group(n % GROUPS) for n in range(40)])
    few, all_ = (
        learn(sample, GROUPS, CenterSettings(max_steps=95, min_progress=least), "steps").steps
        for least in (1.0, 0.0)
    )
    assert (few, all_) == (10, 95)


def test_a_profile_names_what_its_behaviours_have_more_often_than_others(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    """Against counts by hand; the word that all items have tells nothing."""
    histories = [of_group(0), of_group(0, 2) + of_group(1, 1), of_group(2, 1)]
    sample = sample_of(histories)
    centers = 5 * torch.eye(GROUPS)
    found = profiles(centers, sample, indices())
    assert [round(one.behaviour_share * 7) for one in found] == [5, 1, 1, 0]
    assert [round(one.user_share * 3) for one in found] == [2, 1, 1, 0]
    assert [sorted(one.items) for one in found] == [[3, 7, 11], [4], [5], []]
    assert [one.categories for one in found] == [[3], [4], [5], []]
    assert [one.entities for one in found] == [[3], [4], [5], []]


def test_items_of_a_profile_come_nearest_first(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    sample = sample_of([of_group(0, 1) + of_group(1, 1)])
    leaning = torch.tensor([[2.0, 5, 0, 0], [-9, -9, 0, 0]])
    found = profiles(leaning, sample, indices())
    assert found[0].items == [of_group(1, 1)[0], of_group(0, 1)[0]]
    assert found[1].items == []
