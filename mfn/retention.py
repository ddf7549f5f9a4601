"""The job `clean_up`: remove what is old, except what the newest models need.

The age of a folder counts from its date or from its last change, whichever is later. So neither a
day that is running nor a day that was rebuilt is touched. The pointer of a published folder is
removed first: a reader then finds nothing published, never half of a version.
"""

from __future__ import annotations

import datetime
import logging
from dataclasses import dataclass
from typing import Any, get_args

from pyspark.sql import SparkSession

from mfn import layout, storage, tables
from mfn.job import Counts, job
from mfn.layout import Layout
from mfn.locations import files_at
from mfn.schema import PREDICTIONS, TABLES
from mfn.settings import LogsKind, Settings

MADE_FOR_MODELS = (layout.SPLITS, layout.EMBEDDINGS, layout.CENTERS)
"""Kinds of folders with one folder for each date, which models are made from."""

log = logging.getLogger("mfn")


@job(sections=("logs", "retention"))
def clean_up(spark: SparkSession, settings: Settings) -> Counts:
    """Remove what is older than `retention` allows; compact and vacuum the Delta tables.

    What the newest model of each name was made from is kept, however old it is. The age of
    predictions counts from their run date or from the last run of a job for this date. Of the
    tables' files, those are removed that no version of the last `retention.table_hours` reads.
    Beside the raw logs, what a killed run has left half written is removed after 7 days.
    """
    own = settings.retention
    today = max(settings.date, datetime.datetime.now(datetime.UTC).date())
    needed = newest_models(settings.root)
    counts: dict[str, int | float | str] = {}
    for kind in MADE_FOR_MODELS:
        old = [
            one.path
            for one in dated_folders(layout.all_dates(settings.root, kind))
            if one.age(today) > own.splits_days and one.path not in needed.folders
        ]
        counts[f"removed_{kind}"] = _remove(old)
    old = [
        model.path
        for date in dated_folders(layout.all_dates(settings.root, layout.MODELS))
        for model in named_folders(date)
        if model.age(today) > own.models_days and model.path not in needed.models
    ]
    counts["removed_models"] = _remove(old)
    events = dated_folders(layout.all_dates(settings.root, layout.TENSORBOARD))
    counts["removed_event_files"] = _remove(
        [one.path for one in events if one.age(today) > own.models_days]
    )
    staged = [path for kind in get_args(LogsKind) for path in _staged(settings.logs_folder(kind))]
    abandoned = today - storage.ABANDONED_AFTER
    counts["removed_half_written_logs"] = _remove(
        [path for path in staged if _last_change_within(path) < abandoned]
    )
    if tables.is_there(spark, settings.root, PREDICTIONS):
        first = today - datetime.timedelta(days=own.predictions_days)
        runs = dated_folders(layout.all_dates(settings.root, layout.RECORDS))
        recent = [one.date for one in runs if one.age(today) <= own.predictions_days]
        kept = ", ".join(f"DATE '{date}'" for date in [first, *recent])
        where = f"run_date < DATE '{first}' AND run_date NOT IN ({kept})"
        counts["removed_predictions"] = tables.delete(spark, settings.root, PREDICTIONS, where)
    for table in TABLES:
        if tables.is_there(spark, settings.root, table):
            tables.compact(spark, settings.root, table, own.table_hours)
    return {"rows": int(counts.get("removed_predictions", 0)), **counts}


@dataclass(frozen=True)
class Dated:
    """A folder that belongs to a date."""

    path: str
    date: datetime.date

    def age(self, today: datetime.date) -> int:
        """Days since its date or since its last change, whichever is later."""
        return (today - max(self.date, _last_change(self.path))).days


@dataclass(frozen=True)
class Needed:
    """The folders of the newest models, and the folders that they were made from."""

    models: frozenset[str]
    folders: frozenset[str]


def newest_models(root: str) -> Needed:
    """The newest published model of each name, and the folders of its inputs."""
    newest: dict[str, str] = {}
    for date in dated_folders(layout.all_dates(root, layout.MODELS)):
        for model in named_folders(date):
            if storage.exists(f"{model.path}/{storage.POINTER}"):
                newest[model.path.rpartition("/")[2]] = model.path
    folders: set[str] = set()
    for path in newest.values():
        described = storage.read_json(f"{storage.current(path, 'train')}/{storage.MODEL}")
        date = described["date"]
        folders |= {Layout(root, date).folder(kind) for kind in MADE_FOR_MODELS}
    return Needed(frozenset(newest.values()), frozenset(folders))


def dated_folders(folder: str) -> list[Dated]:
    """The subfolders that belong to dates."""
    return [Dated(path, date) for date, path in storage.folders_by_date(folder).items()]


def named_folders(date: Dated) -> list[Dated]:
    """The models of a date."""
    return [Dated(path, date.date) for path in storage.folders(date.path).values()]


def _staged(logs: str) -> list[str]:
    """Folders beside the days of raw logs into which a run writes, or has written when it died."""
    found = storage.folders(logs).items()
    return [path for name, path in found if name.startswith(layout.STAGED)]


def _last_change(folder: str) -> datetime.date:
    """The day of the last change of a file in the folder or its subfolders."""
    files, path = files_at(folder)
    below = files.find(path, detail=True).values()
    return max(map(_day, below), default=datetime.date.min)


def _last_change_within(folder: str) -> datetime.date:
    """As `_last_change`; a folder that was made counts too, where folders have a time."""
    files, path = files_at(folder)
    folders = files.find(path, detail=True, withdirs=True).values()
    made = [_day(one) for one in folders if one["type"] == "directory" and _time(one) is not None]
    return max([_last_change(folder), *made])


def _day(file: dict[str, Any]) -> datetime.date:
    """The day of a file's last change; a file of unknown age counts as new."""
    changed = _time(file)
    return datetime.date.max if changed is None else changed.date()


def _time(file: dict[str, Any]) -> datetime.datetime | None:
    """The time of a file's last change, which file systems give by different names and forms."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "modificationTime"):
        value = file.get(name)
        if isinstance(value, datetime.datetime):
            return value
        if isinstance(value, int | float):
            seconds = value / 1000 if value > 1e11 else value
            return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return None


def _remove(paths: list[str]) -> int:
    """Remove folders, in each the pointer first."""
    for path in paths:
        files, inner = files_at(path)
        pointer = f"{inner}/{storage.POINTER}"
        if files.exists(pointer):
            files.rm(pointer)
        files.rm(inner, recursive=True)
        log.info("clean_up: removed %s", path)
    return len(paths)
