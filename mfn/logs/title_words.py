"""Words of item titles in any script, without stop words. No shuffle.

Where words are separated by blanks, a word is a run of at least two letters, digits, marks and
apostrophes; one Hangul syllable is a word too. Chinese, Japanese, Thai, Lao, Khmer and Burmese have
no blanks between words. Finding their words takes a dictionary of each language, so their "words"
are all pairs of neighbouring characters, as in the CJK analyzers of search engines: 红色围巾 gives
红色, 色围, 围巾. Two titles then share what they have in common. A character there is a letter with
its marks, and one that stands alone is a word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pandas as pd
from pyspark.ml.feature import StopWordsRemover
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

_WIDTH = {
    chr(code): chr(int(form[1], 16))
    for code in range(0xFF00, 0xFFF0)
    if (form := unicodedata.decomposition(chr(code)).split())
}
"""Full-width and half-width characters with their usual form.

The other forms that NFKC replaces stay as they are: it would write ACME™ as ACMETM, which is
another word than ACME, and cut the Thai vowel ำ in two.
"""

_APOSTROPHES = "’ʼ׳"
"""The typographic apostrophe, the letter apostrophe and the Hebrew geresh."""

_IGNORED = "\u00ad\u0640" + "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
"""Soft hyphen, Arabic stretch and variation selectors: they concern the looks of a word only."""

_REPLACED = "".join(_WIDTH) + _APOSTROPHES + _IGNORED
_REPLACEMENTS = "".join(_WIDTH.values()) + "'" * len(_APOSTROPHES)

_WITHOUT_BLANKS = (
    r"\u0e00-\u0eff"  # Thai, Lao
    r"\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    r"\u1780-\u17ff"  # Khmer
    r"\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff"  # Japanese, with 々 and the long vowel's ー
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\x{20000}-\x{3ffff}"  # Chinese characters
)
"""Scripts without blanks between words, as ranges: looking up the script would take 20 times as
long."""

_LETTER = rf"[{_WITHOUT_BLANKS}&&[\p{{L}}\p{{Nl}}]]"
_CHARACTER = rf"{_LETTER}\p{{M}}*+"
_ALONE = rf"(?={_LETTER})(?<!{_LETTER}\p{{M}}{{0,9}}){_CHARACTER}(?!{_LETTER})"
# Joiners belong to a word, but do not end it. Classes are repeated, and no groups: in a title of
# one long word, groups would overflow Java's stack.
_WORD = (
    rf"[a-z0-9[\p{{L}}\p{{N}}&&[^{_WITHOUT_BLANKS}]]]"
    rf"[a-z0-9'[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d&&[^{_WITHOUT_BLANKS}]]]*"
    rf"[a-z0-9'[\p{{L}}\p{{N}}\p{{M}}&&[^{_WITHOUT_BLANKS}]]]"
)
_PATTERN = rf"(?=({_WORD}|{_CHARACTER}{_CHARACTER}|{_ALONE}|[가-힣]))(?:{_CHARACTER}|\1)"
"""Group 1 is a word. A match ends after the first character of a pair, so that pairs overlap."""


def stop_words() -> list[str]:
    """English stop words in lower case; Spark must be running."""
    return [word.lower() for word in StopWordsRemover.loadDefaultStopWords("english")]


def normal(text: Column) -> Column:
    """Text in lower case, where all ways to write the same character become one; null becomes "".

    In Unicode's composed form (NFC), with letters of the usual width. The language is not known, so
    that both I and the Turkish İ become i.
    """
    # Spark has no function for NFC, and that of pyarrow 14 does not compose.
    text = _composed(F.translate(F.coalesce(text, F.lit("")), _REPLACED, _REPLACEMENTS))
    return F.replace(F.lower(text), F.lit("i\u0307"), F.lit("i"))


def tokens(normal: Column) -> Column:
    """All words of a text that is in `normal` form, with numbers and stop words."""
    return F.regexp_extract_all(normal, F.lit(_PATTERN), 1)


def words(title: Column, stop_words: Sequence[str]) -> Column:
    """Words of a title in lower case, without numbers, single letters and stop words."""
    return F.filter(
        tokens(normal(title)),
        lambda word: ~word.rlike(r"^[\p{N}\p{M}]+$") & ~word.isin(*stop_words),
    )


@F.pandas_udf(StringType())  # type: ignore[call-overload]
def _composed(texts: pd.Series) -> pd.Series:
    """Each text in NFC, whole batches at a time."""
    return texts.str.normalize("NFC")
