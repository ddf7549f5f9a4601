"""Online Retail as raw logs: a year of a British wholesaler's invoices, one file for each day.

Published as Online Retail (Chen, 2015) by the UCI Machine Learning Repository,
https://doi.org/10.24432/C5BW33, as one spreadsheet. This module reads a folder of YYYY-MM-DD.csv or
YYYY-MM-DD.csv.gz, each with the rows of its day and the header InvoiceNo, StockCode, Description,
Quantity, InvoiceDate (YYYY-MM-DD HH:MM:SS, in `logs.time_zone`, which is Europe/London),
UnitPrice, CustomerID, Country. `scripts/split_online_retail.py` splits a CSV of all rows into such
files.

**Every row becomes an event**, in the folder of its file; validation finds rows with missing or
invalid fields. A sale is a `purchase`. Three other types are unknown to validation: an invoice that
begins with C is a `cancellation`, a quantity not above 0 an `adjustment`, and a row with too many
or too few columns is `malformed`. A row without customer has no user_id. A product code is five
digits and up to two letters (capitalized: 15056bl becomes 15056BL). Postage, fees, vouchers and the
like have no item_id; their code is in `context`, with the row's other fields. An invalid time is
kept as written.

**Candidates.** A purchase is also a candidate with a click, at the same moment: see
`mfn.sources.choices`. All purchases of a customer in one minute, usually an invoice, are a request.
Rows of the same product in it are one choice; their events have the same id, so validation counts
repeats. An item that nobody bought on an earlier day gets its event, but is no candidate: sampled
negatives always have earlier purchases, so a model could recognize a click by that difference. So
the first day has no candidates.

**Snapshots** of items come from sales with a price above 0, those of users from all rows; they
contain nothing of their own day. The description is the title, its head noun the category, and its
words are the entities (`mfn.logs.title_words`). The price is that of the latest sale. Profiles
hold the country.

A day without a file, between the first and the last day, gets an empty folder: the shop is closed
on Saturdays. Each run writes all days up to the run date, with the same bytes each time; more files
may arrive between runs.

Two shuffles in addition to those of `mfn.sources.choices`: by choice, to count its rows, and by
item for `choices.known`.
"""

from __future__ import annotations

import datetime
import re

import fsspec
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.errors import DataRefused, NotPublished
from mfn.locations import for_spark
from mfn.logs import raw
from mfn.logs.outcomes import parse_time
from mfn.logs.raw import DAY
from mfn.logs.title_words import stop_words, words
from mfn.settings import Settings
from mfn.sources import choices
from mfn.sources.head_noun import head_noun
from mfn.windows import days_between

COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
PRODUCT = r"^\d{5}[A-Z]{0,2}$"
SALE, CANCELLATION, ADJUSTMENT, MALFORMED = "purchase", "cancellation", "adjustment", "malformed"
FETCH = "see docs/data-sets.md for how to get them"

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.csv(\.gz)?")
_BROKEN = "broken"


def online_retail(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """Write the raw logs of all days from `ingest.first_day` to the run date.

    Raises:
        NotPublished: `ingest.path` is not given, or has no files of days.
        DataRefused: no file is of these days, two are of the same day, or one has another header.
    """
    files = _files(settings)
    first, last = choices.span(settings, min(files), max(files))
    days, ingest = days_between((first, last)), settings.ingest
    read = _read(spark, {day: files[day] for day in days if day in files})
    rows = lines(read, settings.logs.time_zone, settings.logs.day_time_zone).persist()
    try:
        bought = choices.known(purchases(rows)).persist()
        shown = choices.candidates(bought, ingest.negatives, ingest.seed, "known").persist()
        log = choices.events(shown, ingest.seed).unionByName(events(rows), allowMissingColumns=True)
        log = choices.by_day(log, "event_time", "event_id")
        raw.write_days(log, settings.logs_folder("events"), days)
        items = choices.snapshots(
            catalogue(rows, stop_words()),
            "item_id",
            ("category", "price", "title", "entities"),
            last,
        )
        raw.write_days(choices.by_day(items, "item_id"), settings.logs_folder("items"), days)
        users = choices.snapshots(profiles(rows), "user_id", ("profile",), last)
        raw.write_days(choices.by_day(users, "user_id"), settings.logs_folder("users"), days)
        counted = choices.counts(shown, ingest.negatives)
        kinds = {
            row["event_type"]: row["count"] for row in rows.groupBy("event_type").count().collect()
        }
        found = bought.agg(F.sum("lines") - F.count("*"), F.count_if(~F.col("known"))).first()
        assert found is not None
        shown.unpersist()
        bought.unpersist()
    finally:
        rows.unpersist()
    read_rows = sum(kinds.values())
    return {
        "rows": read_rows + counted["candidates"] + counted["clicks"],
        "days": len(days),
        "rows_read": read_rows,
        **{f"rows_{kind}": kinds[kind] for kind in sorted(kinds)},
        "repeated_rows": found[0] or 0,
        "first_purchases_of_an_item": found[1],
        **counted,
    }


def lines(rows: DataFrame, time_zone: str, day_time_zone: str) -> DataFrame:
    """Parse rows.

    Args:
        rows: COLUMNS, `dt` and the line of a malformed row, as `_read` gives them.
        time_zone: of InvoiceDate.
        day_time_zone: in which days begin.

    Returns:
        dt, user_id, item_id (null if the code is not a product), moment (seconds since 1970; null
        if the time is invalid or on another day), event_type, quantity and price (null if they are
        not numbers), title, country, context; and time, invoice, code as text.
    """
    code = F.upper(F.trim("StockCode"))
    quantity, price = (F.col(name).try_cast("double") for name in ("Quantity", "UnitPrice"))
    time = parse_time(F.col("InvoiceDate"), time_zone)
    in_day = F.to_date(F.from_utc_timestamp(time, day_time_zone)) == F.col(DAY)
    kind = (
        F.when(F.col(_BROKEN).isNotNull(), MALFORMED)
        .when(F.upper(F.col("InvoiceNo")).startswith("C"), CANCELLATION)
        .when(quantity > 0, SALE)
        .otherwise(ADJUSTMENT)
    )
    return rows.select(
        DAY,
        choices.non_empty(F.regexp_replace(F.trim("CustomerID"), r"\.0+$", "")).alias("user_id"),
        F.when(code.rlike(PRODUCT), code).alias("item_id"),
        F.when(in_day, F.unix_seconds(time)).alias("moment"),
        kind.alias("event_type"),
        quantity.alias("quantity"),
        price.alias("price"),
        choices.non_empty(F.trim(F.regexp_replace("Description", r"\s+", " "))).alias("title"),
        choices.non_empty(F.trim("Country")).alias("country"),
        F.col("InvoiceDate").alias("time"),
        F.col("InvoiceNo").alias("invoice"),
        F.col("StockCode").alias("code"),
        F.struct(
            F.col("InvoiceNo").alias("invoice"),
            F.col("StockCode").alias("code"),
            F.col("Description").alias("description"),
            F.col("Quantity").alias("quantity"),
            F.col("UnitPrice").alias("unit_price"),
            F.col("Country").alias("country"),
            F.col(_BROKEN).alias("line"),
        ).alias("context"),
    )


def is_purchase() -> Column:
    """Whether a row is a purchase that validation will accept."""
    return (F.col("event_type") == SALE) & choices.all_present("user_id", "item_id", "moment")


def purchases(rows: DataFrame) -> DataFrame:
    """Choices: `choices.REQUEST`, `clicked`, and `lines`, the number of rows of each choice."""
    return (
        rows.where(is_purchase())
        .groupBy(*choices.REQUEST)
        .agg(F.count("*").alias("lines"))
        .select(*choices.REQUEST, F.lit(True).alias("clicked"), "lines")
    )


def events(rows: DataFrame) -> DataFrame:
    """An event for each row, good or bad: `dt` and RAW_EVENT's columns except the position."""
    kind, good = F.col("event_type"), is_purchase()
    bad_id = F.concat_ws("-", "invoice", "code", kind)
    has_time = F.col("moment").isNotNull()
    return rows.select(
        DAY,
        F.when(good, choices.event_id(kind)).otherwise(bad_id).alias("event_id"),
        F.when(has_time, choices.event_time(kind)).otherwise(F.col("time")).alias("event_time"),
        "user_id",
        "event_type",
        "item_id",
        F.when(good, choices.request_id()).alias("request_id"),
        "context",
    )


def catalogue(rows: DataFrame, stop_words: list[str]) -> DataFrame:
    """Item facts from sales: `dt`, `moment`, and the columns of RAW_ITEM that the data have."""
    sales = rows.where(
        (F.col("event_type") == SALE)
        & (F.col("price") > 0)
        & F.col("item_id").isNotNull()
        & F.col("title").isNotNull()
    )
    return sales.select(
        DAY,
        "moment",
        "item_id",
        head_noun(F.col("title")).alias("category"),
        "price",
        "title",
        F.array_distinct(words(F.col("title"), stop_words)).alias("entities"),
    )


def profiles(rows: DataFrame) -> DataFrame:
    """User facts from rows: `dt`, `moment`, and RAW_USER's columns."""
    with_country = rows.where(F.col("user_id").isNotNull() & F.col("country").isNotNull())
    return with_country.select(DAY, "moment", "user_id", F.struct("country").alias("profile"))


def _files(settings: Settings) -> dict[datetime.date, str]:
    """Paths of the folder's files, by day."""
    folder = settings.ingest.path
    if folder is None:
        raise NotPublished(
            f"ingest.path: expected the folder of Online Retail's files, got none; {FETCH}"
        )
    files, path = fsspec.url_to_fs(folder)
    listed = sorted(files.ls(path, detail=False)) if files.exists(path) else []
    found: dict[datetime.date, str] = {}
    for name in (one.rstrip("/").rpartition("/")[2] for one in listed):
        match = _FILE.fullmatch(name)
        if match is None:
            continue
        day = datetime.date.fromisoformat(match[1])
        if day in found:
            raise DataRefused(
                f"{folder}: expected one file of {day}, got {found[day].rpartition('/')[2]} and "
                f"{name}; remove one of them"
            )
        found[day] = f"{folder}/{name}"
    if not found:
        raise NotPublished(
            f"ingest.path: expected files YYYY-MM-DD.csv or YYYY-MM-DD.csv.gz in {folder}, got "
            f"none; {FETCH}"
        )
    return found


def _read(spark: SparkSession, files: dict[datetime.date, str]) -> DataFrame:
    """Every row of the files as text, the day of its file, and the whole line of malformed rows."""
    for path in files.values():
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer") as file:
            header = file.readline().strip()
        if header != ",".join(COLUMNS):
            raise DataRefused(
                f"{path}: expected the first line {','.join(COLUMNS)}, got {header!r}; {FETCH}"
            )
    schema = ", ".join(f"`{name}` string" for name in (*COLUMNS, _BROKEN))
    rows = spark.read.csv(
        [for_spark(file) for file in files.values()],
        schema=schema,
        header=True,
        quote='"',
        escape='"',
        columnNameOfCorruptRecord=_BROKEN,
    )
    day = F.to_date(F.substring(F.col("_metadata.file_name"), 1, 10))
    return rows.select(day.alias(DAY), *COLUMNS, _BROKEN)
