"""Request rows against plain loops over the log, and events that must not change them."""

from __future__ import annotations

import datetime
import hashlib
import random
import re
import shutil
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
from mfn.indices import FIRST_INDEX, MISSING, UNKNOWN
from mfn.models import artifact
from mfn.pretraining.centers import train_centers
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.schema import EVENTS, VALIDATION, VOCABULARIES
from mfn.settings import CenterSettings, EmbeddingSettings, Settings, SplitSettings
from mfn.splits import unlisted
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
NOT_LISTED = ["i12", "i13"]
"""Items of carts, purchases and clicks that the catalogue lacks."""


def write_log(
    spark: SparkSession,
    settings: Settings,
    events: Sequence[Event],
    last: datetime.date = D,
    listed: Sequence[str] = ITEMS,
) -> None:
    days = [day for day in windows(settings.date, settings.windows).days if day <= last]
    logs = Logs(spark, settings)
    logs.events(events)
    logs.validated(days)
    items = [
        {"item_id": item, "category": f"c{n % 3}", "price": n, "entities": [f"x{n % 4}", "same"]}
        for n, item in enumerate(listed)
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
    listed_from = splits.manifest["listed_from"]
    assert listed_from == FIRST_INDEX + len(NOT_LISTED)
    expected, counted = naive_rows(events, splits.row_of(), rules, listed_from)
    found = [
        comparable(split, row, row["request_time"])
        for split in SPLITS
        for row in splits.rows(split)
    ]
    assert sorted(found) == sorted(comparable(r["split"], r, r["time"]) for r in expected)
    assert counts["rows"] == len(expected)
    for split in SPLITS:
        entry = splits.manifest["splits"][split]
        for name in ("rows", "candidates", "clicks", "empty_histories", "unlisted_behaviours"):
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
    assert [row["item"] for row in rows] == list(range(len(ITEMS + NOT_LISTED) + FIRST_INDEX))
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


def test_a_snapshot_that_is_not_validated_is_named_and_refused(
    spark: SparkSession, settings: Settings
) -> None:
    write_log(spark, settings, draw_log(6, users=2))
    build_splits(spark, settings)  # control
    tables.delete(spark, settings.root, VALIDATION, "source = 'items'")
    with pytest.raises(DataRefused, match=r"items: .* is not; run jobs/validate_logs.py"):
        build_splits(spark, settings)


def test_an_empty_test_window_is_refused_and_publishes_nothing(
    spark: SparkSession, settings: Settings
) -> None:
    events = [e for e in draw_log(6, users=3) if e["time"].date() < D]
    write_log(spark, settings, events)
    with pytest.raises(DataRefused, match=r"test: expected requests from 2026-03-08"):
        build_splits(spark, settings)
    with pytest.raises(errors.NotPublished):
        Published(settings)


def test_items_that_the_catalogue_lacks_have_their_own_ids_and_their_share_is_limited(
    spark: SparkSession, settings: Settings
) -> None:
    """Of a made-up news log, whose catalogue lists one of 14 items; the control lists most."""
    events = draw_log(7)
    shown = {f"i{n:02d}" for n in range(12)}
    control = settings.model_copy(update={"root": f"{settings.root}/control"})
    write_log(spark, control, events)
    write_log(spark, settings, events, listed=["i00"])
    for days in range(1, 5):
        folder = settings.model_copy(update={"date": D - datetime.timedelta(days=days)}).layout
        with storage.publish(folder.splits) as version:
            test = {"candidates": 100, "unlisted_candidates": 5}
            storage.write_json(f"{version}/{storage.MANIFEST}", {"splits": {"test": test}})
    with pytest.raises(DataRefused) as refused:
        build_splits(spark, settings)
    assert re.search(
        r"2026-03-08: the share of candidates .* at most 15.0000% \(the median .* is 5.0000%, and "
        r"splits.max_unlisted_ratio is 3\), got (100|[89]\d)\.",
        str(refused.value),
    )
    with pytest.raises(errors.NotPublished):
        Published(settings)
    looser = settings.splits.model_copy(update={"max_unlisted_ratio": 100.0})
    counts = build_splits(spark, settings.model_copy(update={"splits": looser}))
    control_counts = build_splits(spark, control)
    for root, found, listed in ((settings, counts, {"i00"}), (control, control_counts, shown)):
        splits = Published(root)
        rows = {row["key"]: row for row in splits.items()[FIRST_INDEX:]}
        in_log = shown | {*NOT_LISTED}
        assert in_log <= rows.keys()
        assert len({rows[item]["item_id"] for item in in_log}) == len(in_log)
        assert min(rows[item]["item_id"] for item in in_log) >= FIRST_INDEX
        without = {key for key, row in rows.items() if row["category"] == MISSING}
        assert without == in_log - listed
        assert "item_id" in splits.manifest["item_fields"]
        assert found["test_unknown_candidates"] == found["train_unknown_candidates"] == 0
        candidates = [
            item
            for row in splits.rows("train")
            for item in row["candidates"][: row["candidate_count"]]
        ]
        assert len({*candidates}) == len(shown)
        number = sum(item < splits.manifest["listed_from"] for item in candidates)
        assert splits.manifest["splits"]["train"]["unlisted_candidates"] == number
        assert (number == 0) == (root == control)
    of_news, of_control = (
        unlisted.shares(Published(one).manifest["splits"]["test"]) for one in (settings, control)
    )
    assert of_news.items() <= counts.items()
    assert of_control.items() <= control_counts.items()
    assert of_news["unlisted_candidates_share"] > 0.85
    assert of_control["unlisted_candidates_share"] == 0
    parts = Published(control).manifest["splits"].values()
    shares = [part["unlisted_behaviours"] / part["behaviours"] for part in parts]
    assert 0 < max(shares) < 0.2


def test_a_share_is_compared_with_the_dates_before_and_with_its_own_limit() -> None:
    today = {"unlisted_candidates_share": 0.2, "unlisted_behaviours_share": 0.02}
    past = [{"unlisted_candidates_share": share} for share in (0.1, 0.06, 0.07)]
    assert len(unlisted.find_problems(today, past, SplitSettings(max_unlisted_ratio=2))) == 1
    assert unlisted.find_problems(today, past, SplitSettings(max_unlisted_ratio=3)) == []
    assert unlisted.find_problems(today, past[:2], SplitSettings(max_unlisted_ratio=2)) == []
    # One behaviour in fifty after none at all may be chance.
    none = [{"unlisted_behaviours_share": 0.0}] * 3
    assert unlisted.find_problems(today, none, SplitSettings()) == []
    (problem,) = unlisted.find_problems(today, [], SplitSettings(max_unlisted_share=0.1))
    assert problem.endswith("expected at most 10.0000% (splits.max_unlisted_share), got 20.0000%")


def write_catalogues(spark: SparkSession, settings: Settings, changed_after: datetime.date) -> None:
    """A snapshot a day, from the third day of the windows on, in which about a third changes.

    Snapshots after a day have other values, other items and new words.
    """
    logs, days = Logs(spark, settings), windows(settings.date, settings.windows).days
    for place, day in enumerate(days[2:]):
        draw = random.Random(f"{place} {day > changed_after and settings.root}")
        listed = [item for item in ITEMS if draw.random() < 0.8]
        new = f"new on {day}" if day > changed_after else "usual"
        items = [
            {
                "item_id": item,
                "category": draw.choice(["c1", "c1", "c2", new]),
                "price": draw.choice([1, 2, 3, 4]),
                "entities": [draw.choice(["red", "green", new])],
            }
            for item in listed
        ]
        logs.catalogue(day, items)


def test_catalogues_after_a_requests_day_change_no_row_of_it(
    spark: SparkSession, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither its numbers nor the item rows that they refer to; as of the test day they change."""
    events, cut = draw_log(9, users=6), D - datetime.timedelta(days=3)

    def built() -> Settings:
        root = str(tmp_path_factory.mktemp("catalogue"))
        chosen = settings.model_copy(update={"root": root})
        write_log(spark, chosen, events)
        shutil.rmtree(chosen.logs_folder("items"))
        write_catalogues(spark, chosen, cut)
        build_splits(spark, chosen)
        return chosen

    def rows_with_items(chosen: Settings) -> tuple[list[Any], list[Any]]:
        """Rows of requests up to the cut, and after it, with what their numbers refer to."""
        splits = Published(chosen)
        items = splits.items()
        sides: tuple[list[Any], list[Any]] = ([], [])
        for split in SPLITS:
            for row in splits.rows(split):
                read = [items[number] for name in ("candidates", "history") for number in row[name]]
                sides[row["request_time"].date() > cut].append(repr((split, row, read)))
        return sorted(sides[0]), sorted(sides[1])

    one, other = built(), built()
    (before, after), (same, changed) = rows_with_items(one), rows_with_items(other)
    assert before == same
    assert len(before) > 20
    assert after != changed
    assert max(row["valid_from"] or cut for row in Published(one).items()) == D
    assert {row["valid_from"] for row in Published(one).items()} > {None, D}
    # The control: the same requests with the run date's catalogue.
    days = one.splits.model_copy(update={"item_fields": "as_of_test_day"})
    build_splits(spark, one.model_copy(update={"splits": days}))
    assert rows_with_items(one)[0] != before
