"""The logs of `simulate_logs` are the same every time and can distinguish models."""

from __future__ import annotations

import datetime
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn.settings import Settings
from mfn.simulator import simulate, traffic
from mfn.simulator.simulate import simulate_logs
from scripts.probe_shop import probe

RUN_DATE = datetime.date(2026, 3, 8)
SMALL: dict[str, Any] = {
    "users": 250,
    "items": 3000,
    "requests_per_day": 900,
    "browsing_per_day": 2500,
    "seed": 3,
}
KINDS = ("events", "items", "users", "truth")
TYPES = ("impression", "click", "cart", "purchase")


def _simulate(spark: SparkSession, root: Path, date: datetime.date, **sizes: Any) -> Settings:
    settings = Settings(root=str(root), date=date, simulate={**SMALL, **sizes})
    simulate_logs(spark, settings)
    return settings


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Logs of eight days, written once for all tests that only read."""
    return _simulate(spark, tmp_path_factory.mktemp("shop"), RUN_DATE)


def _folder(settings: Settings, kind: Any, day: datetime.date) -> Path:
    return Path(settings.logs_folder(kind), f"dt={day}")


def _days(settings: Settings) -> list[datetime.date]:
    days = settings.simulate.days
    return [settings.date - datetime.timedelta(days=back) for back in reversed(range(days))]


def _lines(settings: Settings, kind: str, day: datetime.date) -> list[str]:
    files = sorted(_folder(settings, kind, day).glob("*.json.gz"))
    return [line for file in files for line in gzip.open(file, "rt").read().splitlines()]


def _events(settings: Settings, day: datetime.date) -> list[dict[str, Any]]:
    """The valid events of a day's folder, without repeats."""
    valid: dict[str, dict[str, Any]] = {}
    for line in _lines(settings, "events", day):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        complete = {"user_id", "item_id"} <= set(event) and event["event_type"] in TYPES
        if complete and event["event_time"].startswith(str(day)):
            valid[event["event_id"]] = event
    return list(valid.values())


def _contents(settings: Settings, day: datetime.date) -> dict[str, bytes]:
    return {
        f"{kind}/{file.name}": file.read_bytes()
        for kind in KINDS
        for file in sorted(_folder(settings, kind, day).iterdir())
        if not file.name.endswith(".crc")
    }


def test_each_day_has_finished_folders_with_the_file_names_that_readers_expect(
    shop: Settings,
) -> None:
    for kind in KINDS:
        folder = Path(shop.logs_folder(kind))  # type: ignore[arg-type]
        assert sorted(found.name for found in folder.iterdir()) == [
            f"dt={day}" for day in _days(shop)
        ]
    names = set(_contents(shop, RUN_DATE))
    assert names == {
        *(f"{kind}/_SUCCESS" for kind in KINDS),
        *(f"{kind}/part-00000.json.gz" for kind in ("events", "items", "users")),
        "truth/part-00000.parquet",
    }


def test_a_day_has_the_same_bytes_whatever_other_days_are_simulated(
    spark: SparkSession, shop: Settings, tmp_path: Path
) -> None:
    day_before = RUN_DATE - datetime.timedelta(days=1)
    other = _simulate(spark, tmp_path, day_before, days=2)

    for day in _days(other):
        assert _contents(other, day) == _contents(shop, day)


def test_a_rerun_writes_the_same_bytes_and_another_seed_does_not(
    spark: SparkSession, tmp_path: Path
) -> None:
    first = _simulate(spark, tmp_path, RUN_DATE, days=1)
    before = _contents(first, RUN_DATE)
    simulate_logs(spark, first)
    after = _contents(first, RUN_DATE)
    other = _contents(_simulate(spark, tmp_path, RUN_DATE, days=1, seed=4), RUN_DATE)

    assert before == after
    for kind in ("events", "items", "users"):
        name = f"{kind}/part-00000.json.gz"
        assert before[name] != other[name]


def test_the_logs_do_not_depend_on_the_number_of_tasks(
    spark: SparkSession, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [RUN_DATE]
    kinds = {
        "events": simulate.events,
        "items": simulate.items,
        "users": simulate.users,
        "truth": simulate.truth,
    }
    for name, make in kinds.items():
        monkeypatch.undo()
        few = make(spark, shop.simulate, days)
        monkeypatch.setattr(simulate, "TASK_ROWS", 5000 if name in ("events", "truth") else 200)
        many = make(spark, shop.simulate, days)

        assert many.rdd.getNumPartitions() > few.rdd.getNumPartitions()
        assert sorted(many.collect()) == sorted(few.collect())


def test_a_failed_run_leaves_the_days_of_the_previous_run(
    spark: SparkSession, tmp_path: Path
) -> None:
    settings = _simulate(spark, tmp_path, RUN_DATE, days=1)
    before = _contents(settings, RUN_DATE)
    lines = simulate.events(spark, settings.simulate, [RUN_DATE])
    broken = lines.withColumn("value", F.raise_error("out of disk").cast("string"))

    with pytest.raises(PySparkException, match="out of disk"):
        simulate._write(broken, settings.logs_folder("events"), [RUN_DATE], "text")

    assert _contents(settings, RUN_DATE) == before
    assert [found.name for found in Path(settings.logs_folder("events")).iterdir()] == [
        f"dt={RUN_DATE}"
    ]


def test_closest_interest_beats_the_average_except_in_the_additive_control(
    spark: SparkSession, shop: Settings, tmp_path: Path
) -> None:
    control = _simulate(spark, tmp_path, RUN_DATE, interest_match="additive", days=4)
    joint, additive = probe(spark, shop), probe(spark, control)

    assert joint["closest"] > joint["average"] + 0.02
    assert additive["closest"] < additive["average"]
    assert 0.75 < joint["oracle"] < 0.85


def test_clicks_are_drawn_with_the_true_probabilities(shop: Settings) -> None:
    probability, clicked = [], []
    for day in _days(shop)[:-1]:
        truth = pq.read_table(_folder(shop, "truth", day) / "part-00000.parquet").to_pylist()
        events = _events(shop, day)
        # Late lines and clicks after midnight are in the next day's folder: skip these requests.
        early = {
            e["request_id"] for e in events if "request_id" in e and e["event_time"][11:] < "22"
        }
        clicks = {(e["user_id"], e["request_id"], e["item_id"]) for e in events if _is(e, "click")}
        for row in truth:
            if row["request_id"] in early:
                probability.append(row["probability"])
                clicked.append((row["user_id"], row["request_id"], row["item_id"]) in clicks)
    p, y = np.array(probability), np.array(clicked)
    assert len(p) > 40000
    for bucket in np.array_split(np.argsort(p), 10):
        deviation = np.sqrt((p[bucket] * (1 - p[bucket])).sum())
        assert abs(y[bucket].sum() - p[bucket].sum()) < 4 * deviation


def test_truth_has_exactly_one_row_for_each_candidate_shown(shop: Settings) -> None:
    rows = pq.read_table(_folder(shop, "truth", RUN_DATE) / "part-00000.parquet").to_pylist()
    truth = Counter((row["user_id"], row["request_id"], row["item_id"]) for row in rows)
    shown = {
        (e["user_id"], e["request_id"], e["item_id"])
        for e in _events(shop, RUN_DATE)
        if _is(e, "impression")
    }

    assert max(truth.values()) == 1
    assert {request[:8] for _, request, _ in truth} == {"20260308"}
    assert {one for one in shown if one[1].startswith("20260308")} <= set(truth)
    assert len(shown) > 0.99 * len(truth)


def test_items_of_events_are_in_the_days_catalogue_and_each_day_adds_new_items(
    shop: Settings,
) -> None:
    known: set[str] = set()
    clicked_new = 0
    for day in _days(shop):
        catalogue = [json.loads(line) for line in _lines(shop, "items", day)]
        listed = {item["item_id"] for item in catalogue}
        assert len(listed) == len(catalogue)
        seen = {event["item_id"] for event in _events(shop, day)}
        assert seen <= listed
        if known:
            assert listed - known, day
            clicked_new += len(seen - known)
        known |= listed
    assert clicked_new > 0


def test_a_small_share_of_lines_has_each_documented_fault(shop: Settings) -> None:
    lines = [(day, line) for day in _days(shop) for line in _lines(shop, "events", day)]
    kinds: Counter[str] = Counter()
    ids: set[str] = set()
    for day, line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            kinds["cut off"] += 1
            continue
        kinds["repeat"] += event["event_id"] in ids
        ids.add(event["event_id"])
        kinds["no user"] += "user_id" not in event
        kinds["no item"] += "item_id" not in event
        kinds["unknown type"] += event["event_type"] not in TYPES
        if event["event_time"].startswith("0000"):
            kinds["no time"] += 1
        else:
            kinds["late"] += not event["event_time"].startswith(str(day))

    assert set(kinds) == {
        "cut off", "repeat", "no user", "no item", "unknown type", "no time", "late"
    }  # fmt: skip
    assert min(kinds.values()) > 0
    assert 0.002 < kinds.total() / len(lines) < 0.004


def test_users_have_long_histories_before_the_last_days_and_bots_are_rare_but_active(
    shop: Settings,
) -> None:
    before = [event for day in _days(shop)[:4] for event in _events(shop, day)]
    behaviours = Counter(e["user_id"] for e in before if e["event_type"] != "impression")
    bots = {f"u{250 + n}" for n in range(traffic.bots(shop.simulate))}
    usual = np.median([count for user, count in behaviours.items() if user not in bots])

    assert 20 < usual < 80
    assert len(bots) == 1
    assert min(behaviours[bot] for bot in bots) > 4 * usual
    users = [json.loads(line) for line in _lines(shop, "users", RUN_DATE)]
    assert set(behaviours) <= {user["user_id"] for user in users}
    assert {name for user in users for name in user["profile"]} == {"age", "region"}


def test_click_rate_falls_with_the_position_on_the_page(shop: Settings) -> None:
    events = [event for day in _days(shop) for event in _events(shop, day)]
    shown = Counter(event["position"] for event in events if _is(event, "impression"))
    clicks = Counter(event["position"] for event in events if _is(event, "click"))

    assert sum(clicks[k] for k in range(5)) / sum(shown[k] for k in range(5)) > 1.1 * (
        sum(clicks[k] for k in range(5, 10)) / sum(shown[k] for k in range(5, 10))
    )


def _is(event: dict[str, Any], kind: str) -> bool:
    return "request_id" in event and event["event_type"] == kind
