"""Request rows against plain loops over the log, and events that must not change them."""

from __future__ import annotations

import datetime
import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from mfn import errors, storage, tables
from mfn.errors import DataRefused
from mfn.indices import FIRST_INDEX, UNKNOWN
from mfn.models import artifact
from mfn.pretraining.centers import train_centers
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.schema import EVENTS, VALIDATION, VOCABULARIES
from mfn.settings import CenterSettings, EmbeddingSettings, Settings
from mfn.splits.build import build_splits
from mfn.windows import windows
from tests.logs_on_disk import Logs, Published
from tests.naive_requests import SPLITS, Event, Rules, comparable, naive_rows

UTC = datetime.UTC
D = datetime.date(2026, 3, 8)
ATTRIBUTION = datetime.timedelta(minutes=30)
N, M = 5, 3


def draw_log(seed: int, users: int = 8, requests: int = 14) -> list[Event]:
    """A log with equal times, repeated impressions, all kinds of clicks, requests at midnight."""
    draw = random.Random(seed)
    events: list[Event] = []

    def add(**values: Any) -> None:
        of_event = {"event_id": f"e{len(events):05d}", "dt": values["time"].date(), **values}
        events.append({"context": {"device": f"device {len(events) % 3}"}, **of_event})

    start = datetime.datetime.combine(D, datetime.time(), UTC) - datetime.timedelta(days=7)
    for user in (f"u{n}" for n in range(users)):
        for number in range(requests):
            # In steps of ten minutes, so that some times are equal and some are at midnight.
            at = start + datetime.timedelta(minutes=10 * draw.randrange(8 * 24 * 6 - 7))
            if draw.random() < 0.1:
                at = at.replace(hour=23, minute=50)
            named = draw.random() < 0.8
            request = f"r-{user}-{number}" if named else None
            for place in range(draw.randint(1, 5) if named else 1):
                item = f"i{draw.randrange(12):02d}"
                later = datetime.timedelta(minutes=draw.choice([0, 0, 0, 10, 30]))
                position = draw.choice([place, place, None])
                shown = {"user": user, "item": item, "request": request}
                add(time=at + later, type="impression", position=position, **shown)
                for _ in range(draw.choice([0, 0, 1, 2])):
                    after = datetime.timedelta(minutes=draw.choice([0, 10, 20, 30, 40]))
                    by = draw.choice([request, None])
                    add(time=at + later + after, type="click", **{**shown, "request": by})
        for _ in range(8):
            at = start + datetime.timedelta(minutes=10 * draw.randrange(8 * 24 * 6))
            kind = draw.choice(["cart", "purchase", "click"])
            add(time=at, type=kind, user=user, item=f"i{draw.randrange(14):02d}")
    end = datetime.datetime.combine(D, datetime.time(), UTC) + datetime.timedelta(days=1)
    return [event for event in events if event["time"] < end]


ITEMS = [f"i{n:02d}" for n in range(12)] + ["never shown"]


def write_log(
    spark: SparkSession, settings: Settings, events: Sequence[Event], last: datetime.date = D
) -> None:
    days = [day for day in windows(settings.date, settings.windows).days if day <= last]
    logs = Logs(spark, settings)
    logs.events(events)
    logs.validated(days)
    items = [
        {"item_id": item, "category": f"c{n % 3}", "price": n, "entities": [f"x{n % 4}", "same"]}
        for n, item in enumerate(ITEMS)
    ]
    logs.catalogue(days[0], items)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(
        splits={"history_length": N, "candidates": M, "files": 2, "context_fields": ["device"]}
    )


SMALL_EMBEDDINGS = EmbeddingSettings(dimension=4, max_epochs=1, threads=1)
TRAINING_SPLITS = ("pretraining", "pretraining_validation", "train")


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_equal_those_of_plain_loops_over_the_log(
    spark: SparkSession, settings: Settings, seed: int
) -> None:
    events = draw_log(seed)
    write_log(spark, settings, events)
    counts = build_splits(spark, settings)
    splits = Published(settings)
    rules = Rules(windows(D, settings.windows), history=N, candidates=M)
    expected, counted = naive_rows(events, splits.row_of(), rules)
    found = [
        comparable(split, row, row["request_time"])
        for split in SPLITS
        for row in splits.rows(split)
    ]
    assert sorted(found) == sorted(comparable(r["split"], r, r["time"]) for r in expected)
    assert counts["rows"] == len(expected)
    for split in SPLITS:
        entry = splits.manifest["splits"][split]
        for name in ("rows", "candidates", "clicks", "empty_histories"):
            assert entry[name] == counted[f"{split}_{name}"], (split, name)


def training_inputs(
    spark: SparkSession, settings: Settings, events: Sequence[Event]
) -> dict[str, str]:
    """Digests of all inputs of a day's training: rows, item table, E and C."""
    write_log(spark, settings, events)
    build_splits(spark, settings)
    pretrain_embeddings(spark, settings)
    train_centers(spark, settings)
    splits = Published(settings)
    found = splits.digests(*TRAINING_SPLITS, "items")
    for name, folder in (("E", settings.layout.embeddings), ("C", settings.layout.centers)):
        tensors = Path(storage.current(folder, name), artifact.TENSORS).read_bytes()
        found[name] = hashlib.sha256(tensors).hexdigest()
    return {**found, "vocabularies": str(splits.manifest["vocabularies"])}


@pytest.mark.soak
@hypothesis.settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, 10_000), st.integers(0, 2 * 24 * 60))
def test_events_after_the_training_window_of_any_log_do_not_change_the_training_inputs(
    spark: SparkSession,
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    minutes: int,
) -> None:
    check_events_after_the_training_window(spark, settings, tmp_path_factory, seed, minutes)


def test_events_after_the_training_window_do_not_change_the_training_inputs(
    spark: SparkSession, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In this log a request of 23:50 has an item shown again at 0:20 and clicked at 0:50."""
    check_events_after_the_training_window(spark, settings, tmp_path_factory, seed=811, minutes=0)


def check_events_after_the_training_window(
    spark: SparkSession,
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    minutes: int,
) -> None:
    """The control changes events until `minutes` + 1 minutes before the training window."""

    def at_root() -> Settings:
        root = str(tmp_path_factory.mktemp("inputs"))
        small = {"embeddings": SMALL_EMBEDDINGS, "centers": CenterSettings(max_steps=3)}
        return settings.model_copy(update={"root": root, **small})

    events = draw_log(seed)
    chosen = at_root()
    before = training_inputs(spark, chosen, events)
    midnight = datetime.datetime.combine(D, datetime.time(), UTC)
    later = midnight + ATTRIBUTION
    changed = [one for one in events if one["time"] <= later] + [
        {**one, "event_id": f"x{one['event_id']}", "item": "i03", "user": "someone new"}
        for one in events
        if one["time"] > later
    ]
    other = at_root()
    assert training_inputs(spark, other, changed) == before
    assert Published(other).digests("test") != Published(chosen).digests("test")

    end = midnight - datetime.timedelta(days=3, minutes=1 + minutes)
    control = [
        {**one, "item": "i05"} if one["type"] != "impression" and one["time"] < end else one
        for one in events
    ]
    after = training_inputs(spark, at_root(), control)
    assert {name for name in ("E", "C") if after[name] == before[name]} == set()
    assert any(after[name] != before[name] for name in before if name.startswith("train"))


def test_an_old_day_built_again_after_a_new_one_gives_the_same_bytes(
    spark: SparkSession, settings: Settings
) -> None:
    events = draw_log(4)
    write_log(spark, settings, events)
    build_splits(spark, settings)
    before = Published(settings).digests(*SPLITS, "items")
    # A column that somebody adds to a table that the job reads changes nothing.
    for table in (EVENTS, VALIDATION, VOCABULARIES):
        path = tables.path_of(settings.root, table)
        spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS (time STRING, item STRING)")
    next_day = settings.model_copy(update={"date": D + datetime.timedelta(days=1)})
    moved = [
        {**e, "event_id": f"n{e['event_id']}", "user": "new"}
        | {"dt": next_day.date, "time": e["time"] + datetime.timedelta(days=1)}
        for e in events
        if e["time"].date() == D and e["time"].hour >= 2
    ]
    write_log(spark, next_day, [*events, *moved], next_day.date)
    build_splits(spark, next_day)
    later = Published(next_day).manifest["vocabularies"]
    build_splits(spark, settings)
    again = Published(settings).digests("pretraining", "pretraining_validation", "train", "items")
    assert again == {k: v for k, v in before.items() if not k.startswith("test")}
    vocabularies = Published(settings).manifest["vocabularies"]
    assert later["item_id"]["size"] >= vocabularies["item_id"]["size"]


def test_an_item_without_events_has_a_row_and_an_unknown_id(
    spark: SparkSession, settings: Settings
) -> None:
    write_log(spark, settings, draw_log(5))
    build_splits(spark, settings)
    splits = Published(settings)
    rows = splits.items()
    by_key = {row["key"]: row for row in rows}
    assert [row["item"] for row in rows] == list(range(len(ITEMS) + FIRST_INDEX))
    assert by_key["never shown"]["item_id"] == UNKNOWN
    assert by_key["i03"]["item_id"] >= FIRST_INDEX
    assert by_key["never shown"]["category"] >= FIRST_INDEX
    assert splits.manifest["item_fields"] == ["item_id", "category", "price", "entity"]
    assert splits.manifest["constant_fields"] == ["shop", "brand"]


def test_days_that_are_not_validated_are_named_and_refused(
    spark: SparkSession, settings: Settings
) -> None:
    write_log(spark, settings, draw_log(6, users=2), last=D - datetime.timedelta(days=1))
    with pytest.raises(DataRefused, match=r"2026-03-08 is not; run jobs/validate_logs.py"):
        build_splits(spark, settings)
    with pytest.raises(errors.NotPublished):
        Published(settings)


def test_an_empty_test_window_is_refused_and_publishes_nothing(
    spark: SparkSession, settings: Settings
) -> None:
    events = [e for e in draw_log(6, users=3) if e["time"].date() < D]
    write_log(spark, settings, events)
    with pytest.raises(DataRefused, match=r"test: expected requests from 2026-03-08"):
        build_splits(spark, settings)
    with pytest.raises(errors.NotPublished):
        Published(settings)
