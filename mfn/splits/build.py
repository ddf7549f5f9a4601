"""The job `build_splits`: clean events and catalogue to vocabularies, item table, request rows.

Events are read in one pass with two shuffles: by user, and by file when the rows are written in
random order. Between them a task has complete users. It sorts events by request and makes
timelines of requests and behaviours (`requests`), then sorts these by time and adds a history to
each request (`history`). Both steps use numpy on Arrow batches. In memory, both keep only one
request and the last N behaviours of a user between batches. Vocabularies and the item table have
their own small shuffles, of the catalogue's size.

The rows of a run date depend on no event after the attribution window of their last request. From
the folders after the run date only the clicks in that window are read, no impressions or
behaviours. An old day that is built again therefore gives the same rows, with one exception:
requests of its last minutes, which were dropped as immature while the next day was missing, are
in it once the next day is there.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tenacity
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mfn import storage, tables
from mfn.errors import DataRefused
from mfn.indices import FIRST_INDEX
from mfn.job import Counts, job
from mfn.logs import raw, snapshots
from mfn.logs.raw import DAY
from mfn.logs.validate import validated_days
from mfn.schema import EVENTS, RAW_ITEM, RAW_USER
from mfn.settings import LogsKind, Settings
from mfn.spark import caching
from mfn.splits import items, stream, unlisted, vocabulary, writing
from mfn.splits.buckets import Buckets
from mfn.splits.history import COUNTED_ROWS, ToRows
from mfn.splits.manifest import manifest
from mfn.splits.requests import SPLITS, TIMELINE, ToTimeline
from mfn.splits.vocabulary import CATALOGUE_FIELDS, ITEM_ID
from mfn.windows import Windows, days_between, windows

log = logging.getLogger("mfn")


@dataclass(frozen=True)
class Inputs:
    """What a run reads in addition to the vocabularies; Spark reads the frames lazily.

    events: EVENTS' columns, of all days.
    catalogue, users: raw snapshots (RAW_ITEM and RAW_USER, with dt); users is None if no field of
        the profile is used.
    versions: the versions of all of them, for the manifest.
    """

    settings: Settings
    windows: Windows
    events: DataFrame
    catalogue: DataFrame
    users: DataFrame | None
    versions: Mapping[str, Any]

    @property
    def known_from(self) -> datetime.date:
        """The day whose catalogue holds for all earlier days too."""
        if self.settings.splits.item_fields == "as_of_test_day":
            return self.settings.date
        first_snapshot = datetime.date.fromisoformat(self.versions["items"][0])
        return max(first_snapshot, self.windows.days[0])

    @property
    def span(self) -> stream.Span:
        """The time range of the events to read."""
        return stream.Span.of(self.windows, self.settings)


def _reads(spark: SparkSession, settings: Settings) -> Any:
    """The versions of all inputs and the settings used, for the job's fingerprint."""
    dates = windows(settings.date, settings.windows)
    validated = _validated(spark, settings, "events", dates.days)
    last = stream.Span.of(dates, settings).folders_ahead
    days = {str(day): validated.get(day) for day in days_between((dates.days[0], last))}
    kinds: list[LogsKind] = ["items", "users"] if settings.splits.all_user_fields else ["items"]
    snapshots_of = {}
    for kind in kinds:
        folder = settings.logs_folder(kind)
        found = raw.day_folders(folder, snapshots.days_of(folder, settings.date))
        snapshots_of[kind] = [one.fingerprint for one in found]
    return [
        days,
        snapshots_of,
        settings.windows.model_dump(),
        settings.splits.model_dump(),
        settings.logs.day_time_zone,
        settings.train.num_workers,
    ]


def _writes(settings: Settings) -> list[str]:
    return [f"{settings.layout.splits}/{storage.POINTER}"]


@job(_reads, _writes, sections=("logs", "windows", "splits", "train"))
def build_splits(spark: SparkSession, settings: Settings) -> Counts:
    """Build the run date's request rows and item table from clean events and the catalogue.

    Raises:
        DataRefused: a day of the windows or a snapshot is not validated, there is no catalogue, the
            vocabularies start after the run date, or the train or the test window has no request.
    """
    inputs, chosen = _open(spark, settings), settings.splits
    before_test = inputs.windows.test[0] - stream.ONE_DAY
    last, indexed = _extend_vocabularies(spark, inputs)
    fields = vocabulary.event_fields(settings)
    with caching() as keep:
        entries = keep(vocabulary.usable(spark, settings.root, settings.date, fields))
        known = vocabulary.fingerprints(entries)
        vocabulary.refuse_too_early_date(last, known, settings.date, settings.root)
        versions = keep(items.versions(inputs.catalogue, inputs.known_from))
        catalogue = items.summarize(versions, chosen.price_buckets, inputs.windows.train[0])
        numbered = keep(items.numbered(versions, entries, catalogue.buckets, chosen.entities))
        listed_from = FIRST_INDEX + numbered.where(~F.col("listed")).count()
        learnt = stream.learn_buckets(inputs.events, inputs.users, inputs.span, settings)
        own = items.with_own_embedding(
            entries,
            versions,
            inputs.events.where(F.col(DAY).between(inputs.windows.days[0], before_test)),
            chosen.min_events,
            chosen.min_items,
        )
        with storage.publish(settings.layout.splits) as folder:
            item_rows = items.item_rows(spark, numbered, own, chosen.entities)
            table = items.write(item_rows, f"{folder}/items", listed_from)
            rows = _rows(inputs, items.rows_of_items(numbered), listed_from, entries, learnt)
            files, counts = writing.write_rows(
                rows,
                folder,
                chosen.files,
                settings.train.num_workers,
                chosen.seed,
                settings.spark.shuffle_partitions,
            )
            _refuse_empty_windows(files, inputs.windows)
            contents = manifest(
                settings,
                inputs.windows,
                files,
                counts,
                known,
                table,
                {"price": catalogue.buckets, **learnt},
                inputs.versions,
            )
            unlisted.refuse_too_many(contents, settings)
            storage.write_json(f"{folder}/{storage.MANIFEST}", contents)
    if table.constant:
        log.info(
            "build_splits %s: no model uses these fields, since each has only one value: %s",
            settings.date,
            ", ".join(table.constant),
        )
    split_counts = {
        f"{split}_{name}": count
        for split, of_split in contents["splits"].items()
        for name, count in of_split.items()
        if name != "files"
    }
    return {
        "rows": sum(contents["splits"][split]["rows"] for split in SPLITS),
        **split_counts,
        **{name: counts[name] for name in writing.COUNTS},
        **unlisted.shares(contents["splits"]["test"]),
        "items": catalogue.items,
        "items_unlisted": listed_from - FIRST_INDEX,
        "item_rows": table.rows,
        "catalogue_rows_without_id": catalogue.rows_without_id,
        "indexed": indexed,
    }


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(vocabulary.IndexingConflict),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)
def _extend_vocabularies(
    spark: SparkSession, inputs: Inputs
) -> tuple[Mapping[str, datetime.date], int]:
    """Index new keys; returns each field's last indexed day before, and the number of new keys."""
    before = vocabulary.indexed(spark, inputs.settings.root)
    keys = _new_keys(inputs, before.last)
    return before.last, vocabulary.extend(spark, inputs.settings.root, keys, before)


def _open(spark: SparkSession, settings: Settings) -> Inputs:
    """Find the inputs of the run date and check that all of them are there."""
    dates = windows(settings.date, settings.windows)
    validated = _validated(spark, settings, "events", dates.days)
    events = tables.read(spark, settings.root, EVENTS, "validate_logs")
    folder = settings.logs_folder("items")
    days = snapshots.days_of(folder, settings.date)
    if not days:
        raise DataRefused(
            f"items: expected a snapshot of the catalogue in {folder}/dt=… of {settings.date} or "
            "an earlier day, got none; create it with jobs/simulate_logs.py or jobs/ingest.py, "
            "or set logs.items to its folder"
        )
    _validated(spark, settings, "items", snapshots.used(days, dates.days[0]))
    catalogue = snapshots.read(spark, folder, days, RAW_ITEM)
    if settings.splits.title_words:
        catalogue = items.with_title_words(catalogue)
    profiles = _days_of_users(settings, dates)
    _validated(spark, settings, "users", profiles)
    versions = {
        "events": {str(day): validated[day] for day in dates.days},
        "items": [str(day) for day in days],
        "users": [str(day) for day in profiles],
    }
    folder = settings.logs_folder("users")
    users = snapshots.read(spark, folder, profiles, RAW_USER) if profiles else None
    return Inputs(settings, dates, events, catalogue, users, versions)


def _days_of_users(settings: Settings, dates: Windows) -> list[datetime.date]:
    """Days of profile snapshots: the newest one at the start of the first window, and all later."""
    if not settings.splits.all_user_fields:
        return []
    folder = settings.logs_folder("users")
    days = snapshots.days_of(folder, settings.date)
    if not days:
        raise DataRefused(
            "splits.user_fields, splits.user_numbers: expected a snapshot of profiles in "
            f"{folder}/dt=… of {settings.date} or an earlier day, got none; set logs.users "
            "to its folder"
        )
    return snapshots.used(days, dates.days[0])


def _validated(
    spark: SparkSession, settings: Settings, source: LogsKind, days: Sequence[datetime.date]
) -> dict[datetime.date, str | None]:
    """The fingerprint of each validated day of a source.

    Days that `validate_logs` has not checked, or has refused, are refused if they are needed. A
    snapshot is read from its files; without this, one that the gates refuse would be used.
    """
    validated = validated_days(spark, settings, source)
    missing = [day.isoformat() for day in days if day not in validated]
    if missing:
        raise DataRefused(
            f"{source}: expected the days {days[0]} to {days[-1]} to be validated, but "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not; "
            f"run jobs/validate_logs.py --date {settings.date} first"
        )
    return validated


def _refuse_empty_windows(files: Mapping[str, writing.Files], dates: Windows) -> None:
    """Refuse splits without rows to train on or without rows to test on."""
    for split in ("train", "test"):
        if not files[split]:
            first, last = getattr(dates, split)
            raise DataRefused(
                f"{split}: expected requests from {first} to {last} whose labels are known, got "
                "none; add logs of these days and validate them with jobs/validate_logs.py, or "
                "choose another date or other windows"
            )


def _new_keys(inputs: Inputs, last: Mapping[str, datetime.date]) -> list[DataFrame]:
    """Keys of the days that the run date may use and that are not indexed yet.

    Args:
        inputs: of the run.
        last: the last indexed day of each field; a field without indexed days is not in it.

    Returns:
        Frames of day, field, key, in which a key may occur many times.
    """
    # The catalogue: snapshots after the last indexed one.
    settings, chosen = inputs.settings, inputs.settings.splits
    day = F.col(DAY).alias("day")
    snapshots_new = inputs.catalogue.where(_since(DAY, last, [*CATALOGUE_FIELDS], days_before=-1))
    keys = [
        vocabulary.catalogue_keys(snapshots_new.select(day, *RAW_ITEM.names), "day")
        .where(F.col("field") != ITEM_ID)
        .drop("place")
    ]
    # Events of the days before the run date. An event's time can be later than its folder's day;
    # then it counts as known from the day of its time.
    contexts = [f"context.{name}" for name in chosen.context_fields]
    events = (
        inputs.events.where(F.col(DAY) < settings.date)
        .where(_since(DAY, last, [ITEM_ID, *contexts], days_before=1))
        .withColumn("day", stream.day_of(settings.logs.day_time_zone))
        .where(F.col("day") < settings.date)
    )
    keys.append(events.select("day", F.lit(ITEM_ID).alias("field"), F.col("item_id").alias("key")))
    if contexts:
        impressions = events.where(F.col("event_type") == "impression")
        keys.append(vocabulary.map_keys(impressions, "context", "context", chosen.context_fields))
    if inputs.users is not None and chosen.user_fields:
        earlier = inputs.users.where(F.col(DAY) < settings.date).select(day, "profile")
        keys.append(vocabulary.map_keys(earlier, "profile", "user", chosen.user_fields))
    return keys


def _since(
    column: str, last: Mapping[str, datetime.date], fields: list[str], days_before: int
) -> Column:
    """Whether the day in `column` can have keys that are not indexed in all of the fields yet.

    True for every day if a field has no indexed day. Otherwise true from the earliest of the
    fields' last indexed days, minus `days_before` days.
    """
    if any(field not in last for field in fields):
        return F.lit(True)
    day = min(last[field] for field in fields) - days_before * stream.ONE_DAY
    return F.col(column) >= day


def _rows(
    inputs: Inputs,
    rows_of_items: DataFrame,
    listed_from: int,
    entries: DataFrame,
    buckets: Mapping[str, Buckets],
) -> DataFrame:
    """COUNTED_ROWS of the windows, in any order."""
    settings, chosen = inputs.settings, inputs.settings.splits
    zone, partitions = settings.logs.day_time_zone, settings.spark.shuffle_partitions
    span = inputs.span
    events = inputs.events.where(F.col(DAY).between(inputs.windows.days[0], span.folders_ahead))
    summary = stream.summarize(events, span)
    rows = stream.indexed(events, rows_of_items, entries, span, settings, buckets)
    if inputs.users is not None:
        profiles = stream.profiles(inputs.users, entries, chosen, buckets, zone)
        rows = rows.unionByName(profiles)
    rules = stream.rules(span, summary, listed_from, settings)
    return (
        stream.by_user(rows, span, summary, partitions)
        .mapInArrow(ToTimeline(rules), TIMELINE)
        .withColumn("hash", F.xxhash64("user_id"))
        .sortWithinPartitions(
            # `fields` only orders the profiles of a user who is in one snapshot twice.
            "hash",
            "user_id",
            "time",
            "kind",
            "event_id",
            "request_id",
            "slate",
            "fields",
        )
        .select(*TIMELINE.names)
        .mapInArrow(
            ToRows(chosen.history_length, len(chosen.all_user_fields), listed_from), COUNTED_ROWS
        )
    )
