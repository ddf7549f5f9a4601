"""Words of item titles, without stop words. No shuffle."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.ml.feature import StopWordsRemover
from pyspark.sql import Column
from pyspark.sql import functions as F


def stop_words() -> list[str]:
    """English stop words in lower case; Spark must be running."""
    return [word.lower() for word in StopWordsRemover.loadDefaultStopWords("english")]


def words(title: Column, stop_words: Sequence[str]) -> Column:
    """Words of a title in lower case, without numbers, single letters and stop words."""
    title = F.lower(F.coalesce(title, F.lit("")))
    found = F.regexp_extract_all(title, F.lit(r"[\p{L}\p{N}][\p{L}\p{N}']+"), 0)
    return F.filter(found, lambda word: ~word.rlike(r"^\p{N}+$") & ~word.isin(*stop_words))
