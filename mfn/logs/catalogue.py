"""Check the snapshots of the catalogue and of the profiles: count every row and every lost value.

A snapshot is not cleaned: `build_splits` reads its files, and takes what it can. Here its rows are
counted by outcome (clean, blank, why it cannot be read, or no id), and so are the values that are
lost in rows that are used: those that are not of their field's type, such as a price "on request",
and those of a key that is given twice. The counts stand in the table `validation`. Gates refuse a
snapshot that is unlike those of the days before.

A snapshot is checked once, and again if its files, the settings or the rules changed. No shuffle
but that of the counts.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import MapType, StructType

from mfn.fingerprint import of_source, of_values
from mfn.logs import gates, parquet, raw, snapshots, values
from mfn.logs.raw import BLANK, DAY, UNREADABLE_LINE
from mfn.schema import RAW_ITEM, RAW_USER
from mfn.settings import LogsKind, Settings
from mfn.windows import windows

CLEAN = "clean"
UNREADABLE_VALUE, KEY_TWICE = "unreadable_value", "key_twice"


@dataclass(frozen=True)
class Kind:
    """A kind of snapshot.

    Attributes:
        name: of its folder and its setting.
        schema: the fields that are read; the first is the id.
        measured: the fields whose share of rows is measured.
    """

    name: LogsKind
    schema: StructType
    measured: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The field that identifies a row."""
        return str(self.schema.names[0])


KINDS = (Kind("items", RAW_ITEM, gates.ITEM_FIELDS_MEASURED), Kind("users", RAW_USER))


@dataclass(frozen=True)
class Counted:
    """The counts of one snapshot.

    Attributes:
        rows: by outcome; they sum to the rows of its files.
        lost: values by field and reason, in rows that are clean; those that occur.
        measured: rows that have the field, for the fields that are measured.
    """

    rows: Mapping[str, int]
    lost: Mapping[tuple[str, str], int]
    measured: Mapping[str, int]

    def measures(self, kind: Kind) -> dict[str, float]:
        """The values that the gates check."""
        clean = self.rows[CLEAN]
        filled = sum(self.rows.values()) - self.rows.get(BLANK, 0)
        found = {
            f"{kind.name}_rows": float(clean),
            f"{kind.name}_unusable_share": 1 - clean / filled if filled else 0.0,
        }
        for name, number in self.measured.items():
            if clean:
                found[f"{kind.name}_with_{name}_share"] = number / clean
        return found


@dataclass(frozen=True)
class Snapshot:
    """A snapshot to check."""

    kind: Kind
    folder: raw.DayFolder

    @property
    def fingerprint(self) -> str:
        """Of its files, and of the rules by which they are read."""
        rules = of_source(raw, parquet, values, snapshots, sys.modules[__name__])
        return of_values(self.folder.fingerprint, rules)


def of_run(settings: Settings) -> list[Snapshot]:
    """The snapshots of the run's windows, and the newest of each kind at their start.

    Raises:
        DataRefused: as `raw.day_folders`.
    """
    first = windows(settings.date, settings.windows).days[0]
    found = []
    for kind in KINDS:
        folder = settings.logs_folder(kind.name)
        days = snapshots.used(snapshots.days_of(folder, settings.date), first)
        found += [Snapshot(kind, one) for one in raw.day_folders(folder, days)]
    return found


def count(
    spark: SparkSession, settings: Settings, found: Sequence[Snapshot]
) -> Iterator[tuple[Snapshot, Counted]]:
    """Count the rows and the lost values of these snapshots: one pass for each kind."""
    for kind in KINDS:
        chosen = {one.folder.day: one for one in found if one.kind == kind}
        if not chosen:
            continue
        folders = [one.folder for one in chosen.values()]
        rows = raw.read_rows(spark, settings.logs_folder(kind.name), folders, kind.schema.names)
        by_day = {row[DAY]: row.asDict() for row in counts(rows, kind).collect()}
        for day, one in chosen.items():
            yield one, _counted(by_day.get(day, {}), kind)


def counts(rows: DataFrame, kind: Kind) -> DataFrame:
    """One row for each day, with a column for each count that `_counted` names."""
    # Values first, and then the counts: else each count would hold the expressions of its values.
    values_of_rows = rows.select(DAY, "fault", *_values(kind))
    aggregates = [
        F.count_if(condition).alias(name) for name, condition in _conditions(kind).items()
    ]
    return values_of_rows.groupBy(DAY).agg(*aggregates)


def _values(kind: Kind) -> Iterator[Column]:
    """For each field whether it has a value, whether it was given, and whether given twice."""
    for field in kind.schema:
        text = F.col(field.name)
        twice = F.coalesce(F.array_contains("twice", field.name), F.lit(False))
        if isinstance(field.dataType, MapType):
            twice = twice | values.keys_twice(values.parsed_map(text))
        yield values.known(field).alias(f"{field.name} known")
        yield values.given(text).alias(f"{field.name} given")
        yield twice.alias(f"{field.name} twice")


def _conditions(kind: Kind) -> dict[str, Column]:
    """The condition of each count, over the columns of `_values`."""
    readable, known = F.col("fault").isNull(), F.col(f"{kind.id} known")
    clean = readable & known
    found = {
        CLEAN: clean,
        f"missing_{kind.id}": readable & ~known,
        **{fault: F.col("fault") == fault for fault in (BLANK, *UNREADABLE_LINE)},
    }
    for name in kind.schema.names:
        lost = F.col(f"{name} given") & ~F.col(f"{name} known")
        found[f"{name} {UNREADABLE_VALUE}"] = clean & lost
        found[f"{name} {KEY_TWICE}"] = clean & F.col(f"{name} twice")
    for name in kind.measured:
        found[f"{name} measured"] = clean & F.col(f"{name} known")
    return found


def _counted(row: Mapping[str, int], kind: Kind) -> Counted:
    """The counts of one row of `counts`; all are 0 if a day has no row."""
    outcomes = (CLEAN, BLANK, f"missing_{kind.id}", *UNREADABLE_LINE)
    return Counted(
        {name: row.get(name, 0) for name in outcomes if name in (CLEAN, BLANK) or row.get(name)},
        {
            (name, reason): row[f"{name} {reason}"]
            for name in kind.schema.names
            for reason in (UNREADABLE_VALUE, KEY_TWICE)
            if row.get(f"{name} {reason}")
        },
        {name: row.get(f"{name} measured", 0) for name in kind.measured},
    )


def job_counts(counted: Sequence[tuple[Snapshot, Counted]]) -> dict[str, int]:
    """The job's counts: rows that are used and not used, and lost values, by kind."""
    found: dict[str, int] = {}
    for one, of in counted:
        clean = of.rows[CLEAN]
        added = {
            f"{one.kind.name}": clean,
            f"{one.kind.name}_unusable": sum(of.rows.values()) - clean - of.rows[BLANK],
            **{f"{one.kind.name}_{field}_{why}": n for (field, why), n in of.lost.items()},
        }
        for name, number in added.items():
            found[name] = found.get(name, 0) + number
    return found


def measures(
    counted: Sequence[tuple[Snapshot, Counted]],
) -> dict[datetime.date, dict[str, float]]:
    """The values that the gates check, by day."""
    found: dict[datetime.date, dict[str, float]] = {}
    for one, of in counted:
        found.setdefault(one.folder.day, {}).update(of.measures(one.kind))
    return found
