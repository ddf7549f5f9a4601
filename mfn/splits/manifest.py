"""The manifest of a day's splits: what readers need before they open a data file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfn.indices import FIRST_INDEX
from mfn.schema import REQUEST_ROWS
from mfn.settings import Settings
from mfn.splits.buckets import Buckets
from mfn.splits.items import ItemTable
from mfn.splits.requests import SPLITS
from mfn.splits.vocabulary import CATALOGUE_FIELDS, Fingerprint, event_fields, fingerprint_of
from mfn.splits.writing import COUNTS, Files, counts_of, rows_of
from mfn.windows import Windows


def manifest(
    settings: Settings,
    windows: Windows,
    files: Mapping[str, Files],
    counts: Mapping[str, int],
    vocabularies: Mapping[str, Fingerprint],
    table: ItemTable,
    buckets: Mapping[str, Buckets],
    inputs: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest as a value for JSON.

    Args:
        settings, windows: of the run.
        files, counts: results of `writing.write_rows`.
        vocabularies: of the fields that have entries; the manifest gives other fields as empty.
        table: summary of the item table.
        buckets: of the price and of each numeric field.
        inputs: versions of the inputs.
    """
    empty = Fingerprint(FIRST_INDEX, fingerprint_of([]))
    known = {**vocabularies, **{name: of.fingerprint for name, of in buckets.items()}}
    fields = [*CATALOGUE_FIELDS, *event_fields(settings), *buckets]
    chosen = settings.splits
    return {
        "date": settings.date.isoformat(),
        "windows": {name: _days(getattr(windows, name)) for name in ("history", *SPLITS)},
        "splits": {
            name: {"rows": rows_of(files[name]), **counts_of(name, counts), "files": files[name]}
            for name in SPLITS
        },
        "vocabularies": {name: known.get(name, empty).as_json() for name in fields},
        "boundaries": {name: list(of.boundaries) for name, of in buckets.items()},
        "item_rows": table.rows,
        "listed_from": table.listed_from,
        "item_fields": list(table.varying),
        "constant_fields": list(table.constant),
        "user_fields": list(chosen.all_user_fields),
        "context_fields": list(chosen.all_context_fields),
        "history_length": chosen.history_length,
        "candidates": chosen.candidates,
        "entities": chosen.entities,
        "negative_sampling_rate": chosen.negative_sampling_rate,
        "schema": {field.name: field.dataType.simpleString() for field in REQUEST_ROWS},
        "inputs": inputs,
        **{name: counts[name] for name in COUNTS},
        "settings": {
            "windows": settings.windows.model_dump(mode="json"),
            "splits": chosen.model_dump(mode="json"),
            "day_time_zone": settings.logs.day_time_zone,
        },
    }


def _days(window: Any) -> list[str] | None:
    return None if window is None else [day.isoformat() for day in window]
