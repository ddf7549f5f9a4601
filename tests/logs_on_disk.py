"""Write clean events and catalogue snapshots, and read published splits."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from mfn import storage, tables
from mfn.indices import UNKNOWN
from mfn.logs import snapshots
from mfn.schema import EVENTS, VALIDATION
from mfn.settings import Settings

DAY = datetime.timedelta(days=1)
Event = dict[str, Any]


class Logs:
    """Raw catalogue and clean events of a root, in the state after `validate_logs`."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self.spark, self.settings = spark, settings

    def events(self, events: Sequence[Event]) -> None:
        """Replace the clean events of all days that occur in `events`."""
        rows = [
            (
                event["dt"],
                event["event_id"],
                event["time"],
                event["user"],
                event["type"],
                event["item"],
                event.get("request"),
                event.get("position"),
                event.get("context"),
            )
            for event in events
        ]
        days = sorted({event["dt"] for event in events})
        frame = self.spark.createDataFrame(rows, EVENTS.columns)
        tables.replace(frame, self.settings.root, EVENTS, {"dt": days})

    def validated(self, days: Sequence[datetime.date]) -> None:
        """Mark these days as validated, with their snapshots and those that are there now."""
        self._validated(days, ("events", "items", "users"))
        there = {
            day
            for kind in ("items", "users")
            for day in snapshots.days_of(self.settings.logs_folder(kind), datetime.date.max)
        }
        if more := sorted(there - set(days)):
            self._validated(more, ("items", "users"))

    def _validated(self, days: Sequence[datetime.date], sources: Sequence[str]) -> None:
        rows = [(day, source, "clean", 1, "as drawn", None) for day in days for source in sources]
        frame = self.spark.createDataFrame(rows, VALIDATION.columns)
        keys: dict[str, Sequence[datetime.date | str]] = {"run_date": days, "source": sources}
        tables.replace(frame, self.settings.root, VALIDATION, keys)

    def catalogue(self, day: datetime.date, items: Sequence[dict[str, Any]]) -> None:
        """Write one snapshot of the catalogue as JSON lines."""
        self._lines("items", day, items)

    def users(self, day: datetime.date, users: Sequence[dict[str, Any]]) -> None:
        """Write one snapshot of profiles as JSON lines."""
        self._lines("users", day, users)

    def _lines(self, kind: Any, day: datetime.date, rows: Sequence[dict[str, Any]]) -> None:
        folder = Path(self.settings.logs_folder(kind), f"dt={day}")
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        Path(folder, "part-00000.json").write_text(text)
        Path(folder, "_SUCCESS").touch()


class Published:
    """The current splits of a date."""

    def __init__(self, settings: Settings, date: datetime.date | None = None) -> None:
        day = date or settings.date
        self.folder = storage.current(f"{settings.root}/splits/{day}", "build_splits")
        self.manifest = storage.read_json(f"{self.folder}/manifest.json")

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Rows of a split in the order of the manifest; reads only files listed there."""
        parts = [
            pq.read_table(f"{self.folder}/{split}/{file['name']}")
            for file in self.manifest["splits"][split]["files"]
        ]
        rows: list[dict[str, Any]] = pa.concat_tables(parts).to_pylist() if parts else []
        return rows

    def items(self) -> list[dict[str, Any]]:
        """The item table: row n is element n."""
        rows: list[dict[str, Any]] = pq.read_table(f"{self.folder}/items").to_pylist()
        return rows

    def row_of(self) -> Callable[[str, datetime.date], int]:
        """A function that gives the row of an item on a day, by the table's own days."""
        versions: dict[str, list[tuple[datetime.date, int]]] = {}
        for row in self.items():
            since = row["valid_from"] or datetime.date.min
            versions.setdefault(row["key"], []).append((since, row["item"]))

        def of(item: str, day: datetime.date) -> int:
            known = [one for one in versions.get(item, []) if one[0] <= day]
            return max(known)[1] if known else UNKNOWN

        return of

    def digests(self, *parts: str) -> dict[str, str]:
        """SHA-256 of every file in these folders, or of all files and the manifest.

        Parquet's footer is left out: the JVM decides on the order of the encodings listed there.
        """
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(_data(path)).hexdigest()
            for name in parts or ("",)
            for path in sorted(Path(self.folder, name).rglob("*"))
            if path.suffix in (".parquet", ".json")
        }


def _data(path: Path) -> bytes:
    """A file's content, without the footer if it is Parquet."""
    content = path.read_bytes()
    if path.suffix != ".parquet":
        return content
    return content[: -8 - int.from_bytes(content[-8:-4], "little")]
