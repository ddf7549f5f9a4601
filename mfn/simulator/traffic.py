"""A day in the simulated shop: pages of results, browsing, outings, dirty lines.

What happens on a day is a pure function of that day of the calendar, the seed and the sizes of
`SimulateSettings`, whatever other days are simulated beside it: the logs of consecutive run dates
are one log. The shop's days are UTC days.

**Pages of results.** The active half of the customers makes most requests. Of the candidates 30 %
are of the intent's colour and material, 35 % are decoys that have the colour of one interest and
the material of another of the same customer, 10 % are what would complete the customer's outing,
and the rest is whatever is popular; places are random, and no item is twice on a page. A click
follows its page within 10 minutes; a quarter of clicks are put in the cart and two fifths of those
bought, all within 29 minutes of the page, so that some fall in the next day's log.

**Browsing.** Most behaviour is not on logged pages: events without a request id. 4 in 5 serve an
interest, by its share, and 1 in 5 none. What is bought for an outing is browsing too.

**Bots.** One user in a thousand more is a bot: they open one page in 200, on which they click
whatever comes, with probability 0.3, and click 3 % of all that is clicked in browsing.

**Dirty lines.** 1 event in 1000 is written twice. 1 line in 700 is an extra one, broken: cut off,
without user or item, of an unknown type, or with a time that is none. After 23:00, 1 event in 100
is late: it lies in the next day's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from mfn.settings import SimulateSettings
from mfn.simulator.draws import below, uniform
from mfn.simulator.shop import (
    CATEGORIES,
    DAY,
    DEVICES,
    Customers,
    Outing,
    catalogue,
    click_logits,
    customers,
    outing,
)

EVENT_TYPES = ("impression", "click", "cart", "purchase")
IMPRESSION, CLICK, CART, PURCHASE = range(4)
SOURCES = ("r", "b", "o")
"""First letter of the ids of events from pages, browsing and outings."""
PAGES: Final = 0
BROWSING: Final = 1
OUTINGS: Final = 2
NO_FAULT, CUT_OFF, NO_USER, NO_ITEM, UNKNOWN_TYPE, NO_TIME = range(6)
FAULTS = 5

INTENT_SHARE, DECOY_SHARE, OUTING_SHARE = 0.30, 0.35, 0.10
NOISE_SHARE = 0.2
USERS_A_BOT = 1000
BOT_PAGES, BOT_BROWSING, BOT_CLICKS = 0.005, 0.03, 0.3
REPEATED, BROKEN, LATE = 0.001, 0.0015, 0.01
HOUR, MINUTE = DAY // 24, DAY // 24 // 60
LATEST = 23 * HOUR
"""From this time of the day on, what happens may end up in the next day's folder."""
VISITS = np.array([2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 9, 8, 7, 7, 7, 8, 10, 12, 13, 12, 9, 5])
"""Share of visits by hour."""

Source = Literal[0, 1, 2]


@dataclass(frozen=True)
class Pages:
    """Pages of results. Legend: R requests, M candidates by place; times in ms since 1970."""

    day_R: np.ndarray
    index_R: np.ndarray
    user_R: np.ndarray
    time_R: np.ndarray
    device_R: np.ndarray
    item_RM: np.ndarray
    shown_RM: np.ndarray
    probability_RM: np.ndarray
    clicked_RM: np.ndarray


@dataclass(frozen=True)
class Events:
    """Events as columns; what identifies one is (day, source, index, slot)."""

    day: np.ndarray
    source: np.ndarray
    index: np.ndarray
    slot: np.ndarray
    time: np.ndarray
    user: np.ndarray
    type: np.ndarray
    item: np.ndarray
    position: np.ndarray
    device: np.ndarray
    fault: np.ndarray

    def take(self, rows: np.ndarray) -> Events:
        """Some of the events."""
        return Events(*(column[rows] for column in vars(self).values()))


def events_of(settings: SimulateSettings, source: Source, folder: int, index: np.ndarray) -> Events:
    """Lines of one day's folder of events that come from one source.

    Args:
        folder: the day, in days since 1970.
        index: which of the source's requests, pieces of browsing or customers; any part of them.
    """
    make = {PAGES: _page_events, BROWSING: _browsing, OUTINGS: _bought_for_outings}[source]
    today = make(settings, np.full(len(index), folder), index)
    before = make(settings, np.full(len(index), folder - 1), index, LATEST)
    events = Events(
        *(
            np.concatenate(pair)
            for pair in zip(vars(today).values(), vars(before).values(), strict=True)
        )
    )
    return _as_written(settings.seed, events, folder)


def times(seed: int, purpose: str, day: np.ndarray, index: np.ndarray) -> np.ndarray:
    """When visits happen, in milliseconds since 1970: more of them in the evening."""
    until = np.concatenate([[0], np.cumsum(VISITS)]) / VISITS.sum()
    luck = uniform(seed, f"time of {purpose}", day, index)
    return np.asarray(day * DAY + (np.interp(luck, until, np.arange(25)) * HOUR).astype(np.int64))


def bots(settings: SimulateSettings) -> int:
    """How many users are bots; their numbers follow those of the customers."""
    return -(-settings.users // USERS_A_BOT)


def pages(settings: SimulateSettings, day_R: np.ndarray, index_R: np.ndarray) -> Pages:
    """The requests of these numbers on these days, and what is clicked on them."""
    seed, shelves = settings.seed, catalogue(settings.items, settings.seed)
    user_R = _visitors(settings, BOT_PAGES, "request", day_R, index_R)
    bot_R = user_R >= settings.users
    time_R = times(seed, "request", day_R, index_R)
    device_R = _devices("request", seed, day_R, index_R, bot_R)
    who_R, outing_R = customers(seed, user_R), outing(seed, user_R, day_R)
    place_RM, shown_RM = _candidates(settings, who_R, outing_R, day_R, index_R)
    item_RM, _ = shelves.listed(place_RM, day_R[:, None])
    logit_RM = click_logits(settings, who_R, outing_R, shelves.items(item_RM), time_R, device_R)
    probability_RM = np.where(bot_R[:, None], BOT_CLICKS, 1 / (1 + np.exp(-logit_RM)))
    luck_RM = uniform(
        seed, "click", day_R[:, None], index_R[:, None], np.arange(settings.candidates)
    )
    return Pages(
        day_R=day_R,
        index_R=index_R,
        user_R=user_R,
        time_R=time_R,
        device_R=device_R,
        item_RM=item_RM,
        shown_RM=shown_RM,
        probability_RM=probability_RM,
        clicked_RM=(luck_RM < probability_RM) & shown_RM,
    )


def _candidates(
    settings: SimulateSettings,
    who_R: Customers,
    outing_R: Outing,
    day_R: np.ndarray,
    index_R: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Places in the catalogue of a page's items, [R, M], and which of them are shown."""
    seed, shelves = settings.seed, catalogue(settings.items, settings.seed)
    keys = (day_R[:, None], index_R[:, None], np.arange(settings.candidates))
    rows, interests_R1 = np.arange(len(index_R))[:, None], who_R.interests_R[:, None]
    intent_R1 = below(interests_R1, seed, "intent", day_R[:, None], index_R[:, None])
    one_RM = below(interests_R1, seed, "decoy's colour", *keys)
    step_RM = 1 + below(interests_R1 - 1, seed, "decoy's material", *keys)
    other_RM = (one_RM + step_RM) % interests_R1
    kind_RM = uniform(seed, "kind of candidate", *keys)
    luck_RM, spare_RM = uniform(seed, "family", *keys), uniform(seed, "any candidate", *keys)
    meets_RM = kind_RM < INTENT_SHARE
    place_RM = np.select(
        [kind_RM < INTENT_SHARE + DECOY_SHARE, kind_RM < INTENT_SHARE + DECOY_SHARE + OUTING_SHARE],
        [
            shelves.of_pair(
                who_R.colours_RJ[rows, np.where(meets_RM, intent_R1, one_RM)],
                who_R.materials_RJ[rows, np.where(meets_RM, intent_R1, other_RM)],
                luck_RM,
                spare_RM,
            ),
            shelves.of_category(outing_R.category(2)[:, None], luck_RM, spare_RM),
        ],
        shelves.of_any(spare_RM),
    )
    for attempt in range(3):
        again_RM = _seen_before(place_RM)
        if not again_RM.any():
            break
        anew_RM = shelves.of_any(uniform(seed, f"instead of a repeat, {attempt}", *keys))
        place_RM = np.where(again_RM, anew_RM, place_RM)
    return place_RM, ~_seen_before(place_RM)


def _seen_before(place_RM: np.ndarray) -> np.ndarray:
    """Whether an item is on the page already, at an earlier place."""
    order_RM = np.argsort(place_RM, axis=1, kind="stable")
    sorted_RM = np.take_along_axis(place_RM, order_RM, axis=1)
    again_RM = np.zeros(place_RM.shape, dtype=bool)
    np.put_along_axis(again_RM, order_RM[:, 1:], sorted_RM[:, 1:] == sorted_RM[:, :-1], axis=1)
    return again_RM


def _page_events(
    settings: SimulateSettings, day: np.ndarray, index: np.ndarray, not_before: int = 0
) -> Events:
    late_enough = times(settings.seed, "request", day, index) >= day * DAY + not_before
    shown = pages(settings, day[late_enough], index[late_enough])
    seed, position_M = settings.seed, np.arange(settings.candidates)
    keys = (shown.day_R[:, None], shown.index_R[:, None], position_M)

    def wait(most: int, usual: int, purpose: str) -> np.ndarray:
        luck_RM = uniform(seed, purpose, *keys)
        return np.asarray(np.minimum(1000 - np.log(luck_RM) * usual, most)).astype(np.int64)

    viewed_RM = shown.time_R[:, None] + 100 * position_M
    clicked_RM = viewed_RM + wait(10 * MINUTE, MINUTE, "time to click")
    carted_RM = clicked_RM + wait(10 * MINUTE, MINUTE, "time to cart")
    bought_RM = carted_RM + wait(8 * MINUTE, 2 * MINUTE, "time to purchase")
    in_cart_RM = shown.clicked_RM & (uniform(seed, "cart", *keys) < 0.25)
    in_bag_RM = in_cart_RM & (uniform(seed, "purchase", *keys) < 0.4)
    parts = [
        (IMPRESSION, shown.shown_RM, viewed_RM),
        (CLICK, shown.clicked_RM, clicked_RM),
        (CART, in_cart_RM, carted_RM),
        (PURCHASE, in_bag_RM, bought_RM),
    ]
    row, position, kind, time = (
        np.concatenate(columns)
        for columns in zip(
            *(
                (*np.nonzero(happened), np.full(happened.sum(), kind), time[happened])
                for kind, happened, time in parts
            ),
            strict=True,
        )
    )
    return Events(
        day=shown.day_R[row],
        source=np.full(len(row), PAGES),
        index=shown.index_R[row],
        slot=position * len(EVENT_TYPES) + kind,
        time=time,
        user=shown.user_R[row],
        type=kind,
        item=shown.item_RM[row, position],
        position=position,
        device=shown.device_R[row],
        fault=np.zeros(len(row), dtype=np.int64),
    )


def _browsing(
    settings: SimulateSettings, day: np.ndarray, index: np.ndarray, not_before: int = 0
) -> Events:
    seed, shelves = settings.seed, catalogue(settings.items, settings.seed)
    late_enough = times(seed, "browsing", day, index) >= day * DAY + not_before
    day, index = day[late_enough], index[late_enough]
    user = _visitors(settings, BOT_BROWSING, "browsing", day, index)
    bot = user >= settings.users
    who = customers(seed, user)
    until = np.cumsum(who.shares_RJ, axis=1)
    interest = (uniform(seed, "interest", day, index)[:, None] >= until).sum(axis=1)
    interest = np.minimum(interest, who.interests_R - 1)
    rows = np.arange(len(index))
    luck, spare = uniform(seed, "browsed", day, index), uniform(seed, "noise", day, index)
    place = np.where(
        bot | (uniform(seed, "is noise", day, index) < NOISE_SHARE),
        shelves.of_any(spare),
        shelves.of_pair(
            who.colours_RJ[rows, interest], who.materials_RJ[rows, interest], luck, spare
        ),
    )
    how = uniform(seed, "type of browsing", day, index)
    kind = np.select([bot | (how < 0.8), how < 0.9], [CLICK, CART], PURCHASE)
    return Events(
        day=day,
        source=np.full(len(day), BROWSING),
        index=index,
        slot=np.zeros(len(day), dtype=np.int64),
        time=times(seed, "browsing", day, index),
        user=user,
        type=kind,
        item=shelves.listed(place, day)[0],
        position=np.full(len(day), -1),
        device=_devices("browsing", seed, day, index, bot),
        fault=np.zeros(len(day), dtype=np.int64),
    )


def _bought_for_outings(
    settings: SimulateSettings, day: np.ndarray, index: np.ndarray, not_before: int = 0
) -> Events:
    """Each of the two things is looked at and bought; `index` is the customer's number."""
    seed, shelves = settings.seed, catalogue(settings.items, settings.seed)
    prepared = outing(seed, index, day)
    parts = []
    for thing, bought in ((0, prepared.first_bought), (1, prepared.second_bought)):
        rows = np.nonzero((bought // DAY == day) & (bought >= day * DAY + not_before))[0]
        keys = (day[rows], index[rows], thing)
        luck, spare = uniform(seed, "bought", *keys), uniform(seed, "bought instead", *keys)
        place = shelves.of_category(prepared.which[rows] * 3 + thing, luck, spare)
        looked = np.maximum(bought[rows] - 3 * MINUTE, day[rows] * DAY)
        for kind, time in ((CLICK, looked), (PURCHASE, bought[rows])):
            parts.append(
                Events(
                    day=day[rows],
                    source=np.full(len(rows), OUTINGS),
                    index=index[rows],
                    slot=np.full(len(rows), thing * len(EVENT_TYPES) + kind),
                    time=time,
                    user=index[rows],
                    type=np.full(len(rows), kind),
                    item=shelves.listed(place, day[rows])[0],
                    position=np.full(len(rows), -1),
                    device=_devices("outing", seed, day[rows], index[rows], rows < 0),
                    fault=np.zeros(len(rows), dtype=np.int64),
                )
            )
    return Events(
        *(
            np.concatenate(columns)
            for columns in zip(*(vars(p).values() for p in parts), strict=True)
        )
    )


def _as_written(seed: int, events: Events, folder: int) -> Events:
    """The lines of one folder: late events moved, some events repeated, broken lines added."""
    keys = (events.day, events.source, events.index, events.slot)
    late = (events.time % DAY >= LATEST) & (uniform(seed, "late", *keys) < LATE)
    here = np.nonzero(events.time // DAY + late == folder)[0]
    repeated = here[uniform(seed, "written twice", *(key[here] for key in keys)) < REPEATED]
    broken = here[uniform(seed, "broken line", *(key[here] for key in keys)) < BROKEN]
    fault = 1 + below(FAULTS, seed, "fault", *(key[broken] for key in keys))
    lines = events.take(np.concatenate([here, repeated, broken]))
    lines.fault[len(lines.fault) - len(broken) :] = fault
    return lines


def _visitors(
    settings: SimulateSettings, bot_share: float, what: str, day: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """Users' numbers: customers with low ones come more often; those from `users` on are bots."""
    seed = settings.seed
    luck = uniform(seed, f"customer of {what}", day, index)
    customer = np.minimum(luck**1.4 * settings.users, settings.users - 1).astype(np.int64)
    bot = settings.users + below(bots(settings), seed, f"bot of {what}", day, index)
    return np.where(uniform(seed, f"is {what} a bot's", day, index) < bot_share, bot, customer)


def _devices(
    what: str, seed: int, day: np.ndarray, index: np.ndarray, bot: np.ndarray
) -> np.ndarray:
    luck = uniform(seed, f"device of {what}", day, index)
    phone, tablet, desktop = range(len(DEVICES))
    return np.select([bot | (luck < 0.3), luck < 0.9], [desktop, phone], tablet)


assert len(set(CATEGORIES)) == 120, "OUTINGS names a thing twice"
