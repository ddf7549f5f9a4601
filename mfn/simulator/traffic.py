"""A day in the simulated shop: pages of results, browsing, outings, dirty lines.

The events of a day are a pure function of the calendar day, the seed and the sizes of
`SimulateSettings`; they do not depend on which other days are simulated. So the logs of consecutive
run dates form one log. The shop's days are UTC days.

**Pages of results.** The active half of the customers makes most requests. 30 % of the candidates
have the intent's colour and material; 35 % are decoys, with the colour of one interest and the
material of another interest of the same customer; 10 % would complete the customer's outing; the
rest are popular items. Positions are random, and no item is twice on a page. A click follows its
page within 10 minutes. A quarter of the clicked items are put in the cart, and two fifths of those
are bought, all within 29 minutes of the page, so some events are in the next day's log.

**Browsing.** Most behaviour does not happen on logged pages: its events have no request id. 4 in 5
of these events serve an interest, in proportion to its share, and 1 in 5 serve none. Purchases for
outings are browsing too.

**Bots.** There is one bot for each thousand customers. Bots open one page in 200, where they click
each item with probability 0.3, and make 3 % of the browsing events, which are all clicks.

**Dirty lines.** 1 event in 1000 is written twice. About 1 line in 700 is an additional broken line:
cut off, without user or item, of an unknown type, or with an invalid time. Of the events after
23:00, 1 in 100 is late: it is in the next day's folder.
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
"""Events from this time of the day on may be in the next day's folder; in milliseconds."""
VISITS = np.array([2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 9, 8, 7, 7, 7, 8, 10, 12, 13, 12, 9, 5])
"""Relative number of visits by hour of the day."""

Source = Literal[0, 1, 2]


@dataclass(frozen=True)
class Pages:
    """Pages of results.

    Shapes: R requests, M candidates by position. Times are in milliseconds since 1970.
    """

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
    """Events as columns; (day, source, index, slot) identifies an event."""

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
        """Select events by row number."""
        return Events(*(column[rows] for column in vars(self).values()))


def events_of(settings: SimulateSettings, source: Source, folder: int, index: np.ndarray) -> Events:
    """Lines from one source in one day's folder.

    Args:
        folder: the day, in days since 1970.
        index: numbers of the source's requests, browsing events or customers; any subset.
    """
    make = {PAGES: _page_events, BROWSING: _browsing, OUTINGS: _bought_for_outings}[source]
    # Late events of the day before are in this folder too.
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
    """Times of visits, in milliseconds since 1970; there are more visits in the evening."""
    until = np.concatenate([[0], np.cumsum(VISITS)]) / VISITS.sum()
    draw = uniform(seed, f"time of {purpose}", day, index)
    return np.asarray(day * DAY + (np.interp(draw, until, np.arange(25)) * HOUR).astype(np.int64))


def bots(settings: SimulateSettings) -> int:
    """Number of bots; their user numbers follow those of the customers."""
    return -(-settings.users // USERS_A_BOT)


def pages(settings: SimulateSettings, day_R: np.ndarray, index_R: np.ndarray) -> Pages:
    """Pages of the requests with these days and numbers, with click probabilities and clicks."""
    seed, shelves = settings.seed, catalogue(settings.items, settings.seed)
    user_R = _visitors(settings, BOT_PAGES, "request", day_R, index_R)
    bot_R = user_R >= settings.users
    time_R = times(seed, "request", day_R, index_R)
    device_R = _devices("request", seed, day_R, index_R, bot_R)
    # Candidates and their click probabilities, [R, M].
    who_R, outing_R = customers(seed, user_R), outing(seed, user_R, day_R)
    place_RM, shown_RM = _candidates(settings, who_R, outing_R, day_R, index_R)
    item_RM, _ = shelves.listed(place_RM, day_R[:, None])
    logit_RM = click_logits(settings, who_R, outing_R, shelves.items(item_RM), time_R, device_R)
    probability_RM = np.where(bot_R[:, None], BOT_CLICKS, 1 / (1 + np.exp(-logit_RM)))
    draw_RM = uniform(
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
        clicked_RM=(draw_RM < probability_RM) & shown_RM,
    )


def _candidates(
    settings: SimulateSettings,
    who_R: Customers,
    outing_R: Outing,
    day_R: np.ndarray,
    index_R: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the pages' candidates in the catalogue, and whether they are shown, both [R, M]."""
    seed, shelves = settings.seed, catalogue(settings.items, settings.seed)
    keys = (day_R[:, None], index_R[:, None], np.arange(settings.candidates))
    rows, interests_R1 = np.arange(len(index_R))[:, None], who_R.interests_R[:, None]
    # The intent, and the two different interests that a decoy mixes.
    intent_R1 = below(interests_R1, seed, "intent", day_R[:, None], index_R[:, None])
    one_RM = below(interests_R1, seed, "decoy's colour", *keys)
    step_RM = 1 + below(interests_R1 - 1, seed, "decoy's material", *keys)
    other_RM = (one_RM + step_RM) % interests_R1
    # The kind of each candidate: of the intent, decoy, for the outing, or popular.
    kind_RM = uniform(seed, "kind of candidate", *keys)
    draw_RM, fallback_RM = uniform(seed, "family", *keys), uniform(seed, "any candidate", *keys)
    meets_RM = kind_RM < INTENT_SHARE
    place_RM = np.select(
        [kind_RM < INTENT_SHARE + DECOY_SHARE, kind_RM < INTENT_SHARE + DECOY_SHARE + OUTING_SHARE],
        [
            shelves.of_pair(
                who_R.colours_RJ[rows, np.where(meets_RM, intent_R1, one_RM)],
                who_R.materials_RJ[rows, np.where(meets_RM, intent_R1, other_RM)],
                draw_RM,
                fallback_RM,
            ),
            shelves.of_category(outing_R.category(2)[:, None], draw_RM, fallback_RM),
        ],
        shelves.of_any(fallback_RM),
    )
    # Replace items that are twice on a page; what is still repeated after 3 attempts is not shown.
    for attempt in range(3):
        repeated_RM = _is_repeated(place_RM)
        if not repeated_RM.any():
            break
        replacement_RM = shelves.of_any(uniform(seed, f"instead of a repeat, {attempt}", *keys))
        place_RM = np.where(repeated_RM, replacement_RM, place_RM)
    return place_RM, ~_is_repeated(place_RM)


def _is_repeated(place_RM: np.ndarray) -> np.ndarray:
    """Whether the same item is on the page at an earlier position, [R, M]."""
    order_RM = np.argsort(place_RM, axis=1, kind="stable")
    sorted_RM = np.take_along_axis(place_RM, order_RM, axis=1)
    repeated_RM = np.zeros(place_RM.shape, dtype=bool)
    np.put_along_axis(repeated_RM, order_RM[:, 1:], sorted_RM[:, 1:] == sorted_RM[:, :-1], axis=1)
    return repeated_RM


def _page_events(
    settings: SimulateSettings, day: np.ndarray, index: np.ndarray, not_before: int = 0
) -> Events:
    """Events on pages: impressions, clicks, carts and purchases.

    Args:
        not_before: only requests from this time of the day on, in milliseconds.
    """
    late_enough = times(settings.seed, "request", day, index) >= day * DAY + not_before
    shown = pages(settings, day[late_enough], index[late_enough])
    seed, position_M = settings.seed, np.arange(settings.candidates)
    keys = (shown.day_R[:, None], shown.index_R[:, None], position_M)

    def wait(longest: int, mean: int, purpose: str) -> np.ndarray:
        """Waiting times in milliseconds, [R, M]: 1 s plus an exponential time, up to `longest`."""
        draw_RM = uniform(seed, purpose, *keys)
        return np.asarray(np.minimum(1000 - np.log(draw_RM) * mean, longest)).astype(np.int64)

    # Times of the four possible events of each candidate, and whether they happen, all [R, M].
    viewed_RM = shown.time_R[:, None] + 100 * position_M
    clicked_RM = viewed_RM + wait(10 * MINUTE, MINUTE, "time to click")
    carted_RM = clicked_RM + wait(10 * MINUTE, MINUTE, "time to cart")
    bought_RM = carted_RM + wait(8 * MINUTE, 2 * MINUTE, "time to purchase")
    in_cart_RM = shown.clicked_RM & (uniform(seed, "cart", *keys) < 0.25)
    is_bought_RM = in_cart_RM & (uniform(seed, "purchase", *keys) < 0.4)
    parts = [
        (IMPRESSION, shown.shown_RM, viewed_RM),
        (CLICK, shown.clicked_RM, clicked_RM),
        (CART, in_cart_RM, carted_RM),
        (PURCHASE, is_bought_RM, bought_RM),
    ]
    # One row for each event that happens.
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
    """Browsing events, one for each number; see `_page_events` about `not_before`."""
    seed, shelves = settings.seed, catalogue(settings.items, settings.seed)
    late_enough = times(seed, "browsing", day, index) >= day * DAY + not_before
    day, index = day[late_enough], index[late_enough]
    user = _visitors(settings, BOT_BROWSING, "browsing", day, index)
    bot = user >= settings.users
    # The interest that each event serves, drawn by the customer's shares.
    who = customers(seed, user)
    until = np.cumsum(who.shares_RJ, axis=1)
    interest = (uniform(seed, "interest", day, index)[:, None] >= until).sum(axis=1)
    interest = np.minimum(interest, who.interests_R - 1)
    # The place of its item: of the interest, or any popular one (noise, and all events of bots).
    rows = np.arange(len(index))
    draw, fallback = uniform(seed, "browsed", day, index), uniform(seed, "noise", day, index)
    place = np.where(
        bot | (uniform(seed, "is noise", day, index) < NOISE_SHARE),
        shelves.of_any(fallback),
        shelves.of_pair(
            who.colours_RJ[rows, interest], who.materials_RJ[rows, interest], draw, fallback
        ),
    )
    type_draw = uniform(seed, "type of browsing", day, index)
    kind = np.select([bot | (type_draw < 0.8), type_draw < 0.9], [CLICK, CART], PURCHASE)
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
    """Clicks and purchases of the first two things of outings; `index` is the customer's number."""
    seed, shelves = settings.seed, catalogue(settings.items, settings.seed)
    prepared = outing(seed, index, day)
    parts = []
    for thing, bought in ((0, prepared.first_bought), (1, prepared.second_bought)):
        # Rows of customers who buy this thing on this day.
        rows = np.nonzero((bought // DAY == day) & (bought >= day * DAY + not_before))[0]
        keys = (day[rows], index[rows], thing)
        draw, fallback = uniform(seed, "bought", *keys), uniform(seed, "bought instead", *keys)
        place = shelves.of_category(prepared.which[rows] * 3 + thing, draw, fallback)
        clicked = np.maximum(bought[rows] - 3 * MINUTE, day[rows] * DAY)
        for kind, time in ((CLICK, clicked), (PURCHASE, bought[rows])):
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
    """Lines of one folder: with late events moved, some events repeated, and broken lines added."""
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
    settings: SimulateSettings, bot_share: float, purpose: str, day: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """User number of each visit: low numbers visit more often; numbers from `users` on are bots."""
    seed = settings.seed
    draw = uniform(seed, f"customer of {purpose}", day, index)
    customer = np.minimum(draw**1.4 * settings.users, settings.users - 1).astype(np.int64)
    bot = settings.users + below(bots(settings), seed, f"bot of {purpose}", day, index)
    return np.where(uniform(seed, f"is {purpose} a bot's", day, index) < bot_share, bot, customer)


def _devices(
    purpose: str, seed: int, day: np.ndarray, index: np.ndarray, bot: np.ndarray
) -> np.ndarray:
    """Index in DEVICES of each visit's device; bots use desktops."""
    draw = uniform(seed, f"device of {purpose}", day, index)
    phone, tablet, desktop = range(len(DEVICES))
    return np.select([bot | (draw < 0.3), draw < 0.9], [desktop, phone], tablet)


assert len(set(CATEGORIES)) == 120, "OUTINGS names a thing twice"
