"""The report and the terminal's summary show the numbers of the tables; the page is one file."""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from mfn import errors, job, metrics, storage, tables
from mfn.evaluation.comparison import Measured, compare
from mfn.reporting.day import Day, Result, Training, read_day
from mfn.reporting.report import render, report
from mfn.reporting.summary import print_summary, read_summary, summarize
from mfn.schema import COMPARISONS, METRICS, VALIDATION
from mfn.settings import Settings

DAY = datetime.date(2026, 3, 8)
DAY_BEFORE, DAY_AFTER = datetime.date(2026, 3, 7), datetime.date(2026, 3, 9)
AUCS = {"base": 0.58124, "mfn": 0.66208, "popularity": 0.57, "oracle": 0.79512}
BUCKETS = {"0": 10, "1-9": 100, "10-49": 2000, "50+": 3000}
OF_SPLIT = {"rows": 2050, "requests": 2000, "candidates": 20000, "clicks": 1600}
MANIFEST = {
    "date": "2026-03-08",
    "windows": {
        "history": None,
        "pretraining": ["2026-03-01", "2026-03-03"],
        "pretraining_validation": ["2026-03-04", "2026-03-04"],
        "train": ["2026-03-05", "2026-03-07"],
        "test": ["2026-03-08", "2026-03-08"],
    },
    "splits": {
        "pretraining": {**OF_SPLIT, "empty_histories": 700},
        "pretraining_validation": {**OF_SPLIT, "empty_histories": 600},
        "train": {**OF_SPLIT, "candidates": 60123, "empty_histories": 500},
        "test": {**OF_SPLIT, "empty_histories": 410, "unlisted_candidates": 1200},
    },
    "item_fields": ["item_id", "category", "entity"],
    "constant_fields": ["shop", "brand"],
    "user_fields": ["age"],
    "context_fields": [],
    "test_users": 1000,
    "test_users_in_training": 617,
    "immature_requests": 43,
}

OF_CENTERS = {
    "interests": 32,
    "converged": True,
    "steps": 210,
    "empty": 1,
    "duplicates": 2,
    "purity_adjacent": 0.4321,
    "purity_far": 0.3987,
    "purity_strangers": 0.0333,
    "interests_of_user": 6.54,
    "norm": 1.0,
    "largest_share": 0.3651,
}
CENTERS = {
    "fine.32.batch.1": {**OF_CENTERS, "level": "fine", "marginal": "batch", "held_norm": 1.0},
    "fine.32.user.free": {
        **OF_CENTERS,
        "level": "fine",
        "marginal": "user",
        "held_norm": None,
        "converged": False,
        "purity_far": None,
    },
    "fine.8": {"L_E": -0.1},
}
"""As in the manifest of the centers; the last is as an older version wrote it."""

Make = Callable[..., Settings]


def measured(
    date: datetime.date,
    model: str,
    auc: float | None,
    logloss: float | None = 0.3,
    *,
    clicks: int,
    candidates: int,
    bucket: str | None = None,
    origin: str | None = None,
) -> Measured:
    return Measured(
        run_date=date,
        model=model,
        slice="history_length" if bucket else "all",
        slice_value=bucket or "all",
        requests=candidates // 10,
        candidates=candidates,
        clicks=clicks,
        values={"auc": auc, "logloss": logloss},
        candidates_from=origin,
    )


def metrics_of(
    date: datetime.date,
    aucs: dict[str, float],
    buckets: dict[str, int] = BUCKETS,
    origin: str | None = "logged",
) -> list[Measured]:
    whole = [
        measured(
            date,
            model,
            auc,
            None if model == "popularity" else auc / 2,
            clicks=408,
            candidates=5110,
            origin=origin,
        )
        for model, auc in aucs.items()
    ]
    return whole + [
        measured(date, model, None, clicks=0, candidates=size, bucket=bucket)
        if size < 50
        else measured(date, model, auc - 0.02, clicks=8, candidates=size, bucket=bucket)
        for model, auc in aucs.items()
        for bucket, size in buckets.items()
    ]


def write_day(spark: SparkSession, settings: Settings) -> None:
    """Write tables, splits and a model of DAY; and tables of an earlier, a later and an old day."""
    metrics = [
        *metrics_of(DAY, AUCS),
        *metrics_of(DAY_BEFORE, {"base": 0.58, "mfn": 0.62}),
        *metrics_of(DAY_AFTER, {"base": 0.9, "mfn": 0.95, "new": 0.99}),
        *metrics_of(DAY - datetime.timedelta(days=30), {"base": 0.7, "mfn": 0.71}),
    ]
    where: dict[str, Sequence[Any]] = {"run_date": sorted({one.run_date for one in metrics})}
    of_metrics = [one.as_row() for one in metrics]
    of_comparisons = [asdict(one) for one in compare(metrics, "base")]
    for table, rows in ((METRICS, of_metrics), (COMPARISONS, of_comparisons)):
        frame = spark.createDataFrame(rows, table.columns).coalesce(1)
        tables.replace(frame, settings.root, table, where)
    outcomes = [
        (DAY_BEFORE, "events", "clean", 5000, "drawn", None),
        (DAY, "events", "clean", 7000, "drawn", None),
        (DAY, "events", "missing_user_id", 31, "drawn", None),
        (DAY, "items", "clean", 400, "drawn", None),
        (DAY, "items", "unreadable_value", 12, "drawn", "price"),
        (datetime.date(2026, 2, 1), "events", "clean", 999_999, "drawn", None),
    ]
    frame = spark.createDataFrame(outcomes, VALIDATION.columns).coalesce(1)
    tables.append(frame, settings.root, VALIDATION)
    with storage.publish(f"{settings.root}/splits/{DAY}") as folder:
        storage.write_json(f"{folder}/{storage.MANIFEST}", MANIFEST)
    with storage.publish(f"{settings.root}/models/{DAY}/mfn") as folder:
        train = {
            "seconds": 61.25,
            "candidates_per_second": 12345.6,
            "wait_share": 0.031,
            "communication_share": 0.127,
            "loss": 0.3219,
        }
        asked = {"similarity_interests": 32, "centers_marginal": "batch", "centers_norm": 1.0}
        model = {
            "name": "mfn",
            "settings": {"extractor": "mfn", **asked},
            "parameters": 98765,
            "measures": {
                "fine/centers_norm": 1.234,
                "fine/centers_largest_share": 0.616,
                "fine/centers_moved": 0.777,
                "category/combination": 1.0,
            },
        }
        storage.write_json(f"{folder}/model.json", {**model, "train": train})
    with storage.publish(settings.layout.embeddings) as folder:
        measures = {
            "covered": {"item_id": 0.911, "category": 1.0},
            "start_correlation": {"table": {"item_id": 0.12, "category": 0.34}, "E": {}},
            "next_behaviour_auc": {"category": 0.6123, "fine": None},
            "next_behaviour_users": 1234,
        }
        storage.write_json(f"{folder}/{storage.MANIFEST}", {"measures": measures})
    with storage.publish(settings.layout.centers) as folder:
        manifest = {"centers": CENTERS, "sampled_users": 2500, "users": 4321}
        storage.write_json(f"{folder}/{storage.MANIFEST}", manifest)


class Page(HTMLParser):
    """Cells of the table rows, all text, and every attribute that could load another file."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text = ""
        self.links: list[tuple[str, str]] = []
        self.scripts = 0
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag in ("script", "iframe", "object", "embed")
        for name, value in attrs:
            if name.split(":")[-1] in ("src", "href", "srcset", "data", "action", "poster"):
                self.links.append((tag, value or ""))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        """Cells of the first row whose first cell starts with `first`, without that cell."""
        return next([c.strip() for c in row[1:]] for row in self.rows if row[0].startswith(first))


@pytest.fixture(scope="module")
def settings(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(root=str(tmp_path_factory.mktemp("day")), date=DAY)
    write_day(spark, settings)
    return settings


@pytest.fixture(scope="module")
def html(spark: SparkSession, settings: Settings) -> str:
    counts = report(spark, settings)
    assert counts["path"] == settings.layout.report == f"{settings.root}/reports/2026-03-08.html"
    assert (counts["models"], counts["days"]) == (2, 2)
    return Path(settings.layout.report).read_text(encoding="utf-8")


def test_the_report_shows_the_numbers_of_each_model(html: str) -> None:
    page = Page(html)
    assert page.row("base") == ["0.5812", "0.2906", "0.00 %", "–", "–"]
    assert page.row("mfn") == ["0.6621", "0.3310", "+99.51 %", "61.2", "12,346"]
    assert page.row("popularity") == ["0.5700", "–", "-13.84 %", "–", "–"]
    assert page.row("oracle") == ["0.7951", "0.3976", "+263.27 %", "–", "–"]
    trained = [row for row in page.rows if row[0] == "mfn" and len(row) == 8]
    assert trained == [["mfn", "mfn", "98,765", "61.2", "12,346", "3.1 %", "12.7 %", "0.3219"]]
    # Above chance: (.66208 - .5) / (.79512 - .5).
    assert "the best model covers 54.9 % of the way from chance" in page.text


def test_the_report_shows_each_slice_and_a_dash_for_an_undefined_auc(html: str) -> None:
    page = Page(html)
    assert page.row("behaviours in the history") == ["0", "1-9", "10-49", "50+"]
    assert page.row("candidates") == ["10", "100", "2,000", "3,000"]
    of_mfn = [row for row in page.rows if row[0] == "mfn" and len(row) == 5]
    assert of_mfn == [["mfn", "–", "0.6421", "0.6421", "0.6421"]]


def test_the_report_shows_the_data_of_the_day(html: str) -> None:
    page = Page(html)
    assert page.row("training") == [
        "5 – 7 March 2026",
        "2,000",
        "60,123",
        "1,600",
        "2.7 %",
        "24.4 %",
    ]
    assert page.row("test") == ["8 March 2026", "2,000", "20,000", "1,600", "8.0 %", "20.0 %"]
    # Without the rows of days outside the windows.
    assert page.row("clean") == ["events", "7,000", "12,000"]
    assert page.row("quarantined: missing user id") == ["events", "31", "31"]
    assert page.row("values of price: unreadable value") == ["items", "12", "12"]
    for fact in ("617 of 1,000 (61.7 %)", "410 of 2,050 (20.0 %)", "43", "shop, brand", "age"):
        assert fact in page.text


def test_the_report_shows_what_the_embedding_and_the_centers_are_worth(html: str) -> None:
    page = Page(html)
    text = " ".join(page.text.split())
    assert "61.2 % of cases at the category level and in – of cases at the fine level" in text
    assert "(1,234 users)" in text
    assert page.row("item_id") == ["91.1 %", "0.12"]
    of_centers = [row for row in page.rows if row[0].startswith("fine")]
    values = ["32", "43.2 %", "39.9 %", "3.3 %", "6.5", "29", "0.37", "210"]
    assert of_centers == [
        ["fine", *values],
        ["fineq for each user, free length, not converged", *values[:2], "–", *values[3:]],
    ]
    assert "Learnt from 2,500 of 4,321 users." in text
    tuned = [row for row in page.rows if row[0] == "mfn" and row[1] == "fine"]
    assert tuned == [["mfn", "fine", "0.78", "1.00", "1.23", "0.37", "0.62"]]


def test_the_report_loads_no_other_file(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert page.scripts == 0
    assert page.links == [("link", "data:,")]
    assert not re.search(r"@import|url\((?!#)", html)
    assert "http" not in html


def test_charts_show_each_model_and_ids_on_the_page_are_unique(html: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(plots) == 6  # by model, by history and by day; each one wide and narrow
    for plot in plots:
        assert set(re.findall(r"model: (\w+)", plot)) >= {"base", "mfn"}
    assert "oracle 0.7951" in plots[0]
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)


def test_the_page_shows_and_explains_every_metric(html: str) -> None:
    page = Page(html)
    text = " ".join(page.text.split())
    for metric in metrics.METRICS:
        assert f"<th>{metric.title}</th>" in html
        assert metric.explanation in text


def test_the_same_day_gives_the_same_page(
    spark: SparkSession, settings: Settings, html: str
) -> None:
    assert render(read_day(spark, settings)) == html


def test_a_day_without_oracle_popularity_and_previous_days_has_a_page() -> None:
    metrics = metrics_of(DAY, {"base": 0.5}, {"1+": 100})
    page = Page(
        render(
            Day(
                date=DAY,
                base_model="base",
                results=(Result(metrics[0], None, Training()),),
                slices=tuple(metrics[1:]),
                past=tuple(compare(metrics[:1], "base")),
                manifest={},
                outcomes=(),
            )
        )
    )
    assert page.row("base") == ["0.5000", "0.2500", "–", "–", "–"]
    assert "oracle" not in page.text.lower()
    assert "popularity" not in page.text.lower()
    assert "Over the days" not in page.text
    assert "What the embedding and the centers are worth" not in page.text


def test_a_page_is_made_again_only_where_something_on_it_may_have_changed(
    spark: SparkSession, settings: Settings
) -> None:
    def again(chosen: Settings = settings) -> bool:
        return job.run(report, spark, chosen).outcome == "done"

    again()
    assert not again()
    for date in (DAY, DAY_BEFORE):  # the page shows both
        evaluated = settings.model_copy(update={"date": date}).layout.record("evaluate")
        storage.replace_json(evaluated, {"fingerprint": "of a later run", "at": "", "counts": {}})
        assert again()
    with storage.publish(settings.layout.model("base")) as folder:
        storage.write_json(f"{folder}/{storage.MODEL}", {})
    assert again()
    for published in (settings.layout.embeddings, settings.layout.centers):
        with storage.publish(published) as folder:
            storage.write_json(f"{folder}/{storage.MANIFEST}", {})
        assert again()
    assert again(settings.model_copy(update={"models": dict(reversed(settings.models.items()))}))
    assert again()
    assert not again()


@pytest.mark.parametrize(
    ("origin", "popularity"), [("drawn by popularity", 0.67), ("logged", 0.66)]
)
def test_a_page_says_whether_candidates_were_drawn_and_popularity_is_as_good_as_the_best_model(
    origin: str, popularity: float
) -> None:
    aucs = {"base": 0.6, "mfn": 0.665, "popularity": popularity}
    metrics = metrics_of(DAY, aucs, {}, origin)
    results = tuple(Result(one, None, Training()) for one in metrics)
    day = Day(DAY, "base", results, (), tuple(compare(metrics, "base")), {}, ())
    text = " ".join(Page(render(day)).text.split())
    drawn = origin != "logged"
    assert ("Candidates were drawn by popularity" in text) == drawn
    assert ("ranks them as well or better" in text) == drawn
    assert "mfn ranks the day’s candidates best" in text
    assert f"candidates{origin}" in text
    assert ("candidates", origin) in summarize(day).facts


@pytest.mark.parametrize("auc", [None, 0.45], ids=["one label", "below chance"])
def test_a_page_shows_no_gain_where_relaimpr_is_undefined(auc: float | None) -> None:
    metrics = [
        measured(DAY, model, auc, clicks=0 if auc is None else 9, candidates=50)
        for model in ("base", "mfn")
    ]
    results = tuple(Result(one, None, Training()) for one in metrics)
    page = Page(render(Day(DAY, "base", results, (), tuple(compare(metrics, "base")), {}, ())))
    assert page.row("mfn")[0] == ("–" if auc is None else "0.4500")
    assert "further above chance than that of the base model" not in " ".join(page.text.split())


def test_a_day_without_metrics_or_splits_is_refused_and_has_no_page(
    spark: SparkSession, settings: Settings, html: str
) -> None:
    without_splits = settings.model_copy(update={"date": DAY_AFTER})
    without_tables = settings.model_copy(update={"date": datetime.date(2026, 3, 10)})
    with pytest.raises(errors.NotPublished, match=r"splits/2026-03-09.*jobs/build_splits"):
        report(spark, without_splits)
    with pytest.raises(errors.NotPublished, match=r"no rows for 2026-03-10.*jobs/evaluate"):
        report(spark, without_tables)
    made = {one.name for one in Path(settings.root, "reports").iterdir()}
    assert made == {"2026-03-08.html", "2026-03-08.json"}


def test_the_page_shows_neither_later_days_nor_days_before_report_days(
    spark: SparkSession, settings: Settings
) -> None:
    def days(report_days: int) -> set[datetime.date]:
        chosen = settings.evaluate.model_copy(update={"report_days": report_days})
        day = read_day(spark, settings.model_copy(update={"evaluate": chosen}))
        assert [one.metric.auc for one in day.results] == list(AUCS.values())
        return {one.run_date for one in day.past}

    assert days(1) == {DAY}
    assert days(30) == {DAY_BEFORE, DAY}
    assert days(31) == {DAY - datetime.timedelta(days=30), DAY_BEFORE, DAY}


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    page = tmp_path / "reports" / "page.html"
    storage.write_whole(str(page), "before, with ä")
    with page.open(encoding="utf-8") as reader:
        storage.write_whole(str(page), "now, with ö")
        assert reader.read() == "before, with ä"
    unencodable = "\ud800"
    with pytest.raises(UnicodeEncodeError):
        storage.write_whole(str(page), unencodable)
    assert page.read_text(encoding="utf-8") == "now, with ö"
    assert [one.name for one in page.parent.iterdir()] == ["page.html"]


def test_the_terminal_shows_the_same_numbers_as_the_report(
    spark: SparkSession, settings: Settings
) -> None:
    report(spark, settings)
    found = read_summary(settings)
    assert found == summarize(read_day(spark, settings))
    assert [(row.model, row.is_model) for row in found.rows] == [
        ("base", True),
        ("mfn", True),
        ("popularity", False),
        ("oracle", False),
    ]
    mfn = found.rows[1]
    assert (mfn.values, mfn.seconds) == ({"auc": 0.66208, "logloss": 0.33104}, 61.25)
    assert mfn.relaimpr == pytest.approx(99.507, abs=1e-3)
    written = io.StringIO()
    path = f"/a/long/path/{'x' * 120}/2026-03-08.html"
    print_summary(found, Console(file=written, width=80), path)
    lines = written.getvalue().splitlines()
    (headers,) = [re.findall(r"[^┃]+", line) for line in lines if line.startswith("┃")]
    shown = [one.strip() for one in headers]
    assert shown == ["model", *(one.title for one in metrics.METRICS), "RelaImpr", "seconds"]
    cells = [re.findall(r"[^│\s]+", line) for line in lines if line.startswith("│")]
    assert cells == [
        ["base", "0.5812", "0.2906", "0.00", "%", "–"],
        ["mfn", "0.6621", "0.3310", "+99.51", "%", "61.2"],
        ["popularity", "0.5700", "–", "-13.84", "%", "–"],
        ["oracle", "0.7951", "0.3976", "+263.27", "%", "–"],
    ]
    assert lines[-5:] == [
        "candidates: logged",
        "test users known from training: 617 of 1,000 (61.7 %)",
        "test rows with an empty history: 410 of 2,050 (20.0 %)",
        "test candidates whose item the catalogue does not list: 1,200 of 20,000 (6.0 %)",
        f"report: {path}",
    ]


def test_models_are_in_the_order_of_the_settings_and_yardsticks_last(
    spark: SparkSession, settings: Settings
) -> None:
    reordered = settings.model_copy(update={"models": dict(reversed(settings.models.items()))})
    day = read_day(spark, reordered)
    assert [row.model for row in summarize(day).rows] == [
        "mfn",
        "base",
        "popularity",
        "oracle",
    ]
    assert [one.slice_value for one in day.slices if one.model == "mfn"] == list(BUCKETS)
