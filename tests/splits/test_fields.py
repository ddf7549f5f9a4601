"""Fields of request rows from a random log: numbers, titles, rare values, sampled negatives."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from mfn import tables
from mfn.indices import FIRST_INDEX, MISSING, UNKNOWN
from mfn.schema import VOCABULARIES
from mfn.settings import Settings, SplitSettings
from mfn.splits.build import build_splits
from mfn.windows import windows
from tests.conftest import RUN_DATE, SPARK
from tests.logs_on_disk import Logs, Published
from tests.naive_requests import SPLITS, Event, Rules, comparable, naive_rows

NEGATIVES_KEPT, MIN_EVENTS, BUCKETS = 0.5, 12, 4
SPLIT = SplitSettings(
    history_length=5,
    candidates=3,
    files=2,
    user_fields=("town",),
    user_numbers=("years",),
    context_fields=("device",),
    context_numbers=("seconds", "never"),
    number_buckets=BUCKETS,
    min_events=MIN_EVENTS,
    min_items=2,
    negative_sampling_rate=NEGATIVES_KEPT,
)
YEARS = {f"u{n}": value for n, value in enumerate(["20", "30", "30", "41", "52", "", "old", "1e9"])}
ITEMS: list[dict[str, Any]] = [
    {"item_id": "i0", "category": "lamp", "entities": ["red", "round"], "title": "Blue lamp"},
    {"item_id": "i1", "category": "lamp", "title": "Red LAMP for 2 people"},
    {"item_id": "i2", "category": "lamp", "entities": [], "title": "the blue lamp"},
    {"item_id": "i3", "category": "chair", "entities": None},
    {"item_id": "i4", "category": "chair", "title": "an and 12"},
    *({"item_id": f"i{n}", "category": "lamp"} for n in range(5, 12)),
]


def draw_log(rules: Rules) -> list[Event]:
    """Pages of up to five items; some items are rare, and one occurs only on the last day."""
    draw = np.random.default_rng(1)
    events: list[Event] = []
    for day in rules.windows.days:
        for number in range(60):
            start = rules.midnight(day) + datetime.timedelta(minutes=20 * number)
            user, request = f"u{draw.integers(8)}", f"{day} {number}"
            on_last = day == rules.last
            seconds = draw.choice(["", "n/a", "NaN"] + [f"{draw.lognormal(3, 2):.5f}"] * 9)
            context = {"device": "app", "seconds": "1e300" if on_last else str(seconds)}
            # High numbers are frequent, low numbers rare.
            items = sorted({f"i{int(draw.power(3) * 12)}" for _ in range(5)})
            for place, item in enumerate([*items, "i of last day"] if on_last else items):
                shown = {"dt": day, "user": user, "item": item, "request": request}
                base = {**shown, "event_id": f"{request} {item}", "context": context}
                events.append({**base, "type": "impression", "time": start, "position": place})
                if draw.random() < 0.3:
                    later = start + datetime.timedelta(minutes=5)
                    click = {"event_id": f"{request} {item} click", "type": "click", "time": later}
                    events.append({**base, **click})
    return events


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = str(tmp_path_factory.mktemp("fields"))
    return Settings(root=root, date=RUN_DATE, spark=SPARK, splits=SPLIT)


@pytest.fixture(scope="module")
def rules(settings: Settings) -> Rules:
    return Rules(windows(settings.date, settings.windows))


@pytest.fixture(scope="module")
def events(rules: Rules) -> list[Event]:
    return draw_log(rules)


@pytest.fixture(scope="module")
def counts(
    spark: SparkSession, settings: Settings, rules: Rules, events: list[Event]
) -> dict[str, Any]:
    logs = Logs(spark, settings)
    logs.events(events)
    logs.validated(rules.windows.days)
    logs.catalogue(rules.windows.days[0], ITEMS)
    users = [{"user_id": u, "profile": {"years": y, "town": "x"}} for u, y in YEARS.items()]
    logs.users(rules.windows.days[0], users)
    logs.users(rules.last, [{"user_id": "u0", "profile": {"years": "99", "town": "x"}}])
    return dict(build_splits(spark, settings))


def test_numbers_are_put_into_quantile_buckets_of_the_training_window(
    settings: Settings, rules: Rules, events: list[Event], counts: dict[str, Any]
) -> None:
    splits = Published(settings)
    first, last = rules.windows.train
    values = [
        float(f"{float(event['context']['seconds']):.2e}")
        for event in events
        if event["type"] == "impression"
        and first <= rules.day(event) <= last
        and event["context"]["seconds"][:1].isdigit()
    ]
    shares = [place / BUCKETS for place in range(1, BUCKETS)]
    boundaries = splits.manifest["boundaries"]
    assert boundaries["context.seconds"] == pytest.approx(np.quantile(values, shares))
    assert boundaries["context.never"] == []
    years = [20, 30, 30, 41, 52, 1e9]
    assert boundaries["user.years"] == pytest.approx(np.quantile(years, shares))
    assert splits.manifest["user_fields"] == ["town", "years"]
    assert splits.manifest["context_fields"] == ["device", "seconds", "never"]
    assert splits.manifest["vocabularies"]["context.seconds"]["size"] == FIRST_INDEX + BUCKETS

    def bucket(name: str, text: str) -> int:
        try:
            value = float(text)
        except ValueError:
            return MISSING
        edges = boundaries[name]
        return MISSING if np.isnan(value) else FIRST_INDEX + sum(value >= edge for edge in edges)

    context_of = {one["request"]: one["context"] for one in events}
    seen = Counter[int]()
    for split in SPLITS:
        for row in splits.rows(split):
            _, seconds, never = row["context_fields"]
            assert seconds == bucket("context.seconds", context_of[row["request_id"]]["seconds"])
            assert never == MISSING
            new = split == "test" and row["user_id"] == "u0"
            years_then = "99" if new else YEARS[row["user_id"]]
            assert row["user_fields"][1] == bucket("user.years", years_then)
            seen[seconds] += 1
    assert set(seen) == {MISSING, *range(FIRST_INDEX, FIRST_INDEX + BUCKETS)}


def test_an_item_with_too_few_events_has_an_unknown_id_and_its_own_row(
    settings: Settings, rules: Rules, events: list[Event], counts: dict[str, Any]
) -> None:
    event_count = Counter(one["item"] for one in events if rules.day(one) < rules.windows.test[0])
    rows = {row["key"]: row for row in Published(settings).items() if row["key"]}
    assert len(rows) == len(ITEMS)
    rare = [item for item in rows if event_count[item] < MIN_EVENTS]
    assert 1 < len(rare) < len(ITEMS) - 1
    for item, row in rows.items():
        assert (row["item_id"] == UNKNOWN) == (item in rare), item
        assert row["category"] >= FIRST_INDEX


def test_words_of_the_title_are_the_entities_of_an_item_without_entities(
    spark: SparkSession, settings: Settings, counts: dict[str, Any]
) -> None:
    known = tables.read(spark, settings.root, VOCABULARIES, "build_splits")
    index = {row["key"]: row["index"] for row in known.where("field = 'entity'").collect()}
    # Numbers and stop words are no entities. "blue" comes from i2: i0 has entities, so its title
    # is not used.
    assert set(index) == {"red", "round", "lamp", "people", "blue"}
    rows = {row["key"]: row["entities"][:3] for row in Published(settings).items()}
    assert rows["i0"] == [index["red"], UNKNOWN, 0]  # only one item is round
    assert rows["i1"] == [index["red"], index["lamp"], UNKNOWN]
    assert rows["i2"] == [UNKNOWN, index["lamp"], 0]
    assert rows["i3"] == rows["i4"] == [MISSING, 0, 0]


def test_training_rows_keep_all_clicks_and_a_share_of_the_negatives(
    settings: Settings, rules: Rules, events: list[Event], counts: dict[str, Any]
) -> None:
    splits = Published(settings)
    expected, _ = naive_rows(events, splits.row_of(), rules)
    for split in SPLITS:
        built = [comparable(split, row, row["request_time"]) for row in splits.rows(split)]
        naive = [comparable(split, row, row["time"]) for row in expected if row["split"] == split]
        assert (sorted(built) == sorted(naive)) == (split != "train")

    def labels(rows: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
        return {
            (row["request_id"], item): label
            for row in rows
            for item, label in zip(row["candidate_ids"], row["labels"], strict=False)
        }

    kept = labels(splits.rows("train"))
    all_of_them = labels([row for row in expected if row["split"] == "train"])
    assert kept.items() <= all_of_them.items()
    assert sum(kept.values()) == sum(all_of_them.values())
    dropped = len(all_of_them) - len(kept)
    negatives = len(all_of_them) - sum(all_of_them.values())
    assert dropped == pytest.approx((1 - NEGATIVES_KEPT) * negatives, rel=0.1)
    assert counts["negatives_left_out"] == dropped
    requests = {request for request, _ in all_of_them} - {request for request, _ in kept}
    assert counts["requests_left_without_candidates"] == len(requests) > 0
    assert splits.manifest["negative_sampling_rate"] == NEGATIVES_KEPT
    histories = {row["request_id"]: row["history"] for row in expected}
    assert all(row["history"] == histories[row["request_id"]] for row in splits.rows("train"))
