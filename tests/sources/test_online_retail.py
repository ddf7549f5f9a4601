"""Online Retail as raw logs: every row is an event; a snapshot has nothing of its own day."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn import tables
from mfn.errors import DataRefused, NotPublished
from mfn.logs.validate import validate_logs
from mfn.schema import QUARANTINE
from mfn.settings import Settings
from mfn.sources.head_noun import head_noun
from mfn.sources.ingest import ingest
from tests.conftest import SPARK
from tests.raw_days import contents, days, lines

SCRIPT = Path(__file__).parents[2] / "scripts" / "split_online_retail.py"
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
UK = "United Kingdom"
FIRST = f"""\
536365,85123A,WHITE HANGING HEART T-LIGHT HOLDER,6,2010-12-02 08:26:00,2.55,17850.0,{UK}
536365,85123a,WHITE HANGING HEART T-LIGHT HOLDER,2,2010-12-02 08:26:00,2.55,17850.0,{UK}
536365,71053,"LANTERN, ""WHITE"" METAL",6,2010-12-02 08:26:00,3.39,17850.0,{UK}
536366,22086,PAPER CHAIN KIT 50'S CHRISTMAS,1,2010-12-02 10:00:00,0.0,13047.0,{UK}
536367,21730,GLASS STAR FROSTED T-LIGHT HOLDER,6,2010-12-02 11:00:00,4.25,,{UK}
"""
THIRD = """\
536400,85123A,WHITE HANGING HEART T-LIGHT HOLDER,6,2010-12-04 08:26:00,2.95,12583.0,France
536400,22752,SET 7 BABUSHKA NESTING BOXES,2,2010-12-04 08:26:00,7.65,12583.0,France
536400,POST,POSTAGE,3,2010-12-04 08:26:00,18,12583.0,France
536401,71053,,-3,2010-12-04 09:00:00,0.0,12583.0,France
536402,71053,WHITE METAL LANTERN,1,yesterday,3.39,12583.0,France
536403,71053,WHITE METAL LANTERN,1,2010-12-05 00:01:00,3.39,12583.0,France
536404,71053,WHITE METAL LANTERN,1,,3.39,12583.0,France
536405,71053,WHITE METAL LANTERN,1,2010-12-04 09:00:00,3.39,12583.0,France,or more
C536406,71053,WHITE METAL LANTERN,-1,2010-12-04 09:00:00,3.39,12583.0,France
536407,71053,?,-40,2010-12-04 09:00:00,0.0,,France
536408,gift_0001_30,Dotcomgiftshop Gift Voucher £30.00,1,2010-12-04 09:00:00,25,12583.0,France
536409,,,1,2010-12-04 09:00:00,1,,
"""
FOURTH = """\
536500,22752,SET 7 BABUSHKA NESTING BOXES,2,2010-12-05 10:00:00,7.65,17850.0,Belgium
"""
REASONS = {
    "missing_user_id": 2,
    "missing_item_id": 2,
    "missing_event_time": 1,
    "unknown_event_type": 3,
    "bad_time": 1,
    "future_time": 1,
}
"""Reasons of the bad rows of THIRD; the other two rows are good."""


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        data = (HEADER + text).encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def settings_of(root: Path, folder: Path, date: str, **ingest: Any) -> Settings:
    return Settings(
        root=str(root),
        date=date,
        spark=SPARK,
        logs={"time_zone": "Europe/London", "day_time_zone": "Europe/London"},
        ingest={"source": "online_retail", "path": str(folder), "negatives": 2, **ingest},
        windows={"pretraining_days": 2, "training_days": 1},
        validation={"max_quarantined_share": 1.0, "reference_days": 0},
    )


@pytest.fixture(scope="module")
def shop(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, dict[str, Any]]:
    """The folder has one day after the run date, and no file of 3 December."""
    root = tmp_path_factory.mktemp("shop")
    files = {
        "2010-12-02.csv.gz": FIRST,
        "2010-12-04.csv": THIRD,
        "2010-12-05.csv.gz": FOURTH,
        "notes.txt": "",
    }
    chosen = settings_of(root, write(root / "files", files), "2010-12-04")
    return chosen, dict(ingest(spark, chosen))


def test_every_row_is_counted_and_a_day_without_a_file_gets_an_empty_folder(
    shop: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, counts = shop
    assert days(chosen, "events") == ["2010-12-02", "2010-12-03", "2010-12-04"]
    assert lines(chosen, "events", "2010-12-03") == []
    # No choice of the first day is a candidate; of the third day, only the known item.
    assert counts == {
        "rows": 17 + 3 + 1,
        "days": 3,
        "rows_read": 5 + 12,
        "rows_adjustment": 2,
        "rows_cancellation": 1,
        "rows_malformed": 1,
        "rows_purchase": 13,
        "repeated_rows": 1,
        "first_purchases_of_an_item": 3 + 1,
        "candidates": 3,
        "clicks": 1,
        "drawn_candidates": 2,
        "not_to_be_drawn": 0,
    }


def test_a_sale_is_a_purchase_and_a_clicked_candidate_with_sampled_negatives(
    shop: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = shop
    page = [one for one in lines(chosen, "events", "2010-12-04") if one.get("request_id")]
    moment = 1291451160  # 08:26 in London in winter
    assert {one["request_id"] for one in page} == {f"12583-{moment}"}
    shown = {one["item_id"]: one for one in page if one["event_type"] == "impression"}
    assert set(shown) == {"85123A", "71053", "22086"}
    assert sorted(one["position"] for one in shown.values()) == [0, 1, 2]
    others = [
        (one["event_time"], one["event_type"], one["item_id"])
        for one in page
        if one["event_type"] != "impression"
    ]
    assert others == [
        ("2010-12-04T08:26:00.001Z", "click", "85123A"),
        ("2010-12-04T08:26:00.002Z", "purchase", "22752"),
        ("2010-12-04T08:26:00.002Z", "purchase", "85123A"),
    ]
    of_first = [one["event_id"] for one in lines(chosen, "events", "2010-12-02")]
    # Two rows of the same product in an invoice get the same event id.
    assert Counter(of_first)["17850-1291278360-85123A-purchase"] == 2


def test_bad_rows_keep_their_fields(shop: tuple[Settings, dict[str, Any]]) -> None:
    chosen, _ = shop
    bad = {
        one["context"]["invoice"]: one
        for one in lines(chosen, "events", "2010-12-04")
        if "request_id" not in one
    }
    assert len(bad) == 10
    assert bad["536402"]["event_time"] == "yesterday"
    assert "event_time" not in bad["536404"]
    assert bad["536400"]["context"]["code"] == "POST"
    assert "item_id" not in bad["536400"]
    assert bad["536405"]["context"]["line"].endswith(",or more")
    assert bad["C536406"]["event_type"] == "cancellation"
    assert bad["536401"]["event_type"] == "adjustment"


def test_validation_quarantines_every_bad_row_with_its_reason(
    spark: SparkSession, shop: tuple[Settings, dict[str, Any]]
) -> None:
    chosen, _ = shop
    # The windows begin on 1 December, but the data on 2 December.
    Path(chosen.logs_folder("events"), "dt=2010-12-01").mkdir()
    Path(chosen.logs_folder("events"), "dt=2010-12-01", "_SUCCESS").touch()
    counts = validate_logs(spark, chosen)
    assert (counts["rows"], counts["clean"], counts["repeats"]) == (21, 3 + 1 + 2 + 3, 1)
    found = tables.read(spark, chosen.root, QUARANTINE, "validate_logs").collect()
    by_day = Counter((str(row["dt"]), row["reason"]) for row in found)
    assert by_day == {
        ("2010-12-02", "missing_user_id"): 1,
        **{("2010-12-04", reason): number for reason, number in REASONS.items()},
    }


def test_a_snapshot_has_the_days_before_and_nothing_of_its_own_day(
    shop: tuple[Settings, dict[str, Any]],
) -> None:
    chosen, _ = shop
    assert lines(chosen, "items", "2010-12-02") == []
    # An item sold at price 0 is left out; one sold to an unknown customer is included.
    assert lines(chosen, "items", "2010-12-03") == [
        {
            "item_id": "21730",
            "category": "holder",
            "price": 4.25,
            "title": "GLASS STAR FROSTED T-LIGHT HOLDER",
            "entities": ["glass", "star", "frosted", "light", "holder"],
        },
        {
            "item_id": "71053",
            "category": "lantern",
            "price": 3.39,
            "title": 'LANTERN, "WHITE" METAL',
            "entities": ["lantern", "white", "metal"],
        },
        {
            "item_id": "85123A",
            "category": "holder",
            "price": 2.55,
            "title": "WHITE HANGING HEART T-LIGHT HOLDER",
            "entities": ["white", "hanging", "heart", "light", "holder"],
        },
    ]
    assert lines(chosen, "items", "2010-12-04") == []
    assert lines(chosen, "users", "2010-12-02") == []
    assert lines(chosen, "users", "2010-12-03") == [
        {"user_id": "13047", "profile": {"country": UK}},
        {"user_id": "17850", "profile": {"country": UK}},
    ]


def test_another_day_does_not_change_earlier_days_and_its_snapshot_has_only_news(
    spark: SparkSession, shop: tuple[Settings, dict[str, Any]], tmp_path: Path
) -> None:
    chosen, _ = shop
    later = settings_of(tmp_path, Path(str(chosen.ingest.path)), "2010-12-31")
    assert ingest(spark, later)["days"] == 4
    before = {name: data for name, data in contents(chosen).items() if "dt=2010-12-01" not in name}
    after = contents(later)
    assert {name: after[name] for name in before} == before
    new = {(one["item_id"], one["price"]) for one in lines(later, "items", "2010-12-05")}
    # The sale of 71053 is on a bad row; 85123A costs more than on the first day.
    assert new == {("85123A", 2.95), ("22752", 7.65), ("71053", 3.39)}
    assert lines(later, "users", "2010-12-05") == [
        {"user_id": "12583", "profile": {"country": "France"}}
    ]


# Refused files.


def test_missing_duplicate_and_wrong_files_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    with pytest.raises(NotPublished, match=r"ingest\.path: expected files YYYY-MM-DD\.csv"):
        ingest(spark, settings_of(tmp_path, folder, "2010-12-04"))
    write(folder, {"2010-12-02.csv": FIRST})
    with pytest.raises(
        DataRefused,
        match=r"from 2010-12-03 .* to 2010-12-04 .* the rows are of days from 2010-12-02",
    ):
        ingest(spark, settings_of(tmp_path, folder, "2010-12-04", first_day="2010-12-03"))
    write(folder, {"2010-12-02.csv.gz": FIRST})
    with pytest.raises(DataRefused, match=r"one file of 2010-12-02, got 2010-12-02\.csv and"):
        ingest(spark, settings_of(tmp_path, folder, "2010-12-04"))
    (folder / "2010-12-02.csv").unlink()
    (folder / "2010-12-02.csv.gz").write_bytes(gzip.compress(b"InvoiceNo;StockCode\n"))
    with pytest.raises(DataRefused, match=r"2010-12-02\.csv\.gz: expected the first line Invoice"):
        ingest(spark, settings_of(tmp_path, folder, "2010-12-04"))
    assert not (tmp_path / "raw").exists()


# Categories from titles.


def test_the_category_is_the_head_noun_of_the_title(spark: SparkSession) -> None:
    nouns = {
        "RED RETROSPOT LUNCH BAGS LARGE": "bag",
        "JAM JAR WITH GREEN LID": "jar",
        "SET/5 RED RETROSPOT LID GLASS BOWLS": "bowl",
        "PACK OF 72 RETROSPOT CAKE CASES": "case",
        "SET OF 12  T-LIGHTS VINTAGE DOILEY": "t-light",
        "60 CAKE CASES VINTAGE CHRISTMAS": "case",
        "RED 3 PIECE RETROSPOT CUTLERY SET": "cutlery",
        "BOX OF 6 MINI VINTAGE CRACKERS": "cracker",
        "VINTAGE DOILIES": "doily",
        "HEART": "heart",
        "72": None,
        None: None,
    }
    frame = spark.createDataFrame([(title,) for title in nouns], "title string")
    found = frame.select("title", head_noun(F.col("title")).alias("noun")).collect()
    assert {row["title"]: row["noun"] for row in found} == nouns


# The script that splits the data set into days.


@pytest.mark.process
def test_a_csv_of_the_whole_is_cut_into_files_of_days(tmp_path: Path) -> None:
    whole = tmp_path / "data.csv"
    whole.write_text(HEADER + FIRST.replace("2010-12-02 08:26:00", "12/1/2010 8:26"))

    def split() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), str(whole), str(tmp_path / "days")],
            capture_output=True,
            text=True,
            check=False,
        )

    assert split().stdout.strip() == str(tmp_path / "days")
    found = {
        file.name: gzip.decompress(file.read_bytes()).decode()
        for file in sorted((tmp_path / "days").iterdir())
    }
    rows = FIRST.replace("2010-12-02 08:26:00", "2010-12-01 08:26:00").splitlines(keepends=True)
    assert found == {
        "2010-12-01.csv.gz": HEADER + "".join(rows[:3]),
        "2010-12-02.csv.gz": HEADER + "".join(rows[3:]),
    }
    whole.write_text(HEADER + FIRST.replace("2010-12-02 11:00:00", "soon"))
    done = split()
    assert (done.returncode, "line 6: expected an InvoiceDate" in done.stderr) == (3, True)
