"""What an item is, by the last noun of its title: a rule of thumb for shops without categories.

No shuffle.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

PACKING = (
    r"\b(set|pack|box|bag|tube|pair|pcs|s|pk) ?(of|/) ?(\d+\b)?"
    r"|\b\d+ ?(pcs?|pce|piece|drawer|hook|tier|compartment)\b|^(set|pack) \d+"
)
"""How many there are in a package: SET OF 6, PACK/12, S/4, BOX OF 24, 3 PIECE."""

AFTER_NOUN = r"(?<=\w) +(with|w|w/|for|in|of|on|from|to|by)( .*|$)"
"""What follows the noun phrase: JAM JAR with green lid."""

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
"""Words that say which one, and not what it is, as they come behind a noun in shops' titles."""


def head_noun(title: Column) -> Column:
    """What an item is, as its title says: RED RETROSPOT LUNCH BAGS LARGE is a bag.

    Without the packaging and what follows a preposition, the last word that is none of QUALIFIERS
    (or, where all are, the last word), in the singular. It is a rule of thumb: of ALARM CLOCK
    BAKELIKE RED it makes a clock, of STORAGE JAR BONBONS a bonbon. Null without any word.
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
