"""A shop for house, garden and wardrobe: what it sells, who its customers are, what they click.

Everything here is a pure function of the seed, the shop's sizes and a day of the calendar, drawn
by hashing (`mfn.simulator.draws`), a batch of any size at a time.

**What it sells.** 120 kinds of things (tent, sleeping bag, camping stove, …), each in any of 24
materials. A *family* is one thing by one brand in one material at about one price, and is sold in
the 6 colours of one of 4 palettes: near-equal items that differ in colour alone. 3 families in 10
belong to a collection that is replaced every 21 days: the successors are new items with new ids,
prices, styles and fates, and those that they replace stay listed, sold out, for 21 days more.
An item's appeal is luck, N(0, 0.5); early families of a kind are shown more often.

**Who comes.** A customer has 2 to 4 interests. An interest is a pair, this colour in this
material ("olive linen"), whatever the thing; no two interests of a customer share a colour or a
material. Much of what one does serves one's main interest: shares are ∝ exp(1.2·N(0, 1)). Yet on
a page of results each interest is equally likely to be the *intent*. Customers also have a purse
b ~ N(0.3·(age band − 2), 1), of which the shop knows only the age band.

**Outings.** In every 6 days a customer prepares something, such as a camping trip: first and
second thing (a tent, a sleeping bag) are bought in the first half of that time, in either order,
and from then on, until the 6 days are over, the third (a camping stove) is welcome. Having bought
one of the two means nothing.

**What they click.** For customer u, item i in place k of a page at time t:

    logit p = −2.9 + appeal(i) + 2.4·match(u, i) + 1.0·[i completes the outing of u at t]
              + 0.25·cos(2π·(t − high season of its thing)/year) + 0.3·[its colour is this week's]
              − 0.25·max(0, price level(i) − b(u)) − 0.06·k + 0.15·[on a phone]

where match is 1 if both attributes of one of the customer's interests are the item's (a "joint"
shop). In an "additive" shop, which is a control and like no real one, match is ½ for a colour
from any interest plus ½ for a material from any interest: there an average of all one has done
says all there is to know, and a model of several interests has nothing to gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from mfn.settings import SimulateSettings
from mfn.simulator.draws import below, normal, uniform

# fmt: off
COLOURS = (
    "amber", "apricot", "black", "blue", "bronze", "charcoal", "coral", "cream", "crimson",
    "emerald", "indigo", "ivory", "lavender", "lime", "navy", "ochre", "olive", "plum", "rose",
    "ruby", "sand", "teal", "turquoise", "white",
)
MATERIALS = (
    "aluminium", "bamboo", "bone", "brass", "canvas", "cedar", "ceramic", "cork", "cotton",
    "denim", "felt", "glass", "jute", "leather", "linen", "marble", "oak", "rattan", "rubber",
    "silk", "steel", "velvet", "walnut", "wool",
)
STYLES = (
    "classic", "compact", "folding", "handmade", "lightweight", "little", "modern", "plain",
    "rustic", "slim", "sturdy", "vintage",
)
# fmt: on
OUTINGS = (
    ("tent", "sleeping bag", "camping stove"),
    ("crib", "pram", "nappy bag"),
    ("barbecue", "beer glass", "apron"),
    ("desk", "office chair", "desk lamp"),
    ("sofa", "rug", "coffee table"),
    ("bed frame", "mattress", "duvet cover"),
    ("wok", "chopping board", "rice bowl"),
    ("teapot", "teacup", "tea tray"),
    ("running shoe", "sports watch", "water bottle"),
    ("suit", "dress shirt", "tie"),
    ("evening dress", "clutch bag", "earring"),
    ("yoga mat", "leggings", "foam roller"),
    ("bicycle", "bike helmet", "bike lock"),
    ("dog bed", "dog lead", "food bowl"),
    ("aquarium", "water filter", "aquarium lamp"),
    ("flower pot", "garden spade", "watering can"),
    ("garden bench", "parasol", "garden cushion"),
    ("curtain", "curtain rail", "blind"),
    ("bath towel", "bath mat", "shower curtain"),
    ("wall clock", "picture frame", "wall shelf"),
    ("guitar", "guitar strap", "music stand"),
    ("easel", "brush set", "palette"),
    ("sewing machine", "scissors", "sewing box"),
    ("ski jacket", "ski trousers", "ski goggles"),
    ("swimsuit", "beach towel", "sun hat"),
    ("raincoat", "rubber boot", "umbrella"),
    ("suitcase", "travel pillow", "passport holder"),
    ("backpack", "lunch box", "pencil case"),
    ("notebook", "fountain pen", "pen stand"),
    ("keyboard", "tablet sleeve", "laptop stand"),
    ("record player", "speaker", "record rack"),
    ("wine glass", "carafe", "wine rack"),
    ("coffee grinder", "espresso cup", "milk jug"),
    ("mixing bowl", "cake tin", "cake stand"),
    ("dining table", "dining chair", "table runner"),
    ("wardrobe", "coat hanger", "shoe rack"),
    ("high chair", "baby bib", "toy box"),
    ("wreath", "candle holder", "tree stand"),
    ("razor", "shaving brush", "wash bag"),
    ("wallet", "belt", "key ring"),
)
"""First and second thing, and the third that is welcome once both are bought."""
CATEGORIES = [thing for outing in OUTINGS for thing in outing]
BRANDS = [
    start + end
    for start in ("Aster", "Bryn", "Calder", "Dal", "Elm", "Fenn", "Halden", "Kest", "Nor", "Ros")
    for end in ("berg", "by", "field", "holm", "more", "wick")
]
SHOPS = [
    f"{name}'s"
    for name in ("Ada", "Ben", "Cleo", "Dora", "Emil", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim")
]
DEVICES = ("phone", "tablet", "desktop")
AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
REGIONS = ("north", "east", "south", "west")

DAY = 24 * 3600 * 1000
"""Milliseconds."""
PALETTES, FAMILY = 4, 6
CELLS = len(MATERIALS) * PALETTES
COLLECTION_DAYS = 21
OUTING_DAYS = 6
INTERESTS = 4
"""The most interests that a customer has."""

BASE_LOGIT, MATCH, COMPLETES, POSITION = -2.9, 2.4, 1.0, -0.06
SEASON, TREND, DEAR, PHONE = 0.25, 0.3, -0.25, 0.15


@dataclass(frozen=True)
class Items:
    """What there is to know of items; all arrays have the shape of `number`, the items' ids."""

    number: np.ndarray
    category: np.ndarray
    shop: np.ndarray
    brand: np.ndarray
    colour: np.ndarray
    material: np.ndarray
    style: np.ndarray
    price_level: np.ndarray
    price: np.ndarray
    appeal: np.ndarray


class Catalogue:
    """The shop's shelves: one *place* an item, in which collections follow one another.

    Place p holds colour p mod 6 of family p div 6. A worker keeps two whole numbers a family, to
    find the families of a category; all else is hashed when it is asked for.

    Args:
        items: places, rounded up to whole families.
        seed: the shop's.
    """

    def __init__(self, items: int, seed: int) -> None:
        self.seed = seed
        self.places = places(items)
        self.families = self.places // FAMILY
        self._shuffled = np.argsort(uniform(seed, "shelf", np.arange(self.families)))
        self._rank = np.argsort(self._shuffled)

    def listed(self, place: np.ndarray, day: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items on sale on `day` in these places, and the sold out items that they replaced.

        The second is -1 where a place's item has always been there. An item's number is its place
        plus a multiple of the number of places, one for each collection.
        """
        family = place // FAMILY
        replaced = uniform(self.seed, "is replaced", family) < 0.3
        phase = below(COLLECTION_DAYS, self.seed, "first day of a collection", family)
        collection = (day + phase) // COLLECTION_DAYS
        number = place + np.where(replaced, collection, 0) * self.places
        return number, np.where(replaced, number - self.places, -1)

    def items(self, number: np.ndarray) -> Items:
        """Everything about items; the same for ever."""
        seed, place = self.seed, number % self.places
        family = place // FAMILY
        collection = number // self.places
        category = self._rank[family] % len(CATEGORIES)
        brand = below(len(BRANDS), seed, "brand", family)
        price_level = normal(seed, "price level", family, collection)
        usual_price = np.exp(3.4 + 0.8 * normal(seed, "usual price", category))
        own_price = np.exp(0.35 * price_level + 0.03 * normal(seed, "own price", number))
        return Items(
            number=number,
            category=category,
            shop=below(len(SHOPS), seed, "shop", brand, below(3, seed, "dealer", family)),
            brand=brand,
            colour=self._palettes()[family // len(MATERIALS) % PALETTES, place % FAMILY],
            material=family % len(MATERIALS),
            style=below(len(STYLES), seed, "style", family, collection),
            price_level=price_level,
            price=np.round(usual_price * own_price, 2),
            appeal=0.5 * normal(seed, "appeal", number),
        )

    def of_pair(
        self, colour: np.ndarray, material: np.ndarray, luck: np.ndarray, spare: np.ndarray
    ) -> np.ndarray:
        """A place with an item of this colour and material, popular families more often.

        A shop of less than 96 families (576 items) does not have every pair; where it has not,
        the place is any one.

        Args:
            colour, material: indices.
            luck, spare: numbers in (0, 1) that choose the family, and the place if there is none.
        """
        palettes = self._palettes()
        palette_of, member_of = np.empty((2, len(COLOURS)), dtype=np.int64)
        palette_of[palettes] = np.arange(PALETTES)[:, None]
        member_of[palettes] = np.arange(FAMILY)
        cell = material + len(MATERIALS) * palette_of[colour]
        families = (self.families - cell + CELLS - 1) // CELLS
        family = cell + CELLS * _popular(families, luck)
        return np.where(families > 0, family * FAMILY + member_of[colour], self.of_any(spare))

    def of_category(self, category: np.ndarray, luck: np.ndarray, spare: np.ndarray) -> np.ndarray:
        """A place with an item of this category, or any one if no family is; see `of_pair`."""
        families = (self.families - category + len(CATEGORIES) - 1) // len(CATEGORIES)
        chosen = luck * np.maximum(families, 1) * FAMILY
        rank = category + len(CATEGORIES) * (chosen.astype(np.int64) // FAMILY)
        family = self._shuffled[np.minimum(rank, self.families - 1)]
        place = family * FAMILY + chosen.astype(np.int64) % FAMILY
        return np.where(families > 0, place, self.of_any(spare))

    def of_any(self, luck: np.ndarray) -> np.ndarray:
        """Any place, those of popular families more often."""
        chosen = _popular(np.asarray(self.families), luck)
        return chosen * FAMILY + (luck * 1e6).astype(np.int64) % FAMILY

    def _palettes(self) -> np.ndarray:
        """[palettes, 6] colours."""
        order = np.argsort(uniform(self.seed, "palette", np.arange(len(COLOURS))))
        return order.reshape(PALETTES, FAMILY)


def places(items: int) -> int:
    """Items on sale at a time: whole families."""
    return -(-items // FAMILY) * FAMILY


@lru_cache(maxsize=4)
def catalogue(items: int, seed: int) -> Catalogue:
    """The catalogue, made once a process."""
    return Catalogue(items, seed)


@dataclass(frozen=True)
class Customers:
    """What customers like. Legend: R customers, J = 4 interests, of which the first are real."""

    interests_R: np.ndarray
    colours_RJ: np.ndarray
    materials_RJ: np.ndarray
    shares_RJ: np.ndarray
    age_R: np.ndarray
    region_R: np.ndarray
    purse_R: np.ndarray

    @property
    def real_RJ(self) -> np.ndarray:
        """Which of the interests are real."""
        return np.arange(INTERESTS) < self.interests_R[:, None]


def customers(seed: int, user_R: np.ndarray) -> Customers:
    """The customers of these numbers."""
    user_R1, steps_J = user_R[:, None], np.arange(INTERESTS)

    def distinct(names: Sequence[str], what: str) -> np.ndarray:
        luck = uniform(seed, what, user_R1, np.arange(len(names)))
        return np.argsort(luck, axis=1)[:, :INTERESTS]

    interests_R = 2 + below(INTERESTS - 1, seed, "interests", user_R)
    weight_RJ = np.exp(1.2 * normal(seed, "share", user_R1, steps_J))
    weight_RJ *= steps_J < interests_R[:, None]
    age_R = below(len(AGES), seed, "age", user_R)
    return Customers(
        interests_R=interests_R,
        colours_RJ=distinct(COLOURS, "colours"),
        materials_RJ=distinct(MATERIALS, "materials"),
        shares_RJ=weight_RJ / weight_RJ.sum(axis=1, keepdims=True),
        age_R=age_R,
        region_R=below(len(REGIONS), seed, "region", user_R),
        purse_R=0.3 * (age_R - 2) + normal(seed, "purse", user_R),
    )


@dataclass(frozen=True)
class Outing:
    """What customers prepare; times in milliseconds since 1970."""

    which: np.ndarray
    first_bought: np.ndarray
    second_bought: np.ndarray

    def category(self, thing: Literal[0, 1, 2]) -> np.ndarray:
        """Category of the first, second or third thing."""
        return self.which * 3 + thing

    def completed_by(self, category: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Whether an item of `category` is what is still missing at `time`."""
        both = np.maximum(self.first_bought, self.second_bought)
        return np.asarray((category == self.category(2)) & (time > both))


def outing(seed: int, user: np.ndarray, day: np.ndarray) -> Outing:
    """What these customers are preparing on these days (whole days since 1970)."""
    phase = below(OUTING_DAYS, seed, "first day of an outing", user)
    turn = (day + phase) // OUTING_DAYS
    start = (turn * OUTING_DAYS - phase) * DAY
    half = OUTING_DAYS * DAY // 2
    return Outing(
        which=below(len(OUTINGS), seed, "outing", user, turn),
        first_bought=start + below(half, seed, "first thing bought", user, turn),
        second_bought=start + below(half, seed, "second thing bought", user, turn),
    )


def click_logits(
    settings: SimulateSettings,
    who_R: Customers,
    outing_R: Outing,
    items_RM: Items,
    time_R: np.ndarray,
    device_R: np.ndarray,
) -> np.ndarray:
    """The click law of the module's docstring, [R, M]; candidate m is in place m of its page."""
    seed = settings.seed
    day_R1 = time_R[:, None] / DAY
    high_season = uniform(seed, "high season", items_RM.category)
    season = np.cos(2 * np.pi * (day_R1 / 365.25 - high_season))
    trend_R1 = below(len(COLOURS), seed, "colour of the week", time_R[:, None] // (7 * DAY))
    completed = Outing(*(part[:, None] for part in vars(outing_R).values())).completed_by(
        items_RM.category, time_R[:, None]
    )
    dear = np.maximum(0, items_RM.price_level - who_R.purse_R[:, None])
    logits: np.ndarray = (
        BASE_LOGIT
        + items_RM.appeal
        + MATCH * match(who_R, items_RM, settings.interest_match)
        + COMPLETES * completed
        + SEASON * season
        + TREND * (items_RM.colour == trend_R1)
        + DEAR * dear
        + POSITION * np.arange(settings.candidates)
        + PHONE * (device_R == DEVICES.index("phone"))[:, None]
    )
    return logits


def match(who_R: Customers, items_RM: Items, how: Literal["joint", "additive"]) -> np.ndarray:
    """How well items meet the interests of those they are shown to, in [0, 1], [R, M]."""
    real_RJ1 = who_R.real_RJ[:, :, None]
    colour_RJM = (items_RM.colour[:, None, :] == who_R.colours_RJ[:, :, None]) & real_RJ1
    material_RJM = (items_RM.material[:, None, :] == who_R.materials_RJ[:, :, None]) & real_RJ1
    if how == "joint":
        return np.asarray((colour_RJM & material_RJM).any(axis=1), dtype=np.float64)
    return np.asarray(colour_RJM.any(axis=1) / 2 + material_RJM.any(axis=1) / 2)


def _popular(size: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """A whole number below `size`, small ones more often."""
    return np.minimum(luck**1.4 * size, np.maximum(size - 1, 0)).astype(np.int64)
