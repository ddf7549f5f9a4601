"""A model that starts from an earlier day's, with rows of its own for ids that are new since."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mfn import errors, layout, storage, tables
from mfn.indices import FIRST_INDEX
from mfn.models import artifact
from mfn.schema import VOCABULARIES
from mfn.settings import Settings
from mfn.splits.published import Splits
from mfn.splits.vocabulary import fingerprints


def newest_before(settings: Settings, name: str) -> str | None:
    """The folder of the newest model of this name published for a date before the run date."""
    for date in reversed(storage.folders_by_date(layout.all_dates(settings.root, layout.MODELS))):
        if date < settings.date:
            earlier = settings.model_copy(update={"date": date})
            with contextlib.suppress(errors.NotPublished):
                return storage.current(earlier.layout.model(name), "train")
    return None


_FIELDS = ("item_fields", "user_fields", "context_fields", "history_length")
"""What of a schema the shapes of parameters follow from, beside the sizes of vocabularies."""


def refuse_another(
    spark: SparkSession, settings: Settings, splits: Splits, name: str, folder: str
) -> None:
    """Refuse a model of other settings or fields, or whose indices are not the first of today's.

    This is one pass over the table of vocabularies.

    Raises:
        WrongArtifact: it says what differs, and how.
    """
    made = storage.read_json(f"{folder}/{storage.MODEL}")
    vocabularies = made["schema"]["vocabularies"]
    before = made["settings"] | {key: made["schema"][key] for key in _FIELDS}
    before |= {"embeddings.dimension": made["dimension"]}
    now = settings.models[name].model_dump(mode="json")
    now |= {key: splits.manifest[key] for key in _FIELDS}
    now |= {"embeddings.dimension": settings.embeddings.dimension}
    before |= {f"the vocabulary {field}": one for field, one in vocabularies.items()}
    now |= {
        f"the vocabulary {field}": one
        for field, one in _first_entries(spark, settings, splits, vocabularies).items()
    }
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise artifact.WrongArtifact(
                f"{folder}: made with {key} of {before.get(key)}, which is now {now.get(key)}; set "
                "train.warm_start to false to train from the beginning"
            )


def _first_entries(
    spark: SparkSession, settings: Settings, splits: Splits, made: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What today's vocabularies were when they had as many entries.

    Of numbers there are as many quantile buckets as before, or it says so; their edges may move.
    """
    sizes = {field: int(one["size"]) for field, one in made.items()}
    size = F.create_map(*map(F.lit, itertools.chain.from_iterable(sizes.items())))
    entries = tables.read(spark, settings.root, VOCABULARIES, "build_splits")
    found = fingerprints(entries.where(F.col("index") < size[F.col("field")]))
    used = splits.manifest["vocabularies"]
    return {
        field: found[field].as_json()
        if field in found
        else {
            **made[field],
            "size": FIRST_INDEX if size == FIRST_INDEX else used.get(field, made[field])["size"],
        }
        for field, size in sizes.items()
    }
