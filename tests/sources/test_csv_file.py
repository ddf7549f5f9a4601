"""A CSV file of one's own as raw logs: clicks with drawn candidates, or logged impressions."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mfn.errors import DataRefused, NotPublished
from mfn.settings import Settings
from mfn.sources.ingest import ingest
from tests.conftest import SPARK
from tests.raw_days import Kind, contents, days, lines

HEADER = "user_id,item_id,time,event_type,category,price,title,device"
FIRST = [
    'u1,i1,2026-03-07T10:00:00Z,click,bag,4.5,"red ""lunch"" bag, large",phone',
    "u1,i2,2026-03-07 10:00:05,click,bag,,blue bag,",
    "u1,i2,2026-03-07 10:00:05,click,bag,,blue bag,",
    "u2,i1,1772924399,purchase,bag,5,red bag,desktop",
    "u2,i3,1772924399000,cart,jar,2,jam jar,desktop",
    *(f"u4,i4,2026-03-07T09:00:0{n}Z,click,jar,1,jar,phone" for n in range(4)),
]
SECOND = [
    "u2,i2,2026-03-08T00:00:10.250Z,Click,bag,3,blue bag,phone",
    "u3,new,2026-03-08T00:00:20Z,click,clock,9,alarm clock,phone",
]
BAD = [
    "u3,i1,2026-03-08T01:00:00Z,look,bag,5,red bag,phone",
    ",i1,2026-03-08T01:00:00Z,click,bag,5,red bag,phone",
    "u3,,2026-03-08T01:00:00Z,click,bag,5,red bag,phone",
    "u3,i1,soon,click,bag,5,red bag,phone",
    "u3,i1,2026-03-08T01:00:00Z,,bag,5,red bag,phone",
    "u3,i1,2026-03-08T01:00:00Z,click,bag,5,red bag,phone,more",
    "u3,i1,2026-03-08T01:00:00Z",
]
ELSEWHERE = [
    "u1,i1,2026-03-06T23:59:59Z,click,bag,5,red bag,phone",
    "u1,i1,2026-03-09T00:00:00Z,click,bag,5,red bag,phone",
]


def write(folder: Path, rows: list[str], header: str = HEADER, name: str = "clicks.csv") -> Path:
    file = folder / name
    content = "".join(f"{row}\n" for row in [header, *rows]).encode()
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return file


def settings_of(root: Path, path: Path | None, **ingest: Any) -> Settings:
    given = {"path": path and str(path), "negatives": 1, "first_day": "2026-03-07", **ingest}
    return Settings(
        root=str(root), date="2026-03-08", spark=SPARK, ingest={"source": "csv", **given}
    )


def all_lines(settings: Settings, kind: Kind = "events") -> list[dict[str, Any]]:
    return [one for day in days(settings, kind) for one in lines(settings, kind, day)]


@pytest.fixture(scope="module")
def clicks(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, dict[str, Any]]:
    root = tmp_path_factory.mktemp("clicks")
    chosen = settings_of(root, write(root, [*FIRST, *SECOND, *BAD, *ELSEWHERE]))
    return chosen, dict(ingest(spark, chosen))


def test_every_row_is_an_event_or_counted_as_of_another_day(
    clicks: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, counts = clicks
    assert days(chosen, "events") == ["2026-03-07", "2026-03-08"]
    assert counts == {
        "rows": 9 + 2 + 7 + 2,
        "days": 2,
        "rows_read": 9 + 2 + 7,
        "rows_outside_days": 2,
        "first_clicks_on_an_item": 6 + 1,
        "candidates": 2,
        "clicks": 1,
        "drawn_candidates": 1,
        "not_to_be_drawn": 0,
    }
    assert Counter(one.get("event_type") for one in all_lines(chosen)) == {
        "impression": 2,
        "click": 7 + 2 + 3,
        "purchase": 1,
        "cart": 1,
        "look": 1,
        None: 1,
        "malformed": 2,
    }


def test_times_are_read_in_each_of_their_forms_and_kept_where_they_are_none(
    clicks: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = clicks
    times = [(one.get("item_id"), one["event_time"]) for one in all_lines(chosen)]
    for expected in (
        ("i1", "2026-03-07T10:00:00.000Z"),
        ("i2", "2026-03-07T10:00:05.000Z"),
        ("i1", "2026-03-07T22:59:59.000Z"),
        ("i3", "2026-03-07T22:59:59.000Z"),
        ("i2", "2026-03-08T00:00:10.250Z"),
        ("i1", "soon"),
    ):
        assert expected in times


def test_the_same_row_again_has_the_same_id_and_other_columns_are_the_context(
    clicks: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = clicks
    first = lines(chosen, "events", "2026-03-07")
    ids = Counter(one["event_id"] for one in first)
    assert [number for number in ids.values() if number > 1] == [2]
    assert ids["u1-2026-03-07T10:00:05.000Z-i2-click"] == 2
    assert [one["context"] for one in first if one.get("user_id") == "u2"] == [
        {"device": "desktop"}
    ] * 2
    broken = [one for one in all_lines(chosen) if one.get("event_type") == "malformed"]
    assert {one["context"]["malformed"] for one in broken} == {BAD[-1], BAD[-2]}


def test_a_click_on_a_known_item_is_a_candidate_next_to_a_drawn_one(
    clicks: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = clicks
    day = lines(chosen, "events", "2026-03-08")
    page = [one for one in day if one.get("request_id") == "u2-1772928010"]
    found = {(one["event_type"], one["item_id"]): one["event_time"] for one in page}
    # What this user chose before or chooses now, i1, i2 and i3, is never drawn.
    assert found == {
        ("impression", "i2"): "2026-03-08T00:00:10.000Z",
        ("impression", "i4"): "2026-03-08T00:00:10.000Z",
        ("click", "i2"): "2026-03-08T00:00:10.250Z",
    }
    assert not [one for one in day if one.get("event_type") == "impression" and one not in page]


def test_a_morning_knows_what_the_days_before_said_of_items(
    clicks: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = clicks
    assert lines(chosen, "items", "2026-03-07") == []
    assert lines(chosen, "items", "2026-03-08") == [
        {"item_id": "i1", "category": "bag", "price": 5.0, "title": "red bag"},
        {"item_id": "i2", "category": "bag", "title": "blue bag"},
        {"item_id": "i3", "category": "jar", "price": 2.0, "title": "jam jar"},
        {"item_id": "i4", "category": "jar", "price": 1.0, "title": "jar"},
    ]


def test_a_gzipped_folder_in_another_order_gives_the_same_bytes(
    spark: SparkSession, clicks: tuple[Settings, dict[str, Any]], tmp_path: Path
) -> None:
    chosen, _ = clicks
    folder = tmp_path / "files"
    folder.mkdir()
    write(folder, [*ELSEWHERE, *BAD, *SECOND], name="a.csv.gz")
    write(folder, list(reversed(FIRST)), name="b.csv.gz")
    other = settings_of(tmp_path, folder)
    ingest(spark, other)
    assert contents(other) == contents(chosen)


def test_three_columns_are_enough_and_then_every_row_is_a_click(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = ["2026-03-07 10:00,i1,u1", "2026-03-07 11:00,i2,u1", "2026-03-08 10:00,i1,u2"]
    file = write(tmp_path, rows, "time,item_id,user_id")
    chosen = settings_of(tmp_path, file, first_day=None)
    counts = ingest(spark, chosen)
    assert (counts["rows_read"], counts["candidates"], counts["clicks"]) == (3, 2, 1)
    assert Counter(one["event_type"] for one in all_lines(chosen)) == {"click": 3, "impression": 2}
    assert not [one for one in all_lines(chosen) if "context" in one]
    assert lines(chosen, "items", "2026-03-08") == [{"item_id": "i1"}, {"item_id": "i2"}]


def test_impressions_of_the_file_are_the_candidates_where_none_are_drawn(
    spark: SparkSession, tmp_path: Path
) -> None:
    header = "user_id,item_id,time,event_type,request_id"
    rows = [
        "u1,i1,2026-03-08T10:00:00.125Z,impression,r1",
        "u1,i2,2026-03-08T10:00:00.125Z,impression,r1",
        "u1,i2,2026-03-08T10:00:07Z,click,r1",
        "u1,i2,2026-03-08T10:01:00Z,purchase,",
    ]
    chosen = settings_of(tmp_path, write(tmp_path, rows, header), negatives=0)
    assert ingest(spark, chosen) == {
        "rows": 4, "days": 1, "rows_read": 4, "rows_outside_days": 0
    }  # fmt: skip
    found = [(o["event_type"], o["event_time"], o.get("request_id")) for o in all_lines(chosen)]
    assert found == [
        ("impression", "2026-03-08T10:00:00.125Z", "r1"),
        ("impression", "2026-03-08T10:00:00.125Z", "r1"),
        ("click", "2026-03-08T10:00:07.000Z", "r1"),
        ("purchase", "2026-03-08T10:01:00.000Z", None),
    ]
    assert chosen.model_copy(
        update={"logs": chosen.logs.model_copy(update={"made_by": "ingest"})}
    ).candidates_from == "logged"  # fmt: skip


SHORT = "user_id,item_id,time,event_type"


@pytest.mark.parametrize(
    ("header", "rows", "negatives", "message"),
    [
        (
            "user,item_id,timestamp",
            [],
            1,
            r"/clicks\.csv: .* but user_id, time are not there, only user, item_id, t",
        ),
        ("user_id,item_id,time,time", [], 1, r"each once .* got 'time'"),
        ("user_id,item_id,time,malformed", [], 1, r"got 'malformed'"),
        (SHORT, ["u,i,03/08/2026 10:00,click"], 1, r"got '03/08/2026 10:00' and no row with a"),
        (SHORT, ["u,i,2026-03-08T10:00Z,view"], 1, r"event_type is click, got none"),
        (
            SHORT,
            ["u,i,2026-03-08T10:00Z,click", "u,i,2026-03-08T10:00Z,impression"],
            4,
            r"has 1 impressions, .* expected ingest\.negatives 0, got 4",
        ),
        (SHORT, ["u,i,2026-03-08T10:00Z,click"], 0, r"event_type is impression, as"),
        (SHORT, ["u,i,2026-03-09T10:00Z,click"], 1, r"from 2026-03-09 to 2026-03-09;"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(
    spark: SparkSession, tmp_path: Path, header: str, rows: list[str], negatives: int, message: str
) -> None:
    chosen = settings_of(tmp_path, write(tmp_path, rows, header), negatives=negatives)
    with pytest.raises(DataRefused, match=message):
        ingest(spark, chosen)
    assert not (tmp_path / "raw").exists()


def test_files_that_are_not_there_or_do_not_fit_together_are_named(
    spark: SparkSession, tmp_path: Path
) -> None:
    with pytest.raises(NotPublished, match=r"expected a CSV file, or a folder of them, got none"):
        ingest(spark, settings_of(tmp_path, None))
    with pytest.raises(NotPublished, match=r"nowhere\.csv, where there is none"):
        ingest(spark, settings_of(tmp_path, tmp_path / "nowhere.csv"))
    folder = tmp_path / "files"
    folder.mkdir()
    write(folder, [], name="a.csv")
    write(folder, [], "user_id,item_id,time", name="b.csv")
    with pytest.raises(DataRefused, match=r"b\.csv: expected the first line of .*a\.csv"):
        ingest(spark, settings_of(tmp_path, folder))
