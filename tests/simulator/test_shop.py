"""The simulated shop: catalogue, customers, click probabilities, and the events of a day."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn.settings import SimulateSettings
from mfn.simulator import draws, shop, traffic
from mfn.simulator.shop import DAY, Outing, catalogue, customers, outing

TODAY = 20520
SHOP = SimulateSettings(
    users=300, items=1440, requests_per_day=500, browsing_per_day=1500, candidates=8, seed=3
)


def test_a_draw_is_the_same_on_every_machine_and_in_every_version() -> None:
    drawn = draws.uniform(7, "click", 20520, np.arange(3))

    np.testing.assert_array_equal(
        drawn, [0.39113541886846653, 0.566518985677928, 0.7706149463910796]
    )


def test_draws_are_uniform_or_normal_and_uncorrelated() -> None:
    one = draws.uniform(7, "one", np.arange(20000))
    other = draws.uniform(7, "other", np.arange(20000))
    bell = draws.normal(7, "bell", np.arange(20000))

    assert np.histogram(one, 10, (0, 1))[0] == pytest.approx([2000] * 10, abs=200)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.03
    assert (bell.mean(), bell.std()) == pytest.approx((0, 1), abs=0.03)


@pytest.mark.parametrize("size", [6, 570, 1440])
def test_every_pair_and_category_in_the_catalogue_is_found(size: int) -> None:
    shelves = catalogue(size, seed=3)
    everything = shelves.items(np.arange(shelves.places))
    pairs = set(zip(everything.colour, everything.material, strict=True))
    colour, material = (part.ravel() for part in np.meshgrid(np.arange(24), np.arange(24)))
    draw = draws.uniform(1, "luck", np.arange(colour.size))

    found = shelves.items(shelves.of_pair(colour, material, draw, draw))
    of_kind = shelves.items(shelves.of_category(np.arange(120), draw[:120], draw[:120]))

    there = np.array([pair in pairs for pair in zip(colour, material, strict=True)])
    np.testing.assert_array_equal((found.colour == colour) & (found.material == material), there)
    kinds = np.isin(np.arange(120), everything.category)
    np.testing.assert_array_equal(of_kind.category == np.arange(120), kinds)
    assert there.all() == kinds.all() == (size == 1440)


def test_items_of_a_family_differ_only_in_colour() -> None:
    shelves = catalogue(1440, seed=3)
    family = shelves.items(np.arange(6, 12))

    assert len(set(family.colour)) == 6
    for name in ("category", "brand", "material", "shop", "style", "price_level"):
        assert len(set(getattr(family, name))) == 1, name


def test_the_next_collection_has_new_items_in_the_same_places() -> None:
    shelves, places = catalogue(1440, seed=3), np.arange(1440)
    today, sold_out = shelves.listed(places, TODAY)
    later, then_sold_out = shelves.listed(places, TODAY + shop.COLLECTION_DAYS)
    replaced = sold_out >= 0

    assert 0.2 < replaced.mean() < 0.4
    np.testing.assert_array_equal(then_sold_out[replaced], today[replaced])
    np.testing.assert_array_equal(later[~replaced], today[~replaced])
    assert not np.isin(later[replaced], today).any()
    before, after = shelves.items(today[replaced]), shelves.items(later[replaced])
    np.testing.assert_array_equal(before.category, after.category)
    np.testing.assert_array_equal(before.colour, after.colour)
    assert (before.appeal != after.appeal).all()


def test_interests_of_a_customer_share_no_attribute_so_decoys_match_none() -> None:
    who = customers(3, np.arange(500))

    assert set(who.interests_R) == {2, 3, 4}
    for attribute in (who.colours_RJ, who.materials_RJ):
        assert all(len(set(row)) == shop.INTERESTS for row in attribute)
    np.testing.assert_allclose(who.shares_RJ.sum(axis=1), 1)
    assert (who.shares_RJ[~who.real_RJ] == 0).all()


def test_the_third_thing_completes_an_outing_only_after_both_others_are_bought() -> None:
    camping = Outing(np.array([0]), np.array([100]), np.array([200]))
    stove, tent = np.array([2]), np.array([0])

    assert not camping.completed_by(stove, np.array([150])).any()
    assert camping.completed_by(stove, np.array([201])).all()
    assert not camping.completed_by(tent, np.array([201])).any()


def test_an_outing_is_the_same_on_each_of_its_days() -> None:
    days = np.arange(TODAY, TODAY + 3 * shop.OUTING_DAYS)
    user = np.full(len(days), 5)
    turns = outing(3, user, days)
    first_bought, many = np.unique(turns.first_bought, return_counts=True)

    assert len(first_bought) in (3, 4)
    assert many.max() == shop.OUTING_DAYS
    for bought in (turns.first_bought, turns.second_bought):
        assert (bought // DAY > days - shop.OUTING_DAYS).all()
        assert (bought // DAY < days + shop.OUTING_DAYS).all()


@pytest.mark.parametrize("how", ["joint", "additive"])
def test_click_probabilities_follow_the_documented_formula(how: str) -> None:
    settings = SHOP.model_copy(update={"interest_match": how})
    day, index = np.full(200, TODAY), np.arange(200)
    shown = traffic.pages(settings, day, index)
    who, plans = customers(3, shown.user_R), outing(3, shown.user_R, day)
    items = catalogue(settings.items, 3).items(shown.item_RM)
    kinds = set()
    for row in range(200):
        if shown.user_R[row] >= settings.users:
            assert (shown.probability_RM[row] == 0.3).all()
            continue
        time = int(shown.time_R[row])
        liked = range(who.interests_R[row])
        for k in range(settings.candidates):
            colour, material = items.colour[row, k], items.material[row, k]
            same_colour = [colour == who.colours_RJ[row, j] for j in liked]
            same_material = [material == who.materials_RJ[row, j] for j in liked]
            if how == "joint":
                match = float(any(a and b for a, b in zip(same_colour, same_material, strict=True)))
            else:
                match = any(same_colour) / 2 + any(same_material) / 2
            bought = max(plans.first_bought[row], plans.second_bought[row])
            third = items.category[row, k] == plans.which[row] * 3 + 2 and time > bought
            high = float(draws.uniform(3, "high season", items.category[row, k]))
            trend = draws.below(24, 3, "colour of the week", time // (7 * DAY))
            logit = (
                -2.9
                + items.appeal[row, k]
                + 2.4 * match
                + 1.0 * third
                + 0.25 * math.cos(2 * math.pi * (time / DAY / 365.25 - high))
                + 0.3 * (colour == trend)
                - 0.25 * max(0.0, items.price_level[row, k] - who.purse_R[row])
                - 0.06 * k
                + 0.15 * (shown.device_R[row] == shop.DEVICES.index("phone"))
            )
            kinds.add((match, bool(third), bool(colour == trend)))
            assert shown.probability_RM[row, k] == pytest.approx(1 / (1 + math.exp(-logit)))
    assert {third for _, third, _ in kinds} == {False, True}
    assert {match for match, _, _ in kinds} == ({0, 1} if how == "joint" else {0, 0.5, 1})


def test_candidates_have_the_documented_shares_of_intent_and_decoys() -> None:
    large = SHOP.model_copy(update={"items": 12000})
    index = np.arange(2000)
    shown = traffic.pages(large, np.full(len(index), TODAY), index)
    who = customers(3, shown.user_R)
    items = catalogue(large.items, 3).items(shown.item_RM)
    real = who.real_RJ[:, :, None]
    colour = (items.colour[:, None] == who.colours_RJ[:, :, None]) & real
    material = (items.material[:, None] == who.materials_RJ[:, :, None]) & real
    meets = colour & material
    decoy = colour.any(axis=1) & material.any(axis=1) & ~meets.any(axis=1)

    assert meets.any(axis=1).mean() == pytest.approx(0.28, abs=0.04)
    assert decoy.mean() == pytest.approx(0.33, abs=0.04)
    # All real interests are the intent equally often, also those with few browsing events.
    intents = meets.sum(axis=2).argmax(axis=1)
    least = np.where(who.real_RJ, who.shares_RJ, 2).argmin(axis=1)
    expected = (1 / who.interests_R).mean()
    assert (intents == least).mean() == pytest.approx(expected, abs=0.05)
    browsed = np.take_along_axis(who.shares_RJ, least[:, None], axis=1).mean()
    assert browsed < expected / 2


def test_no_item_is_twice_on_a_page() -> None:
    crowded = SHOP.model_copy(update={"items": 60, "candidates": 12})
    shown = traffic.pages(crowded, np.full(300, TODAY), np.arange(300))

    for row in range(300):
        on_page = shown.item_RM[row][shown.shown_RM[row]]
        assert len(set(on_page)) == len(on_page)
    assert not (shown.clicked_RM & ~shown.shown_RM).any()
    assert shown.shown_RM.mean() > 0.9


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=5), source=st.sampled_from([0, 1, 2]))
def test_the_events_of_a_day_do_not_depend_on_the_batches(
    cuts: list[int], source: traffic.Source
) -> None:
    whole = traffic.events_of(SHOP, source, TODAY, np.arange(300))
    ends = [0, *sorted(cuts), 300]
    parts = [traffic.events_of(SHOP, source, TODAY, np.arange(a, b)) for a, b in pairwise(ends)]

    assert _rows([whole]) == _rows(parts)


def test_another_seed_gives_other_events() -> None:
    one, other = (
        traffic.events_of(
            SHOP.model_copy(update={"seed": seed}), traffic.PAGES, TODAY, np.arange(9)
        )
        for seed in (3, 4)
    )

    assert _rows([one]) != _rows([other])


def _rows(events: list[traffic.Events]) -> list[tuple[int, ...]]:
    columns = [np.concatenate([vars(one)[name] for one in events]) for name in vars(events[0])]
    return sorted(zip(*(column.tolist() for column in columns), strict=True))
