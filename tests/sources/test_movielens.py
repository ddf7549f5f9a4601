"""MovieLens as raw logs: the mapping, and that a day contains nothing of later days."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mfn.configuration import load_settings
from mfn.errors import DataRefused, NotPublished
from mfn.settings import Settings
from mfn.sources import negatives
from mfn.sources.ingest import ingest
from mfn.windows import windows

REPOSITORY = Path(__file__).parents[2]
DAY = 24 * 3600
START = 875_232_000
"""Midnight of the first day, 1997-09-26, in seconds since 1970."""
EACH = 3

Rating = tuple[str, str, int, int]
"""User, item, rating, second since START."""

ITEMS = """\
item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
1\tToy Story\t1995\tAnimation Children's Comedy
2\tThe "Café" of 2001: Schindler's 12 Men\t2001\tDrama
3\tunkonwn\tunkonwn\tunknown
4\tWar\t\tWar Drama
5\t\t1990\tSci-Fi
6\tStupids, The\t1996\tComedy
"""
USERS = """\
user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token
a\t24\tM\ttechnician\t85711
b\t7\tF\tother\t94043
"""
FIRST_DAYS: list[Rating] = [
    # Day 0: movie 1 is three times as popular as movie 2.
    ("a", "1", 5, 10),
    ("b", "1", 3, 20),
    ("c", "1", 4, 30),
    ("c", "2", 1, 30),
    # Day 1 has no ratings. On day 2, "a" has already seen 1, and rates 4 and 5 at once.
    ("a", "4", 4, 2 * DAY),
    ("a", "5", 3, 2 * DAY),
    ("d", "6", 5, 3 * DAY - 1),
]


def inter(ratings: Iterable[Rating]) -> str:
    lines = (f"{user}\t{item}\t{rating}\t{START + at}\n" for user, item, rating, at in ratings)
    return "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(lines)


def ingested(
    spark: SparkSession, root: Path, ratings: Iterable[Rating], **files: str
) -> tuple[Settings, Any]:
    """Run `ingest` on these ratings and files; return settings and counts."""
    folder = root / "files"
    folder.mkdir(parents=True)
    for kind, text in {"inter": inter(ratings), "item": ITEMS, "user": USERS, **files}.items():
        (folder / f"ml-100k.{kind}").write_text(text)
    chosen = Settings(
        root=str(root),
        date=datetime.date(1998, 4, 22),
        ingest={"path": str(folder), "negatives": EACH},
    )
    return chosen, ingest(spark, chosen)


def lines(chosen: Settings, kind: Any, day: int) -> list[dict[str, Any]]:
    date = datetime.datetime.fromtimestamp(START + day * DAY, datetime.UTC).date()
    folder = Path(chosen.logs_folder(kind), f"dt={date}")
    return [
        json.loads(line)
        for file in sorted(folder.glob("*.json.gz"))
        for line in gzip.open(file, "rt", encoding="utf-8")
    ]


def events_by_request(chosen: Settings, day: int) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for event in lines(chosen, "events", day):
        found[event["request_id"]].append(event)
    return found


@pytest.fixture(scope="module")
def first_days(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, Any]:
    return ingested(spark, tmp_path_factory.mktemp("first_days"), FIRST_DAYS)


def test_a_rating_of_4_or_more_is_a_click_and_a_lower_one_only_an_impression(
    first_days: tuple[Settings, Any],
) -> None:
    chosen, _ = first_days
    requests = events_by_request(chosen, 0)
    assert {
        request: sorted((event["event_type"], event["item_id"]) for event in events)
        for request, events in requests.items()
    } == {
        f"a-{START + 10}": [("click", "1"), ("impression", "1")],
        f"b-{START + 20}": [("impression", "1")],
        f"c-{START + 30}": [("click", "1"), ("impression", "1"), ("impression", "2")],
    }
    (impression, click) = sorted(
        requests[f"a-{START + 10}"], key=lambda event: str(event["event_time"])
    )
    assert impression == {
        "event_id": f"a-{START + 10}-1-impression",
        "event_time": "1997-09-26T00:00:10.000Z",
        "user_id": "a",
        "event_type": "impression",
        "item_id": "1",
        "request_id": f"a-{START + 10}",
        "position": 0,
    }
    assert click["event_time"] == "1997-09-26T00:00:10.001Z"


def test_negatives_were_rated_on_earlier_days_and_not_yet_by_the_user(
    first_days: tuple[Settings, Any],
) -> None:
    chosen, counts = first_days
    shown = {
        request: {event["item_id"] for event in events}
        for request, events in events_by_request(chosen, 2).items()
    }
    # Nobody rated 3, though it is in the catalogue; nobody rated 4, 5 and 6 on earlier days.
    assert shown == {
        f"a-{START + 2 * DAY}": {"4", "5", "2"},
        f"d-{START + 3 * DAY - 1}": {"6", "1", "2"},
    }
    assert counts == {
        "rows": 14,
        "days": 3,
        "candidates": 10,
        "clicks": 4,
        "drawn_candidates": 3,
        "not_to_be_drawn": 7 * EACH - 3,
        "repeated_ratings": 0,
    }


def test_every_day_of_the_span_has_a_finished_folder(first_days: tuple[Settings, Any]) -> None:
    chosen, _ = first_days
    folder = Path(chosen.logs_folder("events"))
    found = {
        one.name: sorted(file.name for file in one.iterdir()) for one in sorted(folder.iterdir())
    }
    assert found == {
        "dt=1997-09-26": ["_SUCCESS", "part-00000.json.gz"],
        "dt=1997-09-27": ["_SUCCESS"],
        "dt=1997-09-28": ["_SUCCESS", "part-00000.json.gz"],
    }


def test_the_catalogue_and_the_profiles_have_the_values_of_the_files(
    first_days: tuple[Settings, Any],
) -> None:
    chosen, _ = first_days
    items = {item["item_id"]: item for item in lines(chosen, "items", 0)}
    assert items["1"] == {
        "item_id": "1",
        "category": "Animation",
        "title": "Toy Story",
        "entities": ["animation", "children's", "comedy", "toy", "story"],
    }
    assert items["2"]["title"] == 'The "Café" of 2001: Schindler\'s 12 Men'
    assert items["2"]["entities"] == ["drama", "café", "schindler's", "men"]
    assert "category" not in items["3"]
    assert items["3"]["entities"] == ["unkonwn"]
    assert (items["4"]["category"], items["4"]["entities"]) == ("War", ["war", "drama"])
    assert items["5"]["entities"] == ["sci-fi"]
    assert items["6"]["entities"] == ["comedy", "stupids"]
    assert lines(chosen, "users", 0) == [
        {"user_id": "a", "profile": {"age": "20s", "gender": "M", "occupation": "technician"}},
        {"user_id": "b", "profile": {"age": "0s", "gender": "F", "occupation": "other"}},
    ]


# Nothing of later days is used: tests on random ratings.


def some_ratings(days: int, seed: int, users: int = 12, items: int = 30) -> list[Rating]:
    """Random ratings: low item numbers are popular, some in the same second, no pair twice."""
    draw = random.Random(seed)
    seen, ratings = set(), []
    for day in range(days):
        for _ in range(40):
            user, second = f"u{draw.randrange(users)}", day * DAY + draw.randrange(20)
            item = f"i{min(draw.randrange(items), draw.randrange(items))}"
            if (user, item) not in seen:
                seen.add((user, item))
                ratings.append((user, item, draw.randint(1, 5), second))
    return ratings


@pytest.fixture(scope="module")
def drawn(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Any]:
    return ingested(spark, tmp_path_factory.mktemp("drawn"), some_ratings(6, seed=1))


def test_negatives_are_earlier_items_that_the_user_has_not_seen(
    drawn: tuple[Settings, Any],
) -> None:
    chosen, counts = drawn
    ratings = some_ratings(6, seed=1)
    rated_at = {(user, item): at for user, item, _, at in ratings}
    number = 0
    for day in range(6):
        earlier = {item for _, item, _, at in ratings if at < day * DAY}
        for request, events in events_by_request(chosen, day).items():
            user, _, second = request.partition("-")
            at = int(second) - START
            shown = [event["item_id"] for event in events if event["event_type"] == "impression"]
            own = {item for item in shown if rated_at.get((user, item)) == at}
            extra = [item for item in shown if item not in own]
            assert own == {item for who, item, _, when in ratings if (who, when) == (user, at)}
            assert len(set(shown)) == len(shown)
            assert set(extra) <= earlier
            assert all(rated_at.get((user, item), at) >= at for item in extra)
            unseen = {item for item in earlier if rated_at.get((user, item), at + 1) > at}
            wanted = min(len(own) * EACH, len(unseen))
            # The draws may miss the rarest of few unseen items; there are never too many.
            assert wanted / 2 <= len(extra) <= wanted
            positions = [event["position"] for event in events if event["event_type"] != "click"]
            assert sorted(positions) == list(range(len(shown)))
            number += len(extra)
    assert number == counts["drawn_candidates"] > 300


def test_later_ratings_do_not_change_earlier_days(
    spark: SparkSession, drawn: tuple[Settings, Any], tmp_path: Path
) -> None:
    """Not even for a user with a negative today that they rate, or no longer rate, tomorrow."""
    before = [rating for rating in some_ratings(6, seed=1) if rating[3] < 4 * DAY]
    later = [(user, item, rating, at) for user, item, rating, at in some_ratings(9, seed=2)]
    known = {rating[:2] for rating in before}
    later = [rating for rating in later if rating[3] >= 4 * DAY and rating[:2] not in known]
    other, _ = ingested(spark, tmp_path, [*reversed(later), *reversed(before)])
    chosen, _ = drawn

    def contents(of: Settings, day: int) -> list[bytes]:
        date = datetime.datetime.fromtimestamp(START + day * DAY, datetime.UTC).date()
        folder = Path(of.logs_folder("events"), f"dt={date}")
        return [file.read_bytes() for file in sorted(folder.iterdir())]

    for day in range(4):
        assert contents(other, day) == contents(chosen, day)
    assert contents(other, 4) != contents(chosen, 4)  # control
    rated_later = {rating[:2] for rating in later}
    shown = {(event["user_id"], event["item_id"]) for event in lines(other, "events", 3)}
    assert shown & rated_later


def test_negatives_are_sampled_by_popularity_on_earlier_days(spark: SparkSession) -> None:
    first: list[Any] = []
    for item, times in {"often": 60, "now and then": 30, "seldom": 10}.items():
        first += [(0, f"{item} {n}", n, item) for n in range(times)]
    today = [(1, f"new {n}", 1000 + n, "fresh") for n in range(600)]
    chosen = spark.createDataFrame(
        first + today, "dt int, user_id string, moment long, item_id string"
    )
    found = Counter(row["item_id"] for row in negatives.draw(chosen, 1, seed=5).collect())
    # The standard deviation of the count of "often" is 12.
    assert sum(found.values()) == 600
    assert abs(found["often"] - 360) < 50
    assert abs(found["now and then"] - 180) < 50
    assert abs(found["seldom"] - 60) < 30
    assert "fresh" not in found


def test_the_seed_and_not_the_partitioning_decides_on_negatives(spark: SparkSession) -> None:
    rows = [(at // DAY, user, at, item) for user, item, _, at in some_ratings(3, seed=1)]
    chosen = spark.createDataFrame(rows, "dt int, user_id string, moment long, item_id string")
    one, same, another = (
        sorted(map(tuple, negatives.draw(frame, 2, seed).collect()))
        for frame, seed in ((chosen, 1), (chosen.repartition(3), 1), (chosen, 2))
    )
    assert one == same != another


# Refused files.


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"item": "item_id:token\tclass:token_seq\n1\tDrama\n"}, "movie_title is missing"),
        ({"inter": inter([])}, "got 0 lines"),
        ({"inter": inter(FIRST_DAYS) + "a\t1\tgood\t1\n"}, "got 8 lines, of which 1 "),
        ({"inter": inter(FIRST_DAYS) + "a\t1\t5\n"}, "got 8 lines, of which 1 "),
    ],
)
def test_files_without_a_column_or_with_invalid_ratings_are_refused(
    spark: SparkSession, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(DataRefused, match=message):
        ingested(spark, tmp_path, FIRST_DAYS, **files)
    assert not (tmp_path / "raw").exists()


def test_the_message_about_a_missing_file_names_it_and_the_command_to_fetch_it(
    spark: SparkSession, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    (tmp_path / "ml-100k.inter").write_text(inter(FIRST_DAYS))
    with pytest.raises(NotPublished, match=r"one file \*\.item in .*fetch_data\.py movielens"):
        ingest(spark, make_settings(ingest={"path": str(tmp_path)}))
    with pytest.raises(NotPublished, match=r"ingest\.path: .*fetch_data\.py movielens"):
        ingest(spark, make_settings())


# The configuration and the script that fetches the data.


def test_the_windows_of_the_configuration_are_within_the_data_set() -> None:
    chosen = load_settings(str(REPOSITORY / "conf" / "movielens.yaml"), [])
    dates = windows(chosen.date, chosen.windows)
    assert dates.days[0] >= datetime.date(1997, 9, 20)
    assert chosen.date <= datetime.date(1998, 4, 22)
    assert chosen.logs.made_by == "ingest"


@pytest.mark.process
def test_files_that_are_in_the_cache_are_not_fetched_again(tmp_path: Path) -> None:
    folder = tmp_path / "mfn" / "movielens-100k"
    folder.mkdir(parents=True)
    for kind in ("inter", "item", "user"):
        (folder / f"ml-100k.{kind}").touch()
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "fetch_data.py"), "movielens"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "UV_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == str(folder)


@pytest.mark.process
def test_what_could_not_be_fetched_leaves_no_folder(tmp_path: Path) -> None:
    """The control: with an empty cache and no index there is something to fetch, in vain."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "fetch_data.py"), "movielens"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "UV_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "recbole" in done.stderr
    assert list((tmp_path / "mfn").iterdir()) == []
