"""The job `simulate_logs`: raw logs of the simulated shop, with true click probabilities.

For each of `simulate.days` days up to the run date, it writes a folder dt=YYYY-MM-DD of

- `events`: gzipped JSON lines of schema.RAW_EVENT; a few of them are dirty on purpose;
- `items`: the catalogue at the start of the day, gzipped JSON lines of schema.RAW_ITEM. It contains
  the item of every event of the day;
- `users`: all possible users, gzipped JSON lines of schema.RAW_USER;
- `truth`: schema.TRUTH as Parquet, one row for each candidate of each request of that day.

`mfn.simulator.shop` defines users, interests, items and clicks; `mfn.simulator.traffic` defines the
events of a day. Both are pure functions of the seed, the sizes and the calendar day. So a day is
the same in every run, and a rerun writes the same content. A day's folder is complete if it has
`_SUCCESS`, which is removed before the folder is replaced and written last.

No shuffle: each task generates parts of days from their numbers. Memory on the driver does not grow
with the sizes; a task holds one batch, and two integers for each family of 6 items.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import IntegerType, LongType, StructField, StructType

from mfn import schema
from mfn.job import Counts, job
from mfn.logs.raw import DAY, SUCCESS, write_days
from mfn.settings import LogsKind, Settings, SimulateSettings
from mfn.simulator import shop, traffic

TASK_ROWS = 250_000
"""Approximate number of rows that a task generates; a file holds those of one day."""

BATCH = 10_000
"""Requests, browsing events, items or users that are generated at once."""

EPOCH = datetime.date(1970, 1, 1)

Days = Sequence[datetime.date]
Columns = dict[str, Any]
Generate = Callable[[int, "Part"], Iterator[Columns]]
"""Generates the rows of a part of a day (in days since 1970), as columns, a batch at a time."""

log = logging.getLogger("mfn")


def _reads(spark: SparkSession, settings: Settings) -> Any:
    return settings.simulate.model_dump()


def _writes(settings: Settings) -> list[str]:
    kinds: tuple[LogsKind, ...] = ("events", "items", "users", "truth")
    return [f"{settings.logs_folder(kind)}/{DAY}={settings.date}/{SUCCESS}" for kind in kinds]


@job(_reads, _writes, sections=("logs", "simulate"))
def simulate_logs(spark: SparkSession, settings: Settings) -> Counts:
    """Write raw logs of a simulated shop, with the true probability of every click."""
    sizes = settings.simulate
    days = [settings.date - datetime.timedelta(days=back) for back in reversed(range(sizes.days))]
    rows = {
        "events": _write(events(spark, sizes, days), settings.logs_folder("events"), days, "text"),
        "items": _write(items(spark, sizes, days), settings.logs_folder("items"), days, "text"),
        "users": _write(users(spark, sizes, days), settings.logs_folder("users"), days, "text"),
        "truth": _write(truth(spark, sizes, days), settings.logs_folder("truth"), days, "parquet"),
    }
    return {"rows": sum(rows.values()), **rows}


def events(spark: SparkSession, settings: SimulateSettings, days: Days) -> DataFrame:
    """Lines of raw events: columns dt (the folder's day) and value."""
    rows = settings.requests_per_day * (settings.candidates + 2) + settings.browsing_per_day
    numbered = _generate(spark, days, rows, partial(_events_of, settings), _NUMBERED_EVENT)
    return numbered.select(DAY, _event_line().alias("value"))


def items(spark: SparkSession, settings: SimulateSettings, days: Days) -> DataFrame:
    """Lines of the days' catalogues: columns dt and value."""
    rows = shop.places(settings.items)
    listed = _generate(spark, days, rows, partial(_items_of, settings), schema.RAW_ITEM)
    return listed.select(DAY, F.to_json(F.struct(*schema.RAW_ITEM.names)).alias("value"))


def users(spark: SparkSession, settings: SimulateSettings, days: Days) -> DataFrame:
    """Lines of user profiles, the same every day: columns dt and value."""
    rows = settings.users + traffic.bots(settings)
    named = _generate(spark, days, rows, partial(_users_of, settings), _NAMED_USER)
    user = F.struct("user_id", F.struct("age", "region").alias("profile"))
    return named.select(DAY, F.to_json(user).alias("value"))


def truth(spark: SparkSession, settings: SimulateSettings, days: Days) -> DataFrame:
    """True click probabilities of the days' requests: columns dt and schema.TRUTH."""
    rows = settings.requests_per_day * settings.candidates
    numbered = _generate(spark, days, rows, partial(_truth_of, settings), _NUMBERED_TRUTH)
    return numbered.select(
        DAY,
        _request_id().alias("request_id"),
        _user_id().alias("user_id"),
        _item_id().alias("item_id"),
        "probability",
    )


# Generate rows as numbers, in Python, a batch at a time.


def _fields(kind: schema.DataType, *names: str) -> list[StructField]:
    return [StructField(name, kind, False) for name in names]


_NUMBERED_EVENT = StructType(
    [
        *_fields(schema.STRING, "day"),
        *_fields(LongType(), "index", "time", "user", "item", "slot"),
        *_fields(IntegerType(), "source", "type", "position", "device", "fault"),
    ]
)
_NUMBERED_TRUTH = StructType(
    [
        *_fields(schema.STRING, "day"),
        *_fields(LongType(), "index", "user", "item"),
        *_fields(schema.DOUBLE, "probability"),
    ]
)
_NAMED_USER = StructType(_fields(schema.STRING, "user_id", "age", "region"))


@dataclass(frozen=True)
class Part:
    """Part `number` of `of` equal parts of a day's rows."""

    number: int
    of: int

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """This part of the integers in [0, size), BATCH at a time."""
        first, end = (size * number // self.of for number in (self.number, self.number + 1))
        for start in range(first, end, BATCH):
            yield np.arange(start, min(start + BATCH, end))


def _generate(
    spark: SparkSession, days: Days, rows_a_day: int, generate: Generate, columns: StructType
) -> DataFrame:
    """Generate the rows of all days: the day as `dt`, and `columns`.

    Tasks and files depend on the sizes and not on the cluster, so they are always the same.
    """
    parts = -(-rows_a_day // TASK_ROWS)
    tasks = -(-rows_a_day * len(days) // TASK_ROWS)
    with_day = StructType([StructField(DAY, schema.DATE, False), *columns])
    numbers = [(day - EPOCH).days for day in days]
    return spark.range(0, len(days) * parts, 1, tasks).mapInArrow(
        partial(_in_batches, generate, numbers, parts, to_arrow_schema(with_day)), with_day
    )


def _in_batches(
    generate: Generate,
    days: Sequence[int],
    parts: int,
    columns: pa.Schema,
    batches: Iterable[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():  # a few numbers, each of a part of a day
            day = days[number // parts]
            for values in generate(day, Part(number % parts, parts)):
                rows = len(values[columns.names[1]])
                values[DAY] = np.full(rows, day, dtype=np.int32)
                arrays = [pa.array(values[field.name]).cast(field.type) for field in columns]
                yield pa.RecordBatch.from_arrays(arrays, schema=columns)


def _events_of(settings: SimulateSettings, day: int, part: Part) -> Iterator[Columns]:
    sizes: dict[traffic.Source, int] = {
        traffic.PAGES: settings.requests_per_day,
        traffic.BROWSING: settings.browsing_per_day,
        traffic.OUTINGS: settings.users,
    }
    for source, size in sizes.items():
        for numbers in part.batches(size):
            values = vars(traffic.events_of(settings, source, day, numbers))
            yield {**values, "day": _day_of_ids(values["day"])}


def _truth_of(settings: SimulateSettings, day: int, part: Part) -> Iterator[Columns]:
    for numbers in part.batches(settings.requests_per_day):
        shown = traffic.pages(settings, np.full(len(numbers), day), numbers)
        row, place = np.nonzero(shown.shown_RM)
        yield {
            "day": _day_of_ids(shown.day_R[row]),
            "index": shown.index_R[row],
            "user": shown.user_R[row],
            "item": shown.item_RM[row, place],
            "probability": shown.probability_RM[row, place],
        }


def _items_of(settings: SimulateSettings, day: int, part: Part) -> Iterator[Columns]:
    shelves = shop.catalogue(settings.items, settings.seed)
    for numbers in part.batches(shelves.places):
        on_sale, sold_out = shelves.listed(numbers, day)
        yield _item_columns(shelves.items(np.concatenate([on_sale, sold_out[sold_out >= 0]])))


def _item_columns(listed: shop.Items) -> Columns:
    colour, material = _named(shop.COLOURS, listed.colour), _named(shop.MATERIALS, listed.material)
    style, brand = _named(shop.STYLES, listed.style), _named(shop.BRANDS, listed.brand)
    thing = _named(shop.CATEGORIES, listed.category)
    # Entities: 3 words of each item, as indices of `all_words`, [items, 3].
    words = np.stack([listed.colour, listed.material, listed.style], axis=1)
    words += np.cumsum([0, len(shop.COLOURS), len(shop.MATERIALS)])
    ends = np.arange(len(words) + 1, dtype=np.int32) * words.shape[1]
    all_words = [*shop.COLOURS, *shop.MATERIALS, *shop.STYLES]
    return {
        "item_id": _numbered("i", listed.number),
        "category": thing,
        "shop": _named(shop.SHOPS, listed.shop),
        "brand": brand,
        "price": listed.price,
        "title": pc.binary_join_element_wise(brand, style, material, thing, "in", colour, " "),
        "entities": pa.ListArray.from_arrays(ends, _named(all_words, words.reshape(-1))),
    }


def _users_of(settings: SimulateSettings, day: int, part: Part) -> Iterator[Columns]:
    for numbers in part.batches(settings.users + traffic.bots(settings)):
        who = shop.customers(settings.seed, numbers)
        yield {
            "user_id": _numbered("u", numbers),
            "age": _named(shop.AGES, who.age_R),
            "region": _named(shop.REGIONS, who.region_R),
        }


def _named(names: Sequence[str], index: np.ndarray) -> pa.Array:
    return pa.array(list(names), pa.string()).take(pa.array(index))


def _numbered(letter: str, number: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(letter, pc.cast(pa.array(number), pa.string()), "")


def _day_of_ids(day: np.ndarray) -> pa.Array:
    """Days since 1970 as text, such as 20260308: the first part of request and event ids."""
    which, index = np.unique(day, return_inverse=True)
    dates = (EPOCH + datetime.timedelta(days=int(number)) for number in which)
    return _named([f"{date:%Y%m%d}" for date in dates], index)


# Convert numbers to the ids and lines of a log, in Spark.


def _item_id() -> Column:
    return F.concat(F.lit("i"), "item")


def _user_id() -> Column:
    return F.concat(F.lit("u"), "user")


def _request_id() -> Column:
    return F.concat("day", F.lit("-r"), "index")


def _event_line() -> Column:
    """One event as JSON, with its fault if it has one."""
    fault = F.col("fault")

    def unless(broken: int, column: Column, instead: Column) -> Column:
        """`column`, or `instead` if the event has the fault `broken`."""
        return F.when(fault == broken, instead).otherwise(column)

    def choice(names: Sequence[str], number: str) -> Column:
        return F.element_at(F.array(*map(F.lit, names)), F.col(number) + 1)

    nothing, on_page = F.lit(None), F.col("source") == traffic.PAGES
    event_id = F.concat(
        "day",
        F.lit("-"),
        choice(traffic.SOURCES, "source"),
        "index",
        F.lit("-"),
        "slot",
        F.when(fault == traffic.NO_FAULT, "").otherwise("x"),
    )
    time = F.date_format(F.timestamp_millis("time"), "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")
    event = F.struct(
        event_id.alias("event_id"),
        unless(traffic.NO_TIME, time, F.lit("0000-00-00T00:00:00Z")).alias("event_time"),
        unless(traffic.NO_USER, _user_id(), nothing).alias("user_id"),
        unless(traffic.UNKNOWN_TYPE, choice(traffic.EVENT_TYPES, "type"), F.lit("hover")).alias(
            "event_type"
        ),
        unless(traffic.NO_ITEM, _item_id(), nothing).alias("item_id"),
        F.when(on_page, _request_id()).alias("request_id"),
        F.when(on_page, F.col("position")).alias("position"),
        F.struct(choice(shop.DEVICES, "device").alias("device")).alias("context"),
    )
    line = F.to_json(event)
    return unless(traffic.CUT_OFF, line, F.left(line, F.floor(F.length(line) / 2).cast("int")))


# Writing.


def _write(rows: DataFrame, folder: str, days: Days, form: Literal["text", "parquet"]) -> int:
    """Replace the days' folders under `folder` by `rows`; return the number of rows.

    Events are written as text, because Spark's JSON writer cannot write a cut-off line.
    """
    counted = Observation()
    write_days(rows.observe(counted, F.count("*").alias("rows")), folder, days, form)
    log.info("simulate_logs: wrote %s from %s to %s", folder, days[0], days[-1])
    return int(counted.get["rows"])
