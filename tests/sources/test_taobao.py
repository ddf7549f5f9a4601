"""Taobao as raw logs: every line is an event, and page views have sampled negatives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mfn.errors import DataRefused, NotPublished
from mfn.settings import Settings
from mfn.sources.ingest import ingest
from tests.conftest import SPARK
from tests.raw_days import contents, days, lines

MIDNIGHT = 1511539200
"""Midnight of 25 November 2017 in Shanghai, in seconds since 1970."""
DAY = 24 * 3600


def line(user: str, item: str, category: str, behaviour: str, at: int) -> str:
    return f"{user},{item},{category},{behaviour},{MIDNIGHT + at}\n"


FIRST = [
    line("1", "i1", "c1", "pv", 0),
    line("1", "i2", "c1", "pv", 5),
    line("1", "i2", "c1", "pv", 5),
    line("2", "i1", "c1", "buy", DAY - 1),
    line("2", "i3", "c2", "cart", DAY - 1),
    *(line("4", "i4", "c2", "pv", 100 + n) for n in range(4)),
]
SECOND = [
    line("2", "i2", "c1", "pv", DAY + 10),
    line("2", "i1", "c9", "fav", DAY + 10),
    line("2", "i1", "c9", "cart", DAY + 10),
    line("3", "new", "c2", "pv", DAY + 20),
]
BAD = [
    line("3", "i1", "c1", "look", DAY + 30),
    line("", "i1", "c1", "pv", DAY + 30),
    line("3", "", "c1", "pv", DAY + 30),
    "3,i1,c1,pv,soon\n",
    "3,i1,c1,pv,1511625700,more\n",
    "3,i1\n",
]
ELSEWHERE = [line("1", "i1", "c1", "pv", -1), line("1", "i1", "c1", "pv", 2 * DAY)]


def settings_of(root: Path, text: str, **ingest: Any) -> Settings:
    folder = root / "files"
    folder.mkdir(exist_ok=True)
    (folder / "UserBehavior.csv").write_text(text)
    given = {"path": str(folder), "negatives": 1, "first_day": "2017-11-25", **ingest}
    return Settings(
        root=str(root),
        date="2017-11-26",
        spark=SPARK,
        logs={"day_time_zone": "Asia/Shanghai"},
        ingest={"source": "taobao", **given},
    )


@pytest.fixture(scope="module")
def shop(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, dict[str, Any]]:
    root = tmp_path_factory.mktemp("taobao")
    chosen = settings_of(root, "".join([*FIRST, *SECOND, *BAD, *ELSEWHERE]))
    return chosen, dict(ingest(spark, chosen))


def test_every_line_is_an_event_or_counted_as_outside_of_the_days(
    shop: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, counts = shop
    assert days(chosen, "events") == ["2017-11-25", "2017-11-26"]
    assert counts == {
        "rows": 19 + 2,
        "days": 2,
        "rows_read": 9 + 4 + 6,
        "rows_outside_days": 2,
        "first_views_of_an_item": 6 + 1,
        "candidates": 2,
        "clicks": 1,
        "drawn_candidates": 1,
        "not_to_be_drawn": 0,
    }
    events = [one for day in days(chosen, "events") for one in lines(chosen, "events", day)]
    assert len(events) == 21
    kinds = Counter(
        (one.get("context", {}).get("behaviour"), one.get("event_type")) for one in events
    )
    assert kinds == {
        (None, "impression"): 2,
        ("pv", "click"): 7 + 2 + 4,
        ("buy", "purchase"): 1,
        ("cart", "cart"): 2,
        ("fav", "cart"): 1,
        ("look", "look"): 1,
        (None, None): 1,
    }
    of_first = Counter(one.get("event_id") for one in lines(chosen, "events", "2017-11-25"))
    assert of_first[f"1-{MIDNIGHT + 5}-i2-click"] == 2  # identical lines: repeats


def test_a_view_of_a_known_item_is_a_clicked_candidate_with_a_sampled_negative(
    shop: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = shop
    day = lines(chosen, "events", "2017-11-26")
    request = f"2-{MIDNIGHT + DAY + 10}"
    page = [one for one in day if one.get("request_id") == request]
    # The user's items of earlier and of this moment (i1, i2, i3) are never sampled.
    found = {(one["event_type"], one["item_id"]): one["event_time"] for one in page}
    assert found == {
        ("impression", "i2"): "2017-11-25T16:00:10.000Z",
        ("impression", "i4"): "2017-11-25T16:00:10.000Z",
        ("click", "i2"): "2017-11-25T16:00:10.001Z",
    }
    assert not [one for one in day if one.get("event_type") == "impression" and one not in page]


def test_snapshots_hold_only_earlier_days_and_a_rerun_writes_the_same_bytes(
    spark: SparkSession, shop: tuple[Settings, dict[str, Any]], tmp_path: Path
) -> None:
    chosen, _ = shop
    assert lines(chosen, "items", "2017-11-25") == []
    assert lines(chosen, "items", "2017-11-26") == [
        {"item_id": "i1", "category": "c1"},
        {"item_id": "i2", "category": "c1"},
        {"item_id": "i3", "category": "c2"},
        {"item_id": "i4", "category": "c2"},
    ]
    before = contents(chosen)
    other = settings_of(tmp_path, "".join([*ELSEWHERE, *BAD, *SECOND, *reversed(FIRST)]))
    ingest(spark, other)
    assert contents(other) == before


def test_a_folder_without_the_file_or_the_days_is_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    # Rows before and after the day, and one without a valid time: none is of this day.
    text = "".join([FIRST[0], BAD[3], ELSEWHERE[1]])
    with pytest.raises(DataRefused, match=r"from 2017-11-26 .* from 2017-11-25 to 2017-11-27;"):
        ingest(spark, settings_of(tmp_path, text, first_day="2017-11-26"))
    with pytest.raises(DataRefused, match=r"but no row has a valid day"):
        ingest(spark, settings_of(tmp_path, BAD[3]))
    with pytest.raises(NotPublished, match=r"UserBehavior\.csv or UserBehavior\.csv\.gz in"):
        ingest(spark, settings_of(tmp_path, "", path=str(tmp_path)))
    assert not (tmp_path / "raw").exists()
