"""Amazon's reviews as raw logs: ratings with sampled negatives, in both editions' formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mfn.errors import DataRefused, NotPublished
from mfn.settings import Settings
from mfn.sources.ingest import ingest
from tests.conftest import SPARK
from tests.raw_days import contents, days, lines

MIDNIGHT = 1577836800
"""Midnight of 1 January 2020, in seconds since 1970."""
DAY = 24 * 3600


def review(user: str, item: str, rating: float, at: int) -> dict[str, Any]:
    time = (MIDNIGHT + at) * 1000 + 728
    return {"user_id": user, "parent_asin": item, "asin": "variant", "rating": rating,
            "timestamp": time, "title": "t", "verified_purchase": True}  # fmt: skip


OF_2018 = {"reviewerID": "d", "asin": "B4", "overall": 4, "unixReviewTime": MIDNIGHT + DAY + 9}
GOOD = [
    review("a", "B1", 5.0, 0),
    review("b", "B2", 3.0, 10),
    review("b", "B2", 4.0, 10),
    review("c", "B1", 2.0, DAY),
    OF_2018,
]
BAD: list[Any] = [
    {**review("a", "B1", 5.0, DAY + 7), "user_id": None},
    {**review("a", "B1", 5.0, DAY + 7), "rating": "good"},
    {**review("a", "B1", 3.0, DAY + 7), "timestamp": "soon"},
    "no review",
]
ELSEWHERE = [review("a", "B3", 5.0, -1), review("a", "B3", 5.0, 2 * DAY)]
META = [
    {
        "parent_asin": "B1",
        "title": "Argan Oil for Hair, 2 Bottles",
        "main_category": "All Beauty",
        "categories": ["Beauty", "Hair Care", "Oils"],
        "price": 1299.5,
        "store": "Herstyler",
    },
    {"parent_asin": "B2", "title": None, "main_category": "All Beauty", "categories": [],
     "price": "from 1,234.50", "store": None},
    {"asin": "B3", "title": "Comb", "category": ["Beauty", "Combs", "x" * 61], "price": "$7.99",
     "brand": "Kent"},
    {"parent_asin": "B4", "title": "Brush", "main_category": "All Beauty", "price": "—"},
]  # fmt: skip


def settings_of(root: Path, reviews: list[Any], **ingest: Any) -> Settings:
    folder = root / "files"
    folder.mkdir(exist_ok=True)
    text = "".join(
        one + "\n" if isinstance(one, str) else json.dumps(one) + "\n" for one in reviews
    )
    (folder / "All_Beauty.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "meta_All_Beauty.jsonl").write_text("".join(json.dumps(one) + "\n" for one in META))
    given = {"path": str(folder), "negatives": 1, "first_day": "2020-01-01", **ingest}
    return Settings(
        root=str(root), date="2020-01-02", spark=SPARK, ingest={"source": "amazon", **given}
    )


@pytest.fixture(scope="module")
def shop(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, dict[str, Any]]:
    chosen = settings_of(tmp_path_factory.mktemp("amazon"), [*GOOD, *BAD, *ELSEWHERE])
    return chosen, dict(ingest(spark, chosen))


def test_every_review_is_a_candidate_an_event_or_counted(
    shop: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, counts = shop
    assert days(chosen, "events") == ["2020-01-01", "2020-01-02"]
    assert counts == {
        "rows": 6 + 3 + 4,
        "days": 2,
        "rows_read": 5 + 4,
        "rows_outside_days": 2,
        "rows_bad": 4,
        "repeated_ratings": 1,
        "candidates": 6,
        "clicks": 3,
        "drawn_candidates": 2,
        "not_to_be_drawn": 4 - 2,
    }


def test_a_rating_of_4_or_more_is_a_click_with_sampled_negatives(
    shop: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = shop
    pages: dict[str, set[tuple[str, str]]] = {}
    for day in days(chosen, "events"):
        for one in lines(chosen, "events", day):
            if "request_id" in one:
                pages.setdefault(one["request_id"], set()).add((one["event_type"], one["item_id"]))
    assert pages.pop(f"a-{MIDNIGHT}") == {("impression", "B1"), ("click", "B1")}
    assert pages.pop(f"b-{MIDNIGHT + 10}") == {("impression", "B2"), ("click", "B2")}
    # Two products are known. c rates B1, so only B2 can be sampled; for d, either can.
    assert pages.pop(f"c-{MIDNIGHT + DAY}") == {("impression", "B1"), ("impression", "B2")}
    of_d = pages.pop(f"d-{MIDNIGHT + DAY + 9}")
    assert {("impression", "B4"), ("click", "B4")} < of_d
    assert of_d - {("impression", "B4"), ("click", "B4")} < {
        ("impression", "B1"),
        ("impression", "B2"),
    }
    assert pages == {}


def test_a_bad_review_keeps_its_valid_fields(shop: tuple[Settings, dict[str, Any]]) -> None:
    chosen, _ = shop
    bad = [
        {name: one.get(name) for name in ("user_id", "event_type", "item_id", "event_time")}
        for day in days(chosen, "events")
        for one in lines(chosen, "events", day)
        if "context" in one
    ]
    assert sorted(bad, key=str) == sorted(
        [
            {"user_id": None, "event_type": "click", "item_id": "B1",
             "event_time": "2020-01-02T00:00:07.001Z"},
            {"user_id": "a", "event_type": None, "item_id": "B1",
             "event_time": "2020-01-02T00:00:07.000Z"},
            {"user_id": "a", "event_type": "impression", "item_id": "B1", "event_time": "soon"},
            {"user_id": None, "event_type": None, "item_id": None, "event_time": None},
        ],
        key=str,
    )  # fmt: skip


def test_metadata_of_both_editions_are_in_the_catalogue(
    shop: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = shop
    assert days(chosen, "items") == ["2020-01-01"]
    assert lines(chosen, "items", "2020-01-01") == [
        {
            "item_id": "B1",
            "category": "Oils",
            "brand": "Herstyler",
            "price": 1299.5,
            "title": "Argan Oil for Hair, 2 Bottles",
            "entities": ["beauty", "hair care", "argan", "oil", "hair", "bottles"],
        },
        {"item_id": "B2", "category": "All Beauty", "price": 1234.5, "entities": []},
        {
            "item_id": "B3",
            "category": "Combs",
            "brand": "Kent",
            "price": 7.99,
            "title": "Comb",
            "entities": ["beauty", "comb"],
        },
        {"item_id": "B4", "category": "All Beauty", "title": "Brush", "entities": ["brush"]},
    ]


def test_the_order_of_reviews_does_not_change_the_files(
    spark: SparkSession, shop: tuple[Settings, dict[str, Any]], tmp_path: Path
) -> None:
    other = settings_of(tmp_path, [*ELSEWHERE, *reversed(GOOD), *reversed(BAD)])
    ingest(spark, other)
    assert contents(other) == contents(shop[0])


def test_a_folder_without_metadata_or_without_the_days_is_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    with pytest.raises(DataRefused, match=r"from 2020-01-02 \(ingest\.first_day\) to 2020-01-02"):
        ingest(spark, settings_of(tmp_path, [GOOD[0]], first_day="2020-01-02"))
    chosen = settings_of(tmp_path, GOOD)
    (tmp_path / "files" / "meta_All_Beauty.jsonl").unlink()
    with pytest.raises(NotPublished, match=r"meta_\*\.jsonl and one of reviews.*got All_Beauty"):
        ingest(spark, chosen)
    assert not (tmp_path / "raw").exists()
