"""The head noun of an item's title as its category: a heuristic for shops without categories.

Only for English, as in Online Retail: words of other letters than a to z are not seen. No shuffle.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

PACKING = (
    r"\b(set|pack|box|bag|tube|pair|pcs|s|pk) ?(of|/) ?(\d+\b)?"
    r"|\b\d+ ?(pcs?|pce|piece|drawer|hook|tier|compartment)\b|^(set|pack) \d+"
)
"""Packaging and number of pieces: SET OF 6, PACK/12, S/4, BOX OF 24, 3 PIECE."""

AFTER_NOUN = r"(?<=\w) +(with|w|w/|for|in|of|on|from|to|by)( .*|$)"
"""The part after the noun phrase: "with green lid" in JAM JAR WITH GREEN LID."""

_QUALIFIERS = (
    # Colours, sizes and shapes.
    "red blue pink green white black cream ivory brown purple yellow orange silver gold grey "
    "turquoise lilac aqua amethyst ruby copper clear multicolour assorted assort asst colour "
    "colours coloured natural beige mint raspberry chocolate pastel large small medium mini big "
    "jumbo giant extra size sized cm round square oval long tall short single double "
    # Patterns, styles and motifs.
    "and design designs style shape shaped pattern print printed painted font retrospot polkadot "
    "polkadots polka dot dots spot spots spotty stripe stripes paisley floral gingham check "
    "vintage antique retro classic traditional modern french english edwardian baroque skull "
    "skulls woodland strawberry spaceboy dolly suki london paris babushka parade pantry circus "
    "apple apples doiley feltcraft empire butterfly rose roses daisy bird birds bunny rabbit owl "
    "cat dog flock union jack flag heart hearts star stars leaf flower flowers jungle tea luxury "
    "new girl girls boy boys children childrens home garden office cottage toadstool love art "
    "magic collage set piece hanging "
    # Materials and occasions.
    "lace metal wood wooden zinc wicker enamel ceramic porcelain plastic paper felt glass crystal "
    "diamante acrylic beaded bakelike artificial christmas xmas easter birthday valentine "
    "valentines"
)
QUALIFIERS = frozenset(_QUALIFIERS.split())
"""Words that describe an item but do not name it; shop titles often put them after the noun."""


def head_noun(title: Column) -> Column:
    """The head noun of a title: bag for RED RETROSPOT LUNCH BAGS LARGE.

    Packaging and everything after a preposition are removed. The head noun is then the last word
    that is not in QUALIFIERS (or the last word, if all are), in the singular. This heuristic is not
    always right: ALARM CLOCK BAKELIKE RED gives clock, but STORAGE JAR BONBONS gives bonbon. Null
    if there is no word.
    """
    text = F.regexp_replace(F.lower(title), PACKING, " ")
    text = F.regexp_replace(F.trim(F.regexp_replace(text, r"\s+", " ")), AFTER_NOUN, "")
    found = F.regexp_extract_all(text, F.lit(r"t-lights?|[a-z][a-z']+(-[a-z]+)?"), 0)
    nouns = F.filter(found, lambda word: ~word.isin(*sorted(QUALIFIERS)))
    last = F.try_element_at(F.when(F.size(nouns) > 0, nouns).otherwise(found), F.lit(-1))
    return (
        F.when(last.rlike("ies$"), F.regexp_replace(last, "ies$", "y"))
        .when(last.rlike("(ss|x|ch|sh)es$"), F.regexp_replace(last, "es$", ""))
        .otherwise(F.regexp_replace(last, "(?<=[^su])s$", ""))
    )
