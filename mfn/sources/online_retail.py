"""Online Retail as raw logs: a year of a British wholesaler's invoices, a file a day.

Published as Online Retail (Chen, 2015) by the UCI Machine Learning Repository,
https://doi.org/10.24432/C5BW33, as one spreadsheet; here as a folder of YYYY-MM-DD.csv or
YYYY-MM-DD.csv.gz, each with the rows of its day and the header InvoiceNo, StockCode, Description,
Quantity, InvoiceDate (YYYY-MM-DD HH:MM:SS, in `logs.time_zone`, which is Europe/London),
UnitPrice, CustomerID, Country. `scripts/split_online_retail.py` cuts a CSV of the whole so.

**Every row is an event**, in the folder of its file, and what it lacks validation finds: a sale is
a `purchase`; an invoice that begins with C a `cancellation` and a quantity that is not above 0 an
`adjustment`, types that are not known; a row of too many or too few columns is `malformed`. A row
without customer has no user_id. Only five digits and up to two letters are a product (in capitals:
15056bl is 15056BL); postage, fees, vouchers and the like have no item_id, but their code in
`context`, where the row's other fields stand too. A time that is none stays as it is written.

**Candidates.** A purchase is also a candidate with a click, at the same moment: see
`mfn.sources.choices`. What one customer buys in one minute is a request, mostly an invoice. Rows of
the same product in it are one choice; their events have one id, so validation counts repeats. An
item that nobody bought on an earlier day is bought, but is no candidate: nothing is known of it
yet, and by that alone it would be told from what is drawn. The first day has no candidates at all.

**Snapshots** of items come from sales with a price above 0, of users from any row, and know nothing
of their own day. The description is the title; its head noun the category, its words the
entities (`mfn.logs.words`). The price is that of the latest sale. Profiles hold the country.

A day without a file between the first and the last is an empty one: the shop is closed on
Saturdays. Days are written up to the run date, again in each run, and each time with the same
bytes; files may go on coming.

Two shuffles beside those of `mfn.sources.choices`: by choice, to count its rows, and by item for
`choices.known`.
"""

from __future__ import annotations

import datetime
import re

import fsspec
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.errors import DataRefused, NotPublished
from mfn.logs import raw
from mfn.logs.outcomes import parse_time
from mfn.logs.raw import DAY
from mfn.logs.words import stop_words, words
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
FETCH = "see README.md, Public data sets, for how to get them"

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.csv(\.gz)?")
_BROKEN = "broken"


def online_retail(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """Write the raw logs of all days from `ingest.first_day` to the run date.

    Raises:
        NotPublished: `ingest.path` is not given, or holds no files of days.
        DataRefused: no file is of these days, two are of the same, or one has another header.
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
    """What each row says: COLUMNS and `dt` to a row each of the columns below.

    `dt`, `user_id`, `item_id` (null where there is none), `moment` (seconds since 1970, null where
    the time is none or lies in another day), `event_type`, `quantity` and `price` (null where they
    are no number), `title`, `country`, `context`, and the texts `time`, `invoice`, `code`.
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
        choices.given(F.regexp_replace(F.trim("CustomerID"), r"\.0+$", "")).alias("user_id"),
        F.when(code.rlike(PRODUCT), code).alias("item_id"),
        F.when(in_day, F.unix_seconds(time)).alias("moment"),
        kind.alias("event_type"),
        quantity.alias("quantity"),
        price.alias("price"),
        choices.given(F.trim(F.regexp_replace("Description", r"\s+", " "))).alias("title"),
        choices.given(F.trim("Country")).alias("country"),
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
    """Whether a line is a purchase that validation will believe."""
    return (F.col("event_type") == SALE) & choices.all_there("user_id", "item_id", "moment")


def purchases(rows: DataFrame) -> DataFrame:
    """Choices: `choices.REQUEST`, `clicked`, and `lines`, how many rows each is made of."""
    return (
        rows.where(is_purchase())
        .groupBy(*choices.REQUEST)
        .agg(F.count("*").alias("lines"))
        .select(*choices.REQUEST, F.lit(True).alias("clicked"), "lines")
    )


def events(rows: DataFrame) -> DataFrame:
    """RAW_EVENT's columns but the position, and `dt`: an event of each line, good or bad."""
    kind, good = F.col("event_type"), is_purchase()
    named = F.concat_ws("-", "invoice", "code", kind)
    in_day = F.col("moment").isNotNull()
    return rows.select(
        DAY,
        F.when(good, choices.event_id(kind)).otherwise(named).alias("event_id"),
        F.when(in_day, choices.event_time(kind)).otherwise(F.col("time")).alias("event_time"),
        "user_id",
        "event_type",
        "item_id",
        F.when(good, choices.request_id()).alias("request_id"),
        "context",
    )


def catalogue(rows: DataFrame, stop_words: list[str]) -> DataFrame:
    """What sales tell of items: `dt`, `moment`, and RAW_ITEM's columns that there are."""
    told = rows.where(
        (F.col("event_type") == SALE)
        & (F.col("price") > 0)
        & F.col("item_id").isNotNull()
        & F.col("title").isNotNull()
    )
    return told.select(
        DAY,
        "moment",
        "item_id",
        head_noun(F.col("title")).alias("category"),
        "price",
        "title",
        F.array_distinct(words(F.col("title"), stop_words)).alias("entities"),
    )


def profiles(rows: DataFrame) -> DataFrame:
    """What rows tell of users: `dt`, `moment`, and RAW_USER's columns."""
    told = rows.where(F.col("user_id").isNotNull() & F.col("country").isNotNull())
    return told.select(DAY, "moment", "user_id", F.struct("country").alias("profile"))


def _files(settings: Settings) -> dict[datetime.date, str]:
    """The folder's files of days, by day."""
    folder = settings.ingest.path
    if folder is None:
        raise NotPublished(
            f"ingest.path: expected the folder of Online Retail's files, got none; {FETCH}"
        )
    files, path = fsspec.url_to_fs(folder)
    listed = sorted(files.ls(path, detail=False)) if files.exists(path) else []
    found: dict[datetime.date, str] = {}
    for name in (one.rstrip("/").rpartition("/")[2] for one in listed):
        of_day = _FILE.fullmatch(name)
        if of_day is None:
            continue
        day = datetime.date.fromisoformat(of_day[1])
        if day in found:
            raise DataRefused(
                f"{folder}: expected one file of {day}, got {found[day].rpartition('/')[2]} and "
                f"{name}; take one of them away"
            )
        found[day] = f"{folder}/{name}"
    if not found:
        raise NotPublished(
            f"ingest.path: expected files YYYY-MM-DD.csv or YYYY-MM-DD.csv.gz in {folder}, got "
            f"none; {FETCH}"
        )
    return found


def _read(spark: SparkSession, files: dict[datetime.date, str]) -> DataFrame:
    """Every row of the files as text, its file's day, and the line itself where it is broken."""
    for path in files.values():
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer") as file:
            header = file.readline().strip()
        if header != ",".join(COLUMNS):
            raise DataRefused(
                f"{path}: expected the first line {','.join(COLUMNS)}, got {header!r}; {FETCH}"
            )
    schema = ", ".join(f"`{name}` string" for name in (*COLUMNS, _BROKEN))
    rows = spark.read.csv(
        list(files.values()),
        schema=schema,
        header=True,
        quote='"',
        escape='"',
        columnNameOfCorruptRecord=_BROKEN,
    )
    day = F.to_date(F.substring(F.col("_metadata.file_name"), 1, 10))
    return rows.select(day.alias(DAY), *COLUMNS, _BROKEN)
