"""The job `build_splits`: clean events and catalogue to vocabularies, item table, request rows.

Events pass once, through two shuffles: by user, and by file when the rows are written shuffled.
In between, a task holds whole users: it sorts by request and makes requests of the events
(`requests`), sorts by time and gives each request its history (`history`), both with numpy on
Arrow batches. Nothing of a user is held at once but one request and the last N behaviours.
Vocabularies and item table have small shuffles of their own, of the catalogue's size.

The run date's rows depend on nothing later than the attribution window of their last request; the
folders of the days after it are opened for the clicks of that window alone. So an old day that is
built again finds the rows that it found before; only requests of its last minutes, left out as
immature while the next day was not there, come in once it is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from mfn import storage, tables
from mfn.job import Counts, DataRefused
from mfn.schema import EVENTS, FIRST_INDEX, RAW_ITEM, RAW_USER, VALIDATION, VOCABULARIES
from mfn.settings import Settings
from mfn.splits import items as item_table
from mfn.splits import manifest, snapshots, stream, vocabulary
from mfn.splits.history import COUNTED_ROWS, ToRows
from mfn.splits.requests import MOMENTS, SPLITS, TALLIES, ToMoments
from mfn.splits.vocabulary import CATALOGUE_FIELDS, ITEM, ITEM_ID, Fingerprint
from mfn.splits.windows import Windows, windows

log = logging.getLogger("mfn")


def build_splits(spark: SparkSession, settings: Settings) -> Counts:
    """Build the run date's request rows and item table from clean events and the catalogue.

    Raises:
        DataRefused: a day of the windows is not validated, there is no catalogue, the
            vocabularies began after the run date, or a window that is needed has no request.
    """
    dates = windows(settings.date, settings.windows)
    _refuse_unvalidated_days(spark, settings, dates)
    catalogue = _catalogue(spark, settings)
    users = _users(spark, settings, dates)
    events = tables.read(spark, settings.root, EVENTS, "validate_logs")
    added = _fold(spark, settings, catalogue, users, events)
    entries = vocabulary.usable(spark, settings.root, settings.date, _event_fields(settings))
    entries = entries.persist()
    try:
        with storage.publish(f"{settings.root}/splits/{settings.date}") as folder:
            return _write(spark, settings, dates, folder, catalogue, users, events, entries, added)
    finally:
        entries.unpersist()


def _write(
    spark: SparkSession,
    settings: Settings,
    dates: Windows,
    folder: str,
    catalogue: DataFrame,
    users: DataFrame | None,
    events: DataFrame,
    entries: DataFrame,
    added: int,
) -> Counts:
    known = vocabulary.fingerprints(entries)
    vocabulary.refuse_if_begun_later(
        vocabulary.last_folded(spark, settings.root), known, settings.date, settings.root
    )
    items = _write_items(spark, settings, folder, catalogue, entries)
    known["price"] = items["buckets"].fingerprint
    rows = _rows(spark, settings, dates, users, events, entries)
    files, counts = manifest.write_rows(
        rows,
        folder,
        settings.splits.files,
        settings.train.num_workers,
        settings.splits.seed,
        settings.spark.shuffle_partitions,
    )
    for split in ("train", "test"):
        if not files[split]:
            first, last = getattr(dates, split)
            raise DataRefused(
                f"{split}: expected requests from {first} to {last}, got none whose labels are "
                "known; give logs of these days and validate them with jobs/validate_logs.py, or "
                "choose other windows"
            )
    of_splits = manifest.describe(
        settings.date,
        {name: getattr(dates, name) for name in ("history", *SPLITS)},
        files,
        counts,
    )
    whole = {name: counts[name] for name in ("test_users", "test_users_in_training", *TALLIES)}
    nothing = Fingerprint(FIRST_INDEX, vocabulary.fingerprint_of([]))
    fields = [*CATALOGUE_FIELDS, "price", *_event_fields(settings)]
    storage.write_json(
        f"{folder}/{storage.MANIFEST}",
        {
            **of_splits,
            **whole,
            "vocabularies": {name: known.get(name, nothing).as_json() for name in fields},
            "price_boundaries": list(items["buckets"].boundaries),
            "item_fields": items["varying"],
            "constant_fields": items["constant"],
            "user_fields": list(settings.splits.user_fields),
            "context_fields": list(settings.splits.context_fields),
            "history_length": settings.splits.history_length,
            "candidates": settings.splits.candidates,
            "entities": settings.splits.entities,
            "settings": {
                "windows": settings.windows.model_dump(mode="json"),
                "splits": settings.splits.model_dump(mode="json"),
                "day_time_zone": settings.logs.day_time_zone,
            },
        },
    )
    if items["constant"]:
        log.info(
            "build_splits %s: left out of every model, since they do not vary here: %s",
            settings.date,
            ", ".join(items["constant"]),
        )
    told: dict[str, int] = {}
    for split, account in of_splits["splits"].items():
        told |= {f"{split}_{name}": n for name, n in account.items() if name != "files"}
    return {
        "rows": sum(account["rows"] for account in of_splits["splits"].values()),
        **told,
        **whole,
        "items": known[ITEM].size - FIRST_INDEX,
        "indexed": added,
    }


def _refuse_unvalidated_days(spark: SparkSession, settings: Settings, dates: Windows) -> None:
    days = dates.days
    validated = set()
    if tables.is_there(spark, settings.root, VALIDATION):
        found = tables.read(spark, settings.root, VALIDATION, "validate_logs")
        rows = found.where(F.col("run_date").between(days[0], days[-1])).select("run_date")
        validated = {row["run_date"] for row in rows.distinct().collect()}
    lacking = [day.isoformat() for day in days if day not in validated]
    if lacking:
        raise DataRefused(
            f"events: expected the days {days[0]} to {days[-1]} to be validated, but "
            f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not; "
            "run jobs/validate_logs.py for each of them first"
        )


def _catalogue(spark: SparkSession, settings: Settings) -> DataFrame:
    folder = settings.logs_folder("items")
    days = snapshots.days_of(folder, settings.date)
    if not days:
        raise DataRefused(
            f"items: expected a snapshot of the catalogue in {folder}/dt=… of {settings.date} or "
            "an earlier day, got none; make it with jobs/simulate_logs.py or jobs/ingest.py, or "
            "say with logs.items where it is"
        )
    return snapshots.read(spark, folder, days, RAW_ITEM)


def _users(spark: SparkSession, settings: Settings, dates: Windows) -> DataFrame | None:
    """Snapshots of profiles: the last one that the first window begins with, and all later."""
    if not settings.splits.user_fields:
        return None
    folder = settings.logs_folder("users")
    days = snapshots.days_of(folder, settings.date)
    if not days:
        raise DataRefused(
            f"splits.user_fields: expected a snapshot of profiles in {folder}/dt=… of "
            f"{settings.date} or an earlier day, got none; say with logs.users where it is"
        )
    before = [day for day in days if day <= dates.days[0]]
    return snapshots.read(spark, folder, [*before[-1:], *days[len(before) :]], RAW_USER)


def _event_fields(settings: Settings) -> list[str]:
    """Fields that are learnt from the days before the run date only."""
    users = [f"user.{name}" for name in settings.splits.user_fields]
    return [ITEM_ID, *users, *(f"context.{name}" for name in settings.splits.context_fields)]


def _fold(
    spark: SparkSession,
    settings: Settings,
    catalogue: DataFrame,
    users: DataFrame | None,
    events: DataFrame,
) -> int:
    """Bring the vocabularies up to the run date."""
    last = vocabulary.last_folded(spark, settings.root)
    day = F.col(snapshots.DAY).alias("day")
    keys = []
    if last.get(ITEM) is None or last[ITEM] < settings.date:
        new = catalogue if ITEM not in last else catalogue.where(F.col("dt") > last[ITEM])
        keys.append(vocabulary.catalogue_keys(new.withColumn("day", day), "day").drop("place"))
    known_before = F.col("day") < settings.date
    since = _earliest(last, [ITEM_ID, *(f"context.{n}" for n in settings.splits.context_fields)])
    recent = events.where(F.col("dt") < settings.date)
    if since is not None:
        # An event may be early for its folder, by less than a day more than late_hours.
        slack = stream.ONE_DAY * (1 + int(settings.validation.late_hours / 24))
        recent = recent.where(F.col("dt") >= since - slack)
    recent = recent.withColumn("day", stream.day_of(settings.logs.day_time_zone))
    recent = recent.where(known_before)
    keys.append(
        recent.select(
            "day", F.lit(ITEM_ID).alias("field"), F.nullif("item_id", F.lit("")).alias("key")
        ).where(F.col("key").isNotNull())
    )
    if settings.splits.context_fields:
        impressions = recent.where(F.col("event_type") == "impression")
        keys.append(
            vocabulary.map_keys(impressions, "context", "context", settings.splits.context_fields)
        )
    if users is not None:
        earlier = users.withColumn("day", day).where(known_before)
        keys.append(vocabulary.map_keys(earlier, "profile", "user", settings.splits.user_fields))
    added = vocabulary.fold(spark, settings.root, keys, last)
    if not tables.is_there(spark, settings.root, VOCABULARIES):
        raise DataRefused(
            f"items: expected rows with an item_id in {settings.logs_folder('items')}, got none"
        )
    return added


def _earliest(last: dict[str, Any], fields: Sequence[str]) -> Any:
    """The day up to which all of the fields are folded; None if one never was."""
    days = [last.get(field) for field in fields]
    return None if None in days else min(day for day in days if day is not None)


def _write_items(
    spark: SparkSession,
    settings: Settings,
    folder: str,
    catalogue: DataFrame,
    entries: DataFrame,
) -> dict[str, Any]:
    attributes = item_table.latest_attributes(catalogue).persist()
    try:
        buckets = item_table.price_buckets(attributes, settings.splits.price_buckets)
        rows = item_table.item_rows(spark, attributes, entries, buckets, settings.splits.entities)
        observed = Observation()
        rows.observe(observed, *item_table.variation()).write.parquet(f"{folder}/items")
    finally:
        attributes.unpersist()
    varying, constant = item_table.varying(observed)
    return {"buckets": buckets, "varying": varying, "constant": constant}


def _rows(
    spark: SparkSession,
    settings: Settings,
    dates: Windows,
    users: DataFrame | None,
    events: DataFrame,
    entries: DataFrame,
) -> DataFrame:
    """COUNTED_ROWS of the windows."""
    chosen = settings.splits
    span = stream.Span.of(dates, settings)
    events = events.where(F.col("dt").between(dates.days[0], span.folders_ahead))
    seen = stream.facts(events, span)
    profiles = None
    if users is not None:
        profiles = stream.profiles_by_user(
            users, entries, chosen.user_fields, settings.logs.day_time_zone
        )
    by_user = stream.by_user(
        events,
        entries,
        profiles,
        span,
        seen,
        chosen.behaviours,
        chosen.context_fields,
        settings.spark.shuffle_partitions,
    )
    rules = stream.rules(span, seen, chosen.candidates, len(chosen.context_fields))
    return (
        by_user.mapInArrow(ToMoments(rules), MOMENTS)
        .sortWithinPartitions(
            F.xxhash64("user_id"), "user_id", "time", "kind", "event_id", "request_id", "slate"
        )
        .select(*MOMENTS.names)
        .mapInArrow(ToRows(chosen.history_length, len(chosen.user_fields)), COUNTED_ROWS)
    )
