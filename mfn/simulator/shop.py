"""The simulated shop: its items, its customers, and their click probabilities.

Everything here is a pure function of the seed, the shop's sizes and the calendar day. Random
numbers are hashes (`mfn.simulator.draws`), so batches of any size give the same results.

**Items.** There are 120 categories (tent, sleeping bag, camping stove, …) and 24 materials. A
*family* has one category, brand and material and about one price. It is sold in the 6 colours of
one of 4 palettes, so its items are nearly equal and differ only in colour. 3 families in 10 belong
to a collection that is replaced every 21 days: the successors are new items with new ids, prices,
styles and appeals; the replaced items stay listed, sold out, for 21 more days. An item's appeal is
random, N(0, 0.5); the first families of a category are shown more often.

**Customers.** A customer has 2 to 4 interests. An interest is a pair of colour and material ("olive
linen") in any category; no two interests of a customer share a colour or a material. Most behaviour
serves the main interest: the shares of interests are ∝ exp(1.2·N(0, 1)). But on a page of results,
each interest is equally likely to be the *intent*. Customers also have a purse
b ~ N(0.3·(age band − 2), 1), of which the shop knows only the age band.

**Outings.** Every 6 days a customer prepares an outing, such as a camping trip. The customer buys
the first and the second thing (a tent, a sleeping bag) during the first 3 days, in either order.
Once both are bought, and until the 6 days are over, the third thing (a camping stove) completes the
outing. One of the two purchases by itself has no effect.

**Clicks.** For customer u and item i at position k of a page at time t:

    logit p = −2.9 + appeal(i) + 2.4·match(u, i) + 1.0·[i completes the outing of u at t]
              + 0.25·cos(2π·(t − high season of its thing)/year) + 0.3·[its colour is this week's]
              − 0.25·max(0, price level(i) − b(u)) − 0.06·k + 0.15·[on a phone]

In a "joint" shop, match is 1 if the item has both the colour and the material of the same interest,
else 0. In an "additive" shop, match is ½ for a colour of any interest plus ½ for a material of any
interest. That is a control and not realistic: there the average of a user's behaviour is all the
information, and a multi-interest model has nothing to gain.
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
"""Categories of an outing: the first and second thing, and the third that completes them."""
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
"""In milliseconds."""
PALETTES, FAMILY = 4, 6
CELLS = len(MATERIALS) * PALETTES
COLLECTION_DAYS = 21
OUTING_DAYS = 6
INTERESTS = 4
"""Maximum number of interests of a customer."""

# Coefficients of the click logit in the module's docstring.
BASE_LOGIT, MATCH, COMPLETES, POSITION = -2.9, 2.4, 1.0, -0.06
SEASON, TREND, OVER_BUDGET, PHONE = 0.25, 0.3, -0.25, 0.15


@dataclass(frozen=True)
class Items:
    """Attributes of items; all arrays have the shape of `number`, the items' ids."""

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
    """The shop's shelves: each *place* has one item on sale, of successive collections.

    Place p holds colour p mod 6 of family p div 6. A worker keeps two integers for each family, to
    find the families of a category; everything else is hashed when needed.

    Args:
        items: number of places; rounded up to whole families.
        seed: of the shop.
    """

    def __init__(self, items: int, seed: int) -> None:
        self.seed = seed
        self.places = places(items)
        self.families = self.places // FAMILY
        self._shuffled = np.argsort(uniform(seed, "shelf", np.arange(self.families)))
        self._rank = np.argsort(self._shuffled)

    def listed(self, place: np.ndarray, day: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items on sale on `day` in these places, and the sold-out items that they replaced.

        The second array is -1 where an item is never replaced. An item's number is its place plus
        the number of its collection times the number of places.
        """
        family = place // FAMILY
        replaced = uniform(self.seed, "is replaced", family) < 0.3
        phase = below(COLLECTION_DAYS, self.seed, "first day of a collection", family)
        collection = (day + phase) // COLLECTION_DAYS
        number = place + np.where(replaced, collection, 0) * self.places
        return number, np.where(replaced, number - self.places, -1)

    def items(self, number: np.ndarray) -> Items:
        """Attributes of items; they never change."""
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
        self, colour: np.ndarray, material: np.ndarray, draw: np.ndarray, fallback: np.ndarray
    ) -> np.ndarray:
        """Draw a place with an item of this colour and material, popular families more often.

        A shop with fewer than 96 families (576 items) does not have every pair. For a missing pair,
        any place is drawn.

        Args:
            colour, material: indices.
            draw, fallback: uniform in (0, 1): they choose the family, and the place if the pair is
                missing.
        """
        # For each colour: its palette, and its member number in the palette.
        palettes = self._palettes()
        palette_of, member_of = np.empty((2, len(COLOURS)), dtype=np.int64)
        palette_of[palettes] = np.arange(PALETTES)[:, None]
        member_of[palettes] = np.arange(FAMILY)
        # Families with this material and palette are cell, cell + CELLS, cell + 2·CELLS, …
        cell = material + len(MATERIALS) * palette_of[colour]
        families = (self.families - cell + CELLS - 1) // CELLS
        family = cell + CELLS * _popular(families, draw)
        return np.where(families > 0, family * FAMILY + member_of[colour], self.of_any(fallback))

    def of_category(
        self, category: np.ndarray, draw: np.ndarray, fallback: np.ndarray
    ) -> np.ndarray:
        """Draw a place with an item of this category, or any place if there is none."""
        families = (self.families - category + len(CATEGORIES) - 1) // len(CATEGORIES)
        chosen = draw * np.maximum(families, 1) * FAMILY
        rank = category + len(CATEGORIES) * (chosen.astype(np.int64) // FAMILY)
        family = self._shuffled[np.minimum(rank, self.families - 1)]
        place = family * FAMILY + chosen.astype(np.int64) % FAMILY
        return np.where(families > 0, place, self.of_any(fallback))

    def of_any(self, draw: np.ndarray) -> np.ndarray:
        """Draw any place, those of popular families more often."""
        chosen = _popular(np.asarray(self.families), draw)
        return chosen * FAMILY + (draw * 1e6).astype(np.int64) % FAMILY

    def _palettes(self) -> np.ndarray:
        """Colours of each palette, [palettes, 6]."""
        order = np.argsort(uniform(self.seed, "palette", np.arange(len(COLOURS))))
        return order.reshape(PALETTES, FAMILY)


def places(items: int) -> int:
    """Number of items on sale at a time: `items`, rounded up to whole families."""
    return -(-items // FAMILY) * FAMILY


@lru_cache(maxsize=4)
def catalogue(items: int, seed: int) -> Catalogue:
    """The catalogue, built once in each process."""
    return Catalogue(items, seed)


@dataclass(frozen=True)
class Customers:
    """Attributes of customers.

    Shapes: R customers, J = 4 interests. Only the first `interests_R` of a row are real.
    """

    interests_R: np.ndarray
    colours_RJ: np.ndarray
    materials_RJ: np.ndarray
    shares_RJ: np.ndarray
    age_R: np.ndarray
    region_R: np.ndarray
    purse_R: np.ndarray

    @property
    def real_RJ(self) -> np.ndarray:
        """Whether each interest is real, [R, J]."""
        return np.arange(INTERESTS) < self.interests_R[:, None]


def customers(seed: int, user_R: np.ndarray) -> Customers:
    """Attributes of the customers with these numbers."""
    user_R1, steps_J = user_R[:, None], np.arange(INTERESTS)

    def distinct(names: Sequence[str], purpose: str) -> np.ndarray:
        """Different indices of `names` for each customer, [R, J]."""
        draw = uniform(seed, purpose, user_R1, np.arange(len(names)))
        return np.argsort(draw, axis=1)[:, :INTERESTS]

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
    """What customers prepare; times are in milliseconds since 1970."""

    which: np.ndarray
    first_bought: np.ndarray
    second_bought: np.ndarray

    def category(self, thing: Literal[0, 1, 2]) -> np.ndarray:
        """Category of the first, second or third thing."""
        return self.which * 3 + thing

    def completed_by(self, category: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Whether an item of `category` completes the outing at `time`."""
        both = np.maximum(self.first_bought, self.second_bought)
        return np.asarray((category == self.category(2)) & (time > both))


def outing(seed: int, user: np.ndarray, day: np.ndarray) -> Outing:
    """The outing that each customer prepares on each day (`day` in days since 1970)."""
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
    """Click logits by the formula in the module's docstring, [R, M].

    Shapes: R requests, M candidates; candidate m is at position m of its page.
    """
    seed = settings.seed
    # Season of the category and colour of the week.
    day_R1 = time_R[:, None] / DAY
    high_season = uniform(seed, "high season", items_RM.category)
    season = np.cos(2 * np.pi * (day_R1 / 365.25 - high_season))
    trend_R1 = below(len(COLOURS), seed, "colour of the week", time_R[:, None] // (7 * DAY))
    # Whether the candidate completes the customer's outing, and by how much it is too expensive.
    completed = Outing(*(part[:, None] for part in vars(outing_R).values())).completed_by(
        items_RM.category, time_R[:, None]
    )
    over_budget = np.maximum(0, items_RM.price_level - who_R.purse_R[:, None])
    logits: np.ndarray = (
        BASE_LOGIT
        + items_RM.appeal
        + MATCH * match(who_R, items_RM, settings.interest_match)
        + COMPLETES * completed
        + SEASON * season
        + TREND * (items_RM.colour == trend_R1)
        + OVER_BUDGET * over_budget
        + POSITION * np.arange(settings.candidates)
        + PHONE * (device_R == DEVICES.index("phone"))[:, None]
    )
    return logits


def match(who_R: Customers, items_RM: Items, how: Literal["joint", "additive"]) -> np.ndarray:
    """How well items match the interests of the customers that see them, in [0, 1], [R, M]."""
    # Whether item m has the colour, and the material, of real interest j: [R, J, M].
    real_RJ1 = who_R.real_RJ[:, :, None]
    colour_RJM = (items_RM.colour[:, None, :] == who_R.colours_RJ[:, :, None]) & real_RJ1
    material_RJM = (items_RM.material[:, None, :] == who_R.materials_RJ[:, :, None]) & real_RJ1
    if how == "joint":
        return np.asarray((colour_RJM & material_RJM).any(axis=1), dtype=np.float64)
    return np.asarray(colour_RJM.any(axis=1) / 2 + material_RJM.any(axis=1) / 2)


def _popular(size: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """An integer in [0, size), small ones more often."""
    return np.minimum(draw**1.4 * size, np.maximum(size - 1, 0)).astype(np.int64)
