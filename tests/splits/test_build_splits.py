"""Request rows against plain loops over the log, and what must not change them."""

from __future__ import annotations

import datetime
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mfn import storage, tables
from mfn.job import DataRefused
from mfn.schema import EVENTS, FIRST_INDEX, UNKNOWN, VALIDATION
from mfn.settings import Settings, WindowSettings
from mfn.splits.build import build_splits
from mfn.splits.published import Splits
from mfn.splits.windows import windows
from tests.logs_on_disk import data_of

UTC = datetime.UTC
D = datetime.date(2026, 3, 8)
ATTRIBUTION = datetime.timedelta(minutes=30)
N, M = 5, 3
SPLIT_NAMES = ("pretraining", "pretraining_validation", "train", "test")


@dataclass(frozen=True)
class Event:
    event_id: str
    time: datetime.datetime
    user: str
    kind: str
    item: str
    request: str | None = None
    position: int | None = None

    @property
    def row(self) -> dict[str, Any]:
        return {
            "dt": self.time.date(),
            "event_id": self.event_id,
            "event_time": self.time,
            "user_id": self.user,
            "event_type": self.kind,
            "item_id": self.item,
            "request_id": self.request,
            "position": self.position,
            "context": {"device": f"device {len(self.user) % 3}"},
        }


def draw_log(seed: int, users: int = 8, requests: int = 14) -> list[Event]:
    """A log with ties, repeated impressions, clicks of every kind, and requests at midnight."""
    draw = random.Random(seed)
    events: list[Event] = []

    def add(**values: Any) -> None:
        events.append(Event(event_id=f"e{len(events):05d}", **values))

    start = datetime.datetime.combine(D, datetime.time(), UTC) - datetime.timedelta(days=7)
    for user in (f"u{n}" for n in range(users)):
        for number in range(requests):
            # Steps of ten minutes, so that there are equal times, and some at midnight.
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
                add(time=at + later, kind="impression", position=position, **shown)
                for _ in range(draw.choice([0, 0, 1, 2])):
                    after = datetime.timedelta(minutes=draw.choice([0, 10, 20, 30, 40]))
                    by = draw.choice([request, None])
                    add(time=at + later + after, kind="click", **{**shown, "request": by})
        for _ in range(8):
            at = start + datetime.timedelta(minutes=10 * draw.randrange(8 * 24 * 6))
            kind = draw.choice(["cart", "purchase", "click"])
            add(time=at, kind=kind, user=user, item=f"i{draw.randrange(14):02d}")
    end = datetime.datetime.combine(D, datetime.time(), UTC) + datetime.timedelta(days=1)
    return [event for event in events if event.time < end]


ITEMS = [f"i{n:02d}" for n in range(12)] + ["never shown"]


def write_log(
    spark: SparkSession, settings: Settings, events: Sequence[Event], last: datetime.date = D
) -> None:
    days = [day for day in windows(settings.date, settings.windows).days if day <= last]
    frame = spark.createDataFrame([event.row for event in events], EVENTS.columns)
    where = {"dt": sorted({*days, *(event.time.date() for event in events)})}
    tables.replace(frame, settings.root, EVENTS, where)
    rows = [{"run_date": day, "source": "events", "reason": "clean", "rows": 1} for day in days]
    validated = spark.createDataFrame(rows, VALIDATION.columns)
    tables.replace(validated, settings.root, VALIDATION, {"run_date": days})
    folder = Path(settings.logs_folder("items"), f"dt={days[0]}")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"item_id": item, "category": f"c{n % 3}", "price": n, "entities": [f"x{n % 4}", "same"]}
        for n, item in enumerate(ITEMS)
    ]
    (folder / "part.json").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    (folder / "_SUCCESS").touch()


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(
        splits={"history_length": N, "candidates": M, "files": 2, "context_fields": ["device"]}
    )


# The rows once more, in plain loops.


def expected_rows(events: Sequence[Event]) -> dict[tuple[str, str, int], tuple[Any, ...]]:
    """By (user, request, slate): split, history of items, candidates, labels."""
    impressions = [e for e in events if e.kind == "impression"]
    requests: dict[tuple[str, str], list[Event]] = {}
    for event in impressions:
        requests.setdefault((event.user, event.request or event.event_id), []).append(event)
    clicks: list[tuple[Event, str | None]] = []
    for click in (e for e in events if e.kind == "click"):
        of = click.request
        if of is None:
            near = [
                e
                for e in impressions
                if (e.user, e.item) == (click.user, click.item)
                and click.time - ATTRIBUTION <= e.time <= click.time
            ]
            if near:
                best = max(
                    near,
                    key=lambda e: (
                        e.time, e.request is not None, e.request or e.event_id, e.event_id,
                    ),
                )  # fmt: skip
                of = best.request or best.event_id
        clicks.append((click, of))
    end = datetime.datetime.combine(D, datetime.time(), UTC) + datetime.timedelta(days=1)
    rows: dict[tuple[str, str, int], tuple[Any, ...]] = {}
    for (user, request), shown in requests.items():
        time = min(e.time for e in shown)
        chosen: dict[str, Event] = {}
        for event in shown:
            if event.time > time + ATTRIBUTION:
                continue
            held = chosen.get(event.item)
            rank = (event.time, 10**9 if event.position is None else event.position)
            if held is None or rank < (
                held.time, 10**9 if held.position is None else held.position,
            ):  # fmt: skip
                chosen[event.item] = event
        slate = sorted(
            chosen.values(),
            key=lambda e: (10**9 if e.position is None else e.position, e.item),
        )
        if max(e.time for e in slate) + ATTRIBUTION >= end:
            continue
        labels = [
            int(
                any(
                    (c.user, of, c.item) == (user, request, e.item)
                    and e.time <= c.time <= e.time + ATTRIBUTION
                    for c, of in clicks
                )
            )
            for e in slate
        ]
        past = sorted(
            (e.time, e.event_id, e.item)
            for e in events
            if e.user == user and e.kind != "impression" and e.time < time
        )
        dates = windows(D, WindowSettings())
        day = time.date()
        found = [n for n in SPLIT_NAMES if getattr(dates, n)[0] <= day <= getattr(dates, n)[1]]
        if not found:
            continue
        for first in range(0, len(slate), M):
            rows[user, request, first // M] = (
                found[0],
                [item for _, _, item in past][-N:],
                [e.item for e in slate[first : first + M]],
                labels[first : first + M],
            )
    return rows


def built_rows(settings: Settings) -> dict[tuple[str, str, int], tuple[Any, ...]]:
    splits = Splits.published(settings)
    items = ds.dataset(f"{splits.folder}/items", format="parquet").to_table().to_pylist()
    name_of = {row["item"]: row["key"] for row in items}
    rows: dict[tuple[str, str, int], tuple[Any, ...]] = {}
    for split in SPLIT_NAMES:
        for file in splits.files(split):
            for row in pq.read_table(file.url.removeprefix("file://")).to_pylist():
                length, count = row["history_length"], row["candidate_count"]
                assert row["history"][length:] == [0] * (N - length)
                assert row["candidates"][count:] == row["labels"][count:] == [0] * (M - count)
                assert [name_of[c] for c in row["candidates"][:count]] == row["candidate_ids"]
                slate = sum(k[:2] == (row["user_id"], row["request_id"]) for k in rows)
                rows[row["user_id"], row["request_id"], slate] = (
                    split,
                    [name_of[item] or "unknown" for item in row["history"][:length]],
                    row["candidate_ids"],
                    row["labels"][:count],
                )
    return rows


def by_request(
    rows: dict[tuple[str, str, int], tuple[Any, ...]],
) -> dict[tuple[str, str], list[Any]]:
    """Rows of a request in the order of their content: files do not keep that of slates."""
    found: dict[tuple[str, str], list[Any]] = {}
    for (user, request, _), row in rows.items():
        found.setdefault((user, request), []).append(row)
    return {key: sorted(rows, key=str) for key, rows in found.items()}


def files_of(settings: Settings, *kinds: str) -> dict[str, str]:
    """A hash of each file of these folders of the published splits."""
    folder = Path(Splits.published(settings).folder)
    return {
        str(path.relative_to(folder)): hashlib.sha256(data_of(path)).hexdigest()
        for kind in kinds
        for path in sorted(folder.glob(f"{kind}/*.parquet"))
    }


LEARNT = ("pretraining", "pretraining_validation", "train")


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_are_those_of_plain_loops_over_the_log(
    spark: SparkSession, settings: Settings, seed: int
) -> None:
    events = draw_log(seed)
    write_log(spark, settings, events)
    told = build_splits(spark, settings)
    expected = {
        key: (split, [i if i in ITEMS else "unknown" for i in history], slate, labels)
        for key, (split, history, slate, labels) in expected_rows(events).items()
    }
    found = built_rows(settings)
    assert by_request(found) == by_request(expected)
    assert told["rows"] == len(expected)
    manifest = Splits.published(settings).manifest
    for split in SPLIT_NAMES:
        own = [row for row in expected.values() if row[0] == split]
        counts = manifest["splits"][split]
        assert counts["rows"] == len(own)
        assert counts["candidates"] == sum(len(slate) for _, _, slate, _ in own)
        assert counts["clicks"] == sum(sum(labels) for *_, labels in own)
        assert counts["empty_histories"] == sum(not history for _, history, *_ in own)


def test_nothing_later_than_the_training_window_changes_what_is_learnt_from(
    spark: SparkSession, settings: Settings
) -> None:
    events = draw_log(3)
    write_log(spark, settings, events)
    build_splits(spark, settings)
    before = files_of(settings, *LEARNT, "items")
    vocabularies = Splits.published(settings).manifest["vocabularies"]
    midnight = datetime.datetime.combine(D, datetime.time(), UTC)
    later = midnight + ATTRIBUTION
    changed = [e for e in events if e.time <= later] + [
        replace(e, event_id=f"x{e.event_id}", item="i03", user="someone new")
        for e in events
        if e.time > later
    ]
    other = settings.model_copy(update={"root": f"{settings.root}/other"})
    write_log(spark, other, changed)
    build_splits(spark, other)
    assert files_of(other, *LEARNT, "items") == before
    assert Splits.published(other).manifest["vocabularies"] == vocabularies
    assert files_of(other, "test") != files_of(settings, "test")
    # The control: a change before the window does change the rows.
    earlier = min(e.time for e in events if e.kind == "impression") + datetime.timedelta(days=4)
    control = settings.model_copy(update={"root": f"{settings.root}/control"})
    early = [
        replace(e, item="i05") if e.kind != "impression" and e.time < earlier else e for e in events
    ]
    write_log(spark, control, early)
    build_splits(spark, control)
    assert files_of(control, *LEARNT) != {k: v for k, v in before.items() if "items" not in k}


def test_an_old_day_built_again_after_a_new_one_is_the_same_to_the_byte(
    spark: SparkSession, settings: Settings
) -> None:
    events = draw_log(4)
    write_log(spark, settings, events)
    build_splits(spark, settings)
    before = files_of(settings, *SPLIT_NAMES, "items")
    next_day = settings.model_copy(update={"date": D + datetime.timedelta(days=1)})
    moved = [
        replace(e, event_id=f"n{e.event_id}", time=e.time + datetime.timedelta(days=1), user="new")
        for e in events
        if e.time.date() == D and e.time.hour >= 2
    ]
    write_log(spark, next_day, [*events, *moved], next_day.date)
    build_splits(spark, next_day)
    later = Splits.published(next_day).manifest["vocabularies"]
    build_splits(spark, settings)
    again = files_of(settings, "pretraining", "pretraining_validation", "train", "items")
    assert again == {k: v for k, v in before.items() if not k.startswith("test")}
    vocabularies = Splits.published(settings).manifest["vocabularies"]
    assert later["item_id"]["size"] >= vocabularies["item_id"]["size"]


def test_items_never_clicked_have_a_row_but_no_id_of_their_own(
    spark: SparkSession, settings: Settings
) -> None:
    write_log(spark, settings, draw_log(5))
    build_splits(spark, settings)
    splits = Splits.published(settings)
    rows = ds.dataset(f"{splits.folder}/items", format="parquet").to_table().to_pylist()
    by_key = {row["key"]: row for row in rows}
    assert [row["item"] for row in rows] == list(range(len(ITEMS) + FIRST_INDEX))
    assert by_key["never shown"]["item_id"] == UNKNOWN
    assert by_key["i03"]["item_id"] >= FIRST_INDEX
    assert by_key["never shown"]["category"] >= FIRST_INDEX
    assert splits.manifest["item_fields"] == ["item_id", "category", "price", "entity"]
    assert splits.manifest["constant_fields"] == ["shop", "brand"]


def test_days_that_are_not_validated_are_refused_by_name(
    spark: SparkSession, settings: Settings
) -> None:
    write_log(spark, settings, draw_log(6, users=2), last=D - datetime.timedelta(days=1))
    with pytest.raises(DataRefused, match=r"2026-03-08 is not; run jobs/validate_logs.py"):
        build_splits(spark, settings)
    with pytest.raises(storage.NotPublished):
        Splits.published(settings)


def test_an_empty_test_window_is_refused_and_publishes_nothing(
    spark: SparkSession, settings: Settings
) -> None:
    events = [e for e in draw_log(6, users=3) if e.time.date() < D]
    write_log(spark, settings, events)
    with pytest.raises(DataRefused, match=r"test: expected requests from 2026-03-08"):
        build_splits(spark, settings)
    with pytest.raises(storage.NotPublished):
        Splits.published(settings)
