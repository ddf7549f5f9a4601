"""Words of titles in many scripts, and that ASCII titles keep the words of a plain expression."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn.logs.title_words import stop_words, words

Find = Callable[[Sequence[str | None]], list[list[str]]]

VIETNAMESE = "Áo dài lụa đỏ, nước mắm"
LONG = 10_000
EXPECTED = {
    # Words of English are as they were; the typographic apostrophe is one.
    "Women's Dress for the 12 dogs' x": ["women's", "dress", "dogs'"],
    "Women’s dress, don’t": ["women's", "dress"],
    # Composed and decomposed.
    "Café crème": ["café", "crème"],
    "Cafe\u0301 cre\u0300me": ["café", "crème"],
    unicodedata.normalize("NFC", VIETNAMESE): ["áo", "dài", "lụa", "đỏ", "nước", "mắm"],
    unicodedata.normalize("NFD", VIETNAMESE): ["áo", "dài", "lụa", "đỏ", "nước", "mắm"],
    # Turkish, in both forms.
    "İstanbul halısı": ["istanbul", "halısı"],
    "I\u0307stanbul HALI": ["istanbul", "hali"],
    # Marks and joiners belong to words.
    "लाल ऊनी दुपट्टा": ["लाल", "ऊनी", "दुपट्टा"],
    "घी १२": ["घी"],
    "שִׂמְלָה אֲדֻמָּה": ["שִׂמְלָה", "אֲדֻמָּה"],
    "צ׳יפס צ'יפס": ["צ'יפס", "צ'יפס"],
    "كِتَابٌ جَدِيد": ["كِتَابٌ", "جَدِيد"],
    "كتـــاب": ["كتاب"],
    "می\u200cخواهم کتاب\u200c": ["می\u200cخواهم", "کتاب"],
    # Scripts without blanks: pairs of neighbours, or one that stands alone.
    "红色羊毛围巾": ["红色", "色羊", "羊毛", "毛围", "围巾"],
    "红色羊毛手套": ["红色", "色羊", "羊毛", "毛手", "手套"],
    "红 T恤 iPhone手机壳 2024年": ["红", "恤", "iphone", "手机", "机壳", "年"],
    "𠮷野家": ["𠮷野", "野家"],
    "赤いラーメン 時々": ["赤い", "いラ", "ラー", "ーメ", "メン", "時々"],
    "น้ำหอม กุหลาบ": ["น้ำ", "ำห", "หอ", "อม", "กุห", "หล", "ลา", "าบ"],
    "น้ำหอมกุหลาบ": ["น้ำ", "ำห", "หอ", "อม", "มกุ", "กุห", "หล", "ลา", "าบ"],
    "ขี้": ["ขี้"],
    "ແພງ": ["ແພ", "ພງ"],
    "ស្បែក": ["ស្បែ", "បែក"],
    "ဖိနပ်": ["ဖိန", "နပ်"],
    # Full width and half width.
    "ＡＣＭＥ　ＴＶ５０": ["acme", "tv50"],
    "ｶﾞﾗｽ": ["ガラ", "ラス"],
    "ガラス": ["ガラ", "ラス"],
    "ACME™ Lamp": ["acme", "lamp"],
    # Korean has blanks; one syllable can be a word.
    "빨간 컵 컵받침": ["빨간", "컵", "컵받침"],
    unicodedata.normalize("NFD", "빨간 컵 컵받침"): ["빨간", "컵", "컵받침"],
    # No words.
    "👩\u200d🚀 ❤\ufe0f 1\ufe0f\u20e3 ℹ\ufe0f 🎁": [],
    "é x": [],
    "": [],
    # What the eye does not see.
    "Woll\u00addecke ❤\ufe0f": ["wolldecke"],
    # Long titles.
    "a" * LONG: ["a" * LONG],
    "a\u200d" * (LONG // 2): ["a\u200d" * (LONG // 2 - 1) + "a"],
    "a" + "\u0301" * LONG: ["á" + "\u0301" * (LONG - 1)],
    "红" * LONG: ["红红"] * (LONG - 1),
    "lamp " * (LONG // 5): ["lamp"] * (LONG // 5),
}  # fmt: skip


@pytest.fixture(scope="module")
def find(spark: SparkSession) -> Find:
    listed = stop_words()

    def find(titles: Sequence[str | None]) -> list[list[str]]:
        rows = spark.createDataFrame(list(enumerate(titles)), "place int, title string")
        found = rows.select("place", words(F.col("title"), listed).alias("words")).collect()
        return [row["words"] for row in sorted(found)]

    return find


@pytest.fixture(scope="module")
def found(find: Find) -> dict[str | None, list[str]]:
    titles = [*EXPECTED, None]
    return dict(zip(titles, find(titles), strict=True))


@pytest.mark.parametrize("title", EXPECTED, ids=lambda title: ascii(title[:12]))
def test_words_of_a_title(found: dict[str | None, list[str]], title: str) -> None:
    assert found[title] == EXPECTED[title]


def test_an_item_without_title_has_no_words(found: dict[str | None, list[str]]) -> None:
    assert found[None] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("红色羊毛围巾", "红色羊毛手套"), ("น้ำหอม กุหลาบ", "น้ำหอมกุหลาบ")],
)
def test_titles_of_scripts_without_blanks_share_a_part_of_their_words(
    found: dict[str | None, list[str]], one: str, other: str
) -> None:
    shared = set(found[one]) & set(found[other])
    assert len(shared) >= 3
    assert shared != set(found[other])


def plain_words(title: str, stop_words: Sequence[str]) -> list[str]:
    """Words of an ASCII title by one plain expression."""
    tokens = re.findall(r"[a-z0-9][a-z0-9']+", title.lower())
    return [token for token in tokens if not token.isdigit() and token not in stop_words]


ASCII = st.text(st.characters(max_codepoint=127), max_size=40)
DENSE = st.text("aZ09' -.don't", max_size=20)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ASCII | DENSE, min_size=1, max_size=300))
@example(["rock 'n' roll", "x'y 5' 12", "DON'T 4x4 ''a'' _b_c don't 0"])
def test_ascii_titles_keep_their_words(find: Find, titles: list[str]) -> None:
    listed = stop_words()
    assert find(titles) == [plain_words(title, listed) for title in titles]


# Letters with marks in and out of order, letters that compose when they meet, and half widths.
MIXED = st.text(
    "éạ̈̄\u0301o\u0323İi\u0307’'ｶﾞカ\u3099ガ각\u1100\u1161म्क़น้ำ红ー ®1½\u200d\u00ad", max_size=12
)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(max_size=12) | MIXED, min_size=1, max_size=100))
def test_words_do_not_depend_on_the_unicode_form_and_have_no_blanks(
    find: Find, titles: list[str]
) -> None:
    composed, decomposed = (
        [unicodedata.normalize(form, title) for title in titles] for form in ("NFC", "NFD")
    )
    every = find([*titles, *composed, *decomposed])
    assert every == every[: len(titles)] * 3
    assert all(re.fullmatch(r"\S+", word) for found in every for word in found)
