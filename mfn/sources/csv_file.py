"""Your own CSV file as raw logs: who did what with which item, and when.

The first line names the columns, in any order:

- `user_id`, `item_id` and `time` are required. A time is ISO 8601 (without a zone it is in
  `logs.time_zone`), or a number of seconds or milliseconds since 1970.
- `event_type` is optional: click, cart, purchase or impression. Without this column every row is
  a click.
- `request_id` is optional. It says which impressions a user saw together.
- `category`, `shop`, `brand`, `price` and `title` are optional. They describe the item; each row
  repeats them.
- Every other column goes into the `context` of its event, where `splits.context_fields` finds it.

`ingest.path` is one file (.csv or .csv.gz), or a folder of such files with the same first line.

**Only clicks.** Most logs do not say what a user saw and did not click. Then a click is also a
candidate, and `ingest.negatives` unseen items are drawn for each click: see `mfn.sources.choices`.
The first day on which anybody chooses an item makes no candidate of it: until then nobody knows
the item. So the first day of the file has no candidates.

**Clicks and impressions.** With `ingest.negatives` 0 the impressions of the file are the
candidates, and nothing is drawn.

**Every row is an event.** A row that lacks a value, or has too many or too few columns, goes to
quarantine, where validation counts it by its reason. Rows of days before `ingest.first_day` or
after the run date are left out and counted. The same row twice is one event.

**Snapshots** of the items know nothing of their own day: what the rows of a day say about an item
is in the snapshot of the next morning.

Two shuffles in addition to those of `mfn.sources.choices`: by user, moment and item, to make one
choice of equal rows, and by item for `choices.known`.
"""

from __future__ import annotations

import csv

import fsspec
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn.errors import DataRefused, NotPublished
from mfn.locations import for_spark
from mfn.logs import raw
from mfn.logs.outcomes import EVENT_TYPES, parse_time
from mfn.logs.raw import DAY
from mfn.settings import Settings
from mfn.sources import choices
from mfn.windows import days_between

ENDINGS = (".csv", ".csv.gz")
REQUIRED = ("user_id", "item_id", "time")
OF_ITEM = ("category", "shop", "brand", "price", "title")
COLUMNS = (*REQUIRED, "event_type", "request_id", *OF_ITEM)
MALFORMED = "malformed"
"""Event type of a row with too many or too few columns; the row itself is in `context`."""

_SECONDS = r"^(\d{1,11})(\.\d*)?$"
"""A number of up to 11 digits counts seconds, a longer one milliseconds."""


def csv_file(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """Write the raw logs of all days from `ingest.first_day` to the run date.

    Raises:
        NotPublished: `ingest.path` is not given, or there is no CSV file.
        DataRefused: the first line lacks a column, no row is of these days, no row is a click, or
            impressions and `ingest.negatives` do not fit together.
    """
    ingest = settings.ingest
    read = lines(_read(spark, ingest.path), settings).persist()
    kept = [read]
    try:
        _refuse_what_cannot_be_trained_on(read, settings)
        first, last, outside = choices.day_range(read, settings)
        days = days_between((first, last))
        rows = choices.within(read, first, last)
        log, counts = events(rows, drawn=ingest.negatives > 0), {}
        if ingest.negatives:
            chosen = choices.known(clicks_and_others(rows))
            chosen = chosen.withColumn("candidate", F.col("clicked") & F.col("known")).persist()
            shown = choices.candidates(chosen, ingest.negatives, ingest.seed, "candidate").persist()
            kept += [chosen, shown]
            impressions = choices.events(shown, ingest.seed).where(F.col("event_type") != "click")
            log = log.unionByName(impressions, allowMissingColumns=True)
            first_clicks = chosen.where(F.col("clicked") & ~F.col("known")).count()
            counts = {
                "first_clicks_on_an_item": first_clicks,
                **choices.counts(shown, ingest.negatives),
            }
        log = choices.by_day(log, "event_time", "event_id")
        raw.write_days(log, settings.logs_folder("events"), days)
        items = choices.snapshots(catalogue(rows), "item_id", OF_ITEM, last)
        raw.write_days(choices.by_day(items, "item_id"), settings.logs_folder("items"), days)
        rows_read = rows.count()
    finally:
        for frame in kept:
            frame.unpersist()
    return {
        "rows": rows_read + counts.get("candidates", 0),
        "days": len(days),
        "rows_read": rows_read,
        "rows_outside_days": outside,
        **counts,
    }


def lines(rows: DataFrame, settings: Settings) -> DataFrame:
    """What each row says.

    Args:
        rows: COLUMNS as text, `context` and MALFORMED, as `_read` gives them.

    Returns:
        `dt`, `moment` (seconds since 1970; both null without a time), `event_time` (in UTC, or as
        it is written where it is no time), the other COLUMNS and `context`.
    """
    # In steps, as Spark would otherwise repeat the text of the time in each place that uses it.
    seconds = F.regexp_extract("written", _SECONDS, 1)
    text = F.when(seconds != "", F.concat(seconds, F.lit("000"))).otherwise(F.col("written"))
    rows = rows.withColumn("written", F.trim("time")).withColumn("text", text)
    rows = rows.withColumn("at", parse_time(F.col("text"), settings.logs.time_zone))
    kind = choices.non_empty(F.lower(F.trim("event_type")))
    day, moment = choices.day_and_moment(F.unix_seconds("at"), settings.logs.day_time_zone)
    utc = F.date_format("at", "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")
    return rows.select(
        day,
        moment,
        F.when(moment.isNotNull(), utc).otherwise(F.col("time")).alias("event_time"),
        *(choices.non_empty(F.trim(name)).alias(name) for name in ("user_id", "item_id")),
        F.when(F.col(MALFORMED).isNotNull(), MALFORMED).otherwise(kind).alias("event_type"),
        choices.non_empty(F.trim("request_id")).alias("request_id"),
        *(choices.non_empty(F.trim(name)).alias(name) for name in OF_ITEM if name != "price"),
        F.col("price").try_cast("double").alias("price"),
        "context",
    )


def clicks_and_others(rows: DataFrame) -> DataFrame:
    """Choices: `choices.REQUEST` and `clicked`, whether a click is among them."""
    return (
        rows.where(_is_event())
        .groupBy(*choices.REQUEST)
        .agg((F.count_if(F.col("event_type") == "click") > 0).alias("clicked"))
        .select(*choices.REQUEST, "clicked")
    )


def events(rows: DataFrame, drawn: bool) -> DataFrame:
    """RAW_EVENT's columns but the position, and `dt`: an event of each row, good or bad.

    drawn: candidates are drawn, so a click belongs to the request that was made for it.
    """
    of_click = F.when(_is_event() & (F.col("event_type") == "click"), choices.request_id())
    named = F.concat_ws("-", "user_id", "event_time", "item_id", "event_type", "request_id")
    return rows.select(
        DAY,
        named.alias("event_id"),
        "event_time",
        "user_id",
        "event_type",
        "item_id",
        (of_click if drawn else F.col("request_id")).alias("request_id"),
        "context",
    )


def catalogue(rows: DataFrame) -> DataFrame:
    """What rows say about items: `dt`, `moment`, `item_id` and OF_ITEM."""
    return rows.where(_is_event()).select(DAY, "moment", "item_id", *OF_ITEM)


def _is_event() -> Column:
    """Whether validation will take a row for an event."""
    there = choices.all_present("user_id", "item_id", "moment")
    return there & F.col("event_type").isin(*EVENT_TYPES)


def _refuse_what_cannot_be_trained_on(rows: DataFrame, settings: Settings) -> None:
    path, negatives = settings.ingest.path, settings.ingest.negatives
    found = rows.agg(
        F.count("moment").alias("times"),
        F.first("event_time", ignorenulls=True).alias("time"),
        F.count_if(F.col("event_type") == "click").alias("clicks"),
        F.count_if(F.col("event_type") == "impression").alias("impressions"),
    ).first()
    assert found is not None
    if not found["times"]:
        raise DataRefused(
            f"{path}: expected times such as 2026-03-08T09:15:02Z, 2026-03-08 09:15:02 or seconds "
            f"since 1970 in the column time, got {found['time']!r} and no row with a time"
        )
    if not found["clicks"]:
        raise DataRefused(
            f"{path}: expected rows whose event_type is click, got none; leave the column "
            "event_type out if every row stands for a choice"
        )
    if found["impressions"] and negatives:
        raise DataRefused(
            f"{path}: has {found['impressions']} impressions, so that no candidates need to be "
            f"drawn: expected ingest.negatives 0, got {negatives}"
        )
    if not found["impressions"] and not negatives:
        raise DataRefused(
            f"{path}: expected rows whose event_type is impression, as ingest.negatives is 0, got "
            "none; set ingest.negatives to 4, and unseen items are drawn as candidates"
        )


def _read(spark: SparkSession, path: str | None) -> DataFrame:
    """COLUMNS as text, the others as `context`, and MALFORMED: the row if it is, else null."""
    files = _files(path)
    first_lines = {file: _columns(file) for file in files}
    names = first_lines[files[0]]
    for file, found in first_lines.items():
        if found != names:
            raise DataRefused(
                f"{file}: expected the first line of {files[0]}, {','.join(names)}, "
                f"got {','.join(found)}"
            )
    schema = ", ".join(f"`{name.replace('`', '``')}` string" for name in (*names, MALFORMED))
    rows = spark.read.csv(
        [for_spark(file) for file in files],
        schema=schema,
        header=True,
        quote='"',
        escape='"',
        columnNameOfCorruptRecord=MALFORMED,
    )
    missing = {name: F.lit("click" if name == "event_type" else None) for name in COLUMNS}
    others = [_named(name) for name in (*names, MALFORMED) if name not in COLUMNS]
    return rows.select(
        *(F.col(name) if name in names else missing[name].alias(name) for name in COLUMNS),
        F.when(F.coalesce(*others).isNotNull(), F.struct(*others)).alias("context"),
        MALFORMED,
    )


def _named(name: str) -> Column:
    return F.col(f"`{name.replace('`', '``')}`")


def _files(path: str | None) -> list[str]:
    """The CSV files of `ingest.path`."""
    if path is None:
        raise NotPublished("ingest.path: expected a CSV file, or a folder of them, got none")
    files, inner = fsspec.url_to_fs(path)
    found = [path] if files.isfile(inner) else []
    if files.isdir(inner):
        names = sorted(name.rpartition("/")[2] for name in files.ls(inner, detail=False))
        found = [f"{path}/{name}" for name in names]
    found = [file for file in found if file.endswith(ENDINGS)]
    if not found:
        raise NotPublished(
            f"ingest.path: expected a file that ends with {' or '.join(ENDINGS)}, or a folder of "
            f"such files, got {path}, where there is none"
        )
    return found


def _columns(file: str) -> list[str]:
    """The names in a file's first line."""
    with fsspec.open(file, "rt", encoding="utf-8-sig", compression="infer", newline="") as text:
        names = [name.strip() for name in next(csv.reader(text), [])]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise DataRefused(
            f"{file}: expected the columns {', '.join(REQUIRED)} in the first line, but "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there, only "
            f"{', '.join(names)}; rename the columns in the first line"
        )
    lowered = [name.lower() for name in (*names, MALFORMED)]
    twice = sorted({name for name in lowered if lowered.count(name) > 1 or not name})
    if twice:
        raise DataRefused(
            f"{file}: expected a name for each column, and each once (and none named "
            f"{MALFORMED}), got {', '.join(map(repr, twice))}"
        )
    return names
