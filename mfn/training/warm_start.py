"""Warm start: a model starts from the parameters of an earlier day's; new ids get new rows."""

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
    """Folder of the newest model of this name for a date before the run date; None without one."""
    for date in reversed(storage.folders_by_date(layout.all_dates(settings.root, layout.MODELS))):
        if date < settings.date:
            earlier = settings.model_copy(update={"date": date})
            with contextlib.suppress(errors.NotPublished):
                return storage.current(earlier.layout.model(name), "train")
    return None


_FIELDS = ("item_fields", "user_fields", "context_fields", "history_length")
"""Parts of a schema that determine shapes of parameters, in addition to vocabulary sizes."""


def check_start(
    spark: SparkSession, settings: Settings, splits: Splits, name: str, folder: str
) -> None:
    """Check that an earlier model can be the start of today's model.

    It must have the same settings and fields, and its vocabularies must be the first entries of
    today's. The check reads the table of vocabularies once.

    Raises:
        WrongArtifact: the message says what differs.
    """
    earlier = storage.read_json(f"{folder}/{storage.MODEL}")
    vocabularies = earlier["schema"]["vocabularies"]
    before = earlier["settings"] | {key: earlier["schema"][key] for key in _FIELDS}
    before |= {"embeddings.dimension": earlier["dimension"]}
    now = settings.models[name].model_dump(mode="json")
    now |= {key: splits.manifest[key] for key in _FIELDS}
    now |= {"embeddings.dimension": settings.embeddings.dimension}
    before |= {"matches.enabled": earlier["matches"]["enabled"]}
    now |= {"matches.enabled": settings.matches.enabled}
    before |= {f"the vocabulary {field}": one for field, one in vocabularies.items()}
    now |= {
        f"the vocabulary {field}": one
        for field, one in _first_entries(spark, settings, splits, vocabularies).items()
    }
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise artifact.WrongArtifact(
                f"{folder}: made with {key} of {before.get(key)}, which is now {now.get(key)}; set "
                "train.warm_start to false to train from scratch"
            )


def _first_entries(
    spark: SparkSession,
    settings: Settings,
    splits: Splits,
    earlier: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """By field, size and fingerprint of the first entries of today's vocabulary.

    There are as many entries as in the earlier vocabulary. Fields of numbers have no entries there,
    but quantile buckets: only their number is compared, since their edges may move.
    """
    sizes = {field: int(one["size"]) for field, one in earlier.items()}
    size = F.create_map(*map(F.lit, itertools.chain.from_iterable(sizes.items())))
    entries = tables.read(spark, settings.root, VOCABULARIES, "build_splits")
    first_entries = fingerprints(entries.where(F.col("index") < size[F.col("field")]))
    today = splits.manifest["vocabularies"]
    return {
        field: first_entries[field].as_json()
        if field in first_entries
        else {
            **earlier[field],
            "size": FIRST_INDEX
            if size == FIRST_INDEX
            else today.get(field, earlier[field])["size"],
        }
        for field, size in sizes.items()
    }
