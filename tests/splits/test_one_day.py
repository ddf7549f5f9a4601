"""A complete `build_splits`, with days in New York's time zone, on the day of a clock change.

The log has many unusual cases: late events, requests around midnight, clicks and impressions
without request id, items that are not in the catalogue, profiles and contexts. The job runs once
in this process and once as a script with another time zone.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mfn import tables
from mfn.indices import FIRST_INDEX, MISSING, UNKNOWN
from mfn.schema import VOCABULARIES
from mfn.settings import Settings
from mfn.splits.build import build_splits
from mfn.windows import windows
from tests.conftest import RUN_DATE, SPARK
from tests.logs_on_disk import DAY, Logs, Published
from tests.naive_requests import SPLITS, Event, Rules, comparable, naive_rows

ZONE = "America/New_York"
CHOSEN: dict[str, Any] = {
    "logs": {"day_time_zone": ZONE},
    "windows": {
        "history_days": 1,
        "pretraining_days": 2,
        "training_days": 2,
        "test_days": 1,
    },
    "splits": {
        "history_length": 5,
        "candidates": 3,
        "files": 3,
        "user_fields": ["age"],
        "context_fields": ["device"],
    },
    "train": {"num_workers": 2},
}
CATALOGUE = [f"i{n}" for n in range(8)]
REPOSITORY = Path(__file__).parent.parent.parent


def draw_log(rules: Rules) -> list[Event]:
    """Events of the days of the windows and of the 20 minutes after them."""
    draw = random.Random(3)
    first, last = rules.windows.days[0], rules.last
    end = rules.midnight(last + DAY) + datetime.timedelta(minutes=20)
    events: list[Event] = []

    def add(kind: str, time: datetime.datetime, user: str, item: str, request: str | None) -> None:
        own = rules.day({"time": time})
        if not rules.midnight(first) <= time <= end:
            return
        device = draw.choice(["web", "app", None, "new on the last day" if own == last else "tv"])
        events.append(
            {
                # Some events are late: they are in the folder of the next day.
                "dt": own + (draw.random() < 0.05) * DAY,
                "event_id": f"e{len(events):04d}",
                "time": time,
                "user": user,
                "type": kind,
                "item": item,
                "request": request,
                "position": draw.choice([None, 0, 1, 2]) if kind == "impression" else None,
                "context": {} if device is None else {"device": device},
            }
        )

    for number in range(900):
        day = first + draw.randrange(7) * DAY
        minutes = draw.choice([draw.randrange(0, 1440, 10), draw.randrange(-40, 50, 10)])
        time = rules.midnight(day).astimezone(datetime.UTC) + datetime.timedelta(minutes=minutes)
        user = f"rare user {number}" if draw.random() < 0.1 else f"u{draw.randrange(6)}"
        item = draw.choice([*CATALOGUE, "not in the catalogue"])
        if rules.day({"time": time}) == last and draw.random() < 0.1:
            item = "new in the log of the last day"
        request = draw.choice([None, *(f"{day}-{n}" for n in range(4))])
        if draw.random() < 0.2:
            add(draw.choice(["click", "cart", "purchase"]), time, user, item, request)
            continue
        add("impression", time, user, item, request)
        while draw.random() < 0.3:
            after = datetime.timedelta(minutes=draw.randrange(0, 50, 10))
            add("click", time + after, user, item, draw.choice([request, None]))
    return events


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = str(tmp_path_factory.mktemp("one_day") / "here")
    return Settings(root=root, date=RUN_DATE, spark=SPARK, **CHOSEN)


@pytest.fixture(scope="module")
def rules(settings: Settings) -> Rules:
    return Rules(windows(settings.date, settings.windows), zone=ZONE)


@pytest.fixture(scope="module")
def events(rules: Rules) -> list[Event]:
    return draw_log(rules)


@pytest.fixture(scope="module")
def counts(
    spark: SparkSession, settings: Settings, rules: Rules, events: list[Event]
) -> dict[str, Any]:
    """The counts that the job returns; a copy of its logs is in the folder `elsewhere`."""
    logs = Logs(spark, settings)
    logs.events(events)
    items = [{"item_id": item, "category": f"c{item}", "brand": "b"} for item in CATALOGUE]
    logs.catalogue(rules.windows.days[0] - 3 * DAY, items[:5])
    logs.catalogue(rules.last, items[3:])
    logs.catalogue(rules.last + DAY, [{"item_id": "of the next day"}])
    for day, ages in PROFILES.items():
        users = [{"user_id": user, "profile": {"age": age}} for user, age in ages.items()]
        logs.users(rules.last + day * DAY, users)
    logs.validated(rules.windows.days)
    shutil.copytree(settings.root, f"{settings.root}/../elsewhere")
    return dict(build_splits(spark, settings))


# Day relative to the run date, and the ages of its snapshot. That of u5 comes too late.
PROFILES = {
    -9: {"u0": "not the newest before the windows"},
    -6: {"u0": "20", "u1": "30"},
    -2: {"u0": "21", "u2": "", "u3": "30"},
    0: {"u1": "31, new on this day", "u4": "20"},
    1: {"u5": "of the next day"},
}


def test_rows_and_counts_equal_those_of_plain_loops(
    settings: Settings, rules: Rules, events: list[Event], counts: dict[str, Any]
) -> None:
    splits = Published(settings)
    listed_from = splits.manifest["listed_from"]
    # Of the items of the log, the catalogue lists three on the last day only, and one never.
    assert listed_from == FIRST_INDEX + 4
    expected, counted = naive_rows(events, splits.row_of(), rules, listed_from)

    found = [
        comparable(split, row, row["request_time"])
        for split in SPLITS
        for row in splits.rows(split)
    ]
    assert sorted(found) == sorted(comparable(row["split"], row, row["time"]) for row in expected)
    in_both = {name: count for name, count in counted.items() if name in counts}
    assert {name: counts[name] for name in in_both} == in_both
    # The log has cases for every count, but all negatives are kept by default, and an item is
    # unknown only until the day after its first event.
    earlier = {f"{split}_unknown_candidates" for split in SPLITS if split != "test"}
    assert {name for name in counted if not counts.get(name)} == {"negatives_left_out", *earlier}
    assert any(2 in row["history"] for row in expected)
    assert sum(counts[f"{split}_rows"] for split in SPLITS) == counts["rows"]


def test_the_manifest_describes_the_splits(settings: Settings, counts: dict[str, Any]) -> None:
    manifest = Published(settings).manifest
    assert manifest["windows"] == {
        "history": ["2026-03-03", "2026-03-03"],
        "pretraining": ["2026-03-04", "2026-03-04"],
        "pretraining_validation": ["2026-03-05", "2026-03-05"],
        "train": ["2026-03-06", "2026-03-07"],
        "test": ["2026-03-08", "2026-03-08"],
    }
    assert manifest["item_fields"] == ["item_id", "category"]
    assert manifest["constant_fields"] == ["shop", "brand", "price", "entity"]
    assert (manifest["user_fields"], manifest["context_fields"]) == (["age"], ["device"])
    assert [manifest[name] for name in ("history_length", "candidates", "entities")] == [5, 3, 8]
    sizes = {name: one["size"] for name, one in manifest["vocabularies"].items()}
    assert sizes == {
        "item_id": FIRST_INDEX + 9,  # also the one that is not in the catalogue
        "category": FIRST_INDEX + 8,
        "shop": FIRST_INDEX,
        "brand": FIRST_INDEX + 1,
        "price": FIRST_INDEX,
        "entity": FIRST_INDEX,
        "user.age": FIRST_INDEX + 3,
        "context.device": FIRST_INDEX + 3,
    }
    for split, entry in manifest["splits"].items():
        assert entry["requests"] == counts[f"{split}_requests"]
        assert entry["rows"] == sum(file["rows"] for file in entry["files"])
        assert 2 <= len(entry["files"]) <= 3


def test_profile_and_context_are_those_known_at_the_time_of_the_request(
    spark: SparkSession,
    settings: Settings,
    rules: Rules,
    events: list[Event],
    counts: dict[str, Any],
) -> None:
    splits = Published(settings)
    table = tables.read(spark, settings.root, VOCABULARIES, "build_splits").collect()
    index = {(row["field"], row["key"]): row["index"] for row in table}
    assert ("user.age", "not the newest before the windows") not in index

    def expected(field: str, key: str | None) -> int:
        return index.get((field, key), UNKNOWN) if key else MISSING

    seen: Counter[tuple[str, int]] = Counter()
    contexts = {
        (row["request_id"], row["user_id"], row["time"], *row["candidate_ids"]): row["context"]
        for row in naive_rows(events, splits.row_of(), rules)[0]
    }
    for split in SPLITS:
        for row in splits.rows(split):
            day = rules.day({"time": row["request_time"]})
            newest: dict[str, str] = {}
            for place in sorted(PROFILES):
                if place > -9 and rules.last + place * DAY <= day:
                    newest |= PROFILES[place]
            (age,), (device,) = row["user_fields"], row["context_fields"]
            assert age == expected("user.age", newest.get(row["user_id"])), row
            key = (row["request_id"], row["user_id"], row["request_time"], *row["candidate_ids"])
            assert device == expected("context.device", contexts[key].get("device")), row
            seen[("age", age)] += 1
            seen[("device", device)] += 1
    for name in ("age", "device"):
        assert {place for field, place in seen if field == name} == {1, 2, 3, 4, 5}


@pytest.mark.process
def test_the_script_makes_the_same_files_on_a_machine_in_another_time_zone(
    settings: Settings, counts: dict[str, Any], tmp_path: Path
) -> None:
    elsewhere = settings.model_copy(update={"root": str(Path(settings.root).parent / "elsewhere")})
    config = tmp_path / "config.yaml"
    config.write_text(
        json.dumps({**CHOSEN, "root": elsewhere.root, "spark": SPARK.model_dump(mode="json")})
    )
    arguments = ["--config", str(config), "--date", str(settings.date)]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "jobs" / "build_splits.py"), *arguments],
        env={**os.environ, "TZ": "Asia/Tokyo", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Published(elsewhere).digests() == Published(settings).digests()
    assert f"rows={counts['rows']}" in done.stderr
