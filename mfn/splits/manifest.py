"""The manifest of a day's splits: what readers need to know without opening a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfn.schema import FIRST_INDEX
from mfn.settings import Settings
from mfn.splits.items import ItemTable, PriceBuckets
from mfn.splits.requests import SPLITS
from mfn.splits.vocabulary import CATALOGUE_FIELDS, Fingerprint, event_fields, fingerprint_of
from mfn.splits.windows import Windows
from mfn.splits.writing import COUNTS, Files, counts_of, rows_of


def manifest(
    settings: Settings,
    windows: Windows,
    files: Mapping[str, Files],
    counts: Mapping[str, int],
    vocabularies: Mapping[str, Fingerprint],
    table: ItemTable,
    buckets: PriceBuckets,
) -> dict[str, Any]:
    """The manifest, ready to be written as JSON.

    Args:
        settings, windows: those of the run.
        files, counts: as `writing.write_rows` gave them.
        vocabularies: of the fields that have entries; others are given as empty.
        table, buckets: of the items.
    """
    empty = Fingerprint(FIRST_INDEX, fingerprint_of([]))
    known = {**vocabularies, "price": buckets.fingerprint}
    fields = [*CATALOGUE_FIELDS, "price", *event_fields(settings)]
    chosen = settings.splits
    return {
        "date": settings.date.isoformat(),
        "windows": {name: _days(getattr(windows, name)) for name in ("history", *SPLITS)},
        "splits": {
            name: {"rows": rows_of(files[name]), **counts_of(name, counts), "files": files[name]}
            for name in SPLITS
        },
        "vocabularies": {name: known.get(name, empty).as_json() for name in fields},
        "price_boundaries": list(buckets.boundaries),
        "item_fields": list(table.varying),
        "constant_fields": list(table.constant),
        "user_fields": list(chosen.user_fields),
        "context_fields": list(chosen.context_fields),
        "history_length": chosen.history_length,
        "candidates": chosen.candidates,
        "entities": chosen.entities,
        **{name: counts[name] for name in COUNTS},
        "settings": {
            "windows": settings.windows.model_dump(mode="json"),
            "splits": chosen.model_dump(mode="json"),
            "day_time_zone": settings.logs.day_time_zone,
        },
    }


def _days(window: Any) -> list[str] | None:
    return None if window is None else [day.isoformat() for day in window]
