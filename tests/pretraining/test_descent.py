"""Alg. 1: the descent and when it stops, the replacement of collapsed centers, profiles."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sklearn.cluster  # noqa: F401  its import starts a process, which no unit test may
import torch
from torch import Tensor

from mfn.indices import FIRST_INDEX
from mfn.models.embedding import FrozenItems, ItemEncoder, ItemTable, offsets_of
from mfn.models.settings import Centers
from mfn.pretraining.center_measures import measure
from mfn.pretraining.descent import (
    MAX_REPLACEMENTS,
    PATIENCE_STEPS,
    Sample,
    collapsed,
    descend,
    learn,
    replace,
)
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
    fit = measure(learn(sample, Centers(GROUPS, "batch", 1.0), settings, "fit"), sample)
    assert (fit.empty, fit.duplicates) == (0, 0)
    more = measure(learn(sample, Centers(GROUPS + 2, "batch", 1.0), settings, "more"), sample)
    assert more.empty + more.duplicates == 2
    assert more.replaced >= 2 * MAX_REPLACEMENTS


@pytest.mark.parametrize("norm", [0.5, 2.0])
def test_the_descent_turns_centers_to_the_behaviours_and_holds_their_length(
    sample_of: Callable[[list[list[int]]], Sample], norm: float
) -> None:
    """Each user has two groups, q is over the batch; the start is far off, 60 degrees and more."""
    sample = sample_of([of_group(n % GROUPS) + of_group((n + 1) % GROUPS) for n in range(40)])
    start = torch.eye(GROUPS) + 0.9 * torch.roll(torch.eye(GROUPS), 1, dims=1)
    settings = CenterSettings(max_steps=400, batch_users=20)
    random = torch.Generator().manual_seed(1)
    held = descend(start, sample, Centers(GROUPS, "batch", norm), settings, random, "held")
    frozen_BNd, mask_BN = sample.first
    behaviours_nd = frozen_BNd[mask_BN]
    lengths = held.centers_Kd.norm(dim=1)
    assert lengths.tolist() == pytest.approx([norm * float(behaviours_nd.norm(dim=1)[0])] * GROUPS)
    # Each group has a center of its own, and its behaviours point the same way.
    cosine = (
        torch.nn.functional.normalize(behaviours_nd, dim=1) @ (held.centers_Kd / lengths[:, None]).T
    )
    assert set(cosine.argmax(dim=1).tolist()) == set(range(GROUPS))
    assert float(cosine.max(dim=1).values.min()) > 0.85
    assert held.end.L_E < held.start.L_E


def test_a_free_length_grows(sample_of: Callable[[list[list[int]]], Sample]) -> None:
    sample = sample_of([of_group(n % GROUPS) for n in range(40)])
    settings = CenterSettings(max_steps=100, batch_users=20)
    free = learn(sample, Centers(GROUPS, "batch", None), settings, "free")
    held = learn(sample, Centers(GROUPS, "batch", 1.0), settings, "held")
    assert measure(held, sample).norm == pytest.approx(1)
    assert measure(free, sample).norm > 1.5
    assert measure(free, sample).largest_share > measure(held, sample).largest_share


def test_the_descent_stops_when_the_loss_no_longer_improves(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    sample = sample_of([of_group(n % GROUPS) for n in range(40)])

    def learnt(max_steps: int, min_progress: float) -> tuple[int, bool]:
        settings = CenterSettings(max_steps=max_steps, min_progress=min_progress)
        found = learn(sample, Centers(GROUPS, "user", None), settings, "steps")
        return found.steps, found.converged

    assert learnt(95, 1.0) == (PATIENCE_STEPS, True)
    assert learnt(95, 0.0) == (95, False)
    assert learnt(PATIENCE_STEPS - 10, 1.0) == (PATIENCE_STEPS - 10, False)


def test_the_centers_with_the_lowest_evaluated_loss_are_kept(
    sample_of: Callable[[list[list[int]]], Sample],
) -> None:
    """Steps that are far too long only make the loss worse than at the start."""
    sample = sample_of([of_group(n % GROUPS) + of_group((n + 1) % GROUPS) for n in range(40)])
    settings = CenterSettings(max_steps=60, batch_users=20, learning_rate=50.0)
    found = learn(sample, Centers(GROUPS, "batch", 1.0), settings, "wild")
    assert found.end.L_E <= found.start.L_E


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
    # Behaviours with a next one: 2 of the first user, 2 of the second, none of the third.
    assert [one.next_share for one in found] == [3 / 4, None, None, None]
    assert [one.mean_weight is None for one in found] == [False, False, False, True]
    assert not any(one.duplicate for one in found)
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
