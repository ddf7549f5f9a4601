"""Every table's columns, types and comments, in one place.

A table is a Delta table under the root, at its name; a split is a folder of plain Parquet files,
which Petastorm reads. Column comments say what a number means.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from mfn import metrics
from mfn.indices import ITEM_FIELDS

STRING, LONG, INTEGER, FLOAT, DOUBLE = (
    StringType(),
    LongType(),
    IntegerType(),
    FloatType(),
    DoubleType(),
)
DATE, TIMESTAMP, BOOLEAN = DateType(), TimestampType(), BooleanType()
STRING_MAP = MapType(STRING, STRING)


def column(name: str, kind: DataType, comment: str, nullable: bool = False) -> StructField:
    """One column with its comment."""
    return StructField(name, kind, nullable, {"comment": comment})


@dataclass(frozen=True)
class Table:
    """A Delta table: its path under the root, its columns, and what it is partitioned by.

    statistics: columns of which Delta keeps the least and largest value of each file, so that
    readers may skip files; None for all. They cost time where rows are written.
    """

    name: str
    columns: StructType
    partitions: tuple[str, ...]
    statistics: tuple[str, ...] | None = None


# Raw logs, as they are read before anything is believed: all columns may be missing.

RAW_EVENT = StructType(
    [
        column("event_id", STRING, "unique id of the event", True),
        column("event_time", STRING, "ISO 8601, or milliseconds since 1970 in UTC", True),
        column("user_id", STRING, "who", True),
        column("event_type", STRING, "impression, click, cart or purchase", True),
        column("item_id", STRING, "on which item", True),
        column("request_id", STRING, "the page of results it belongs to, if known", True),
        column("position", STRING, "place on that page, from 0", True),
        column("context", STRING_MAP, "what the log says of the moment: device, page, …", True),
    ]
)

RAW_ITEM = StructType(
    [
        column("item_id", STRING, "unique id of the item", True),
        column("category", STRING, "category", True),
        column("shop", STRING, "who sells it", True),
        column("brand", STRING, "brand", True),
        column("price", DOUBLE, "price in the log's own currency", True),
        column("title", STRING, "title", True),
        column("entities", ArrayType(STRING), "fine-grained features, such as colour", True),
    ]
)

RAW_USER = StructType(
    [
        column("user_id", STRING, "unique id of the user", True),
        column("profile", STRING_MAP, "what is known of the user", True),
    ]
)

TRUTH = StructType(
    [
        column("request_id", STRING, "the simulated request"),
        column("item_id", STRING, "the candidate"),
        column("probability", DOUBLE, "the probability with which the click was drawn"),
    ]
)

# Delta tables.

EVENTS = Table(
    "events",
    StructType(
        [
            column("dt", DATE, "day of the folder that the event came in"),
            column("event_id", STRING, "unique id of the event"),
            column("event_time", TIMESTAMP, "when it happened, UTC"),
            column("user_id", STRING, "who"),
            column("event_type", STRING, "impression, click, cart or purchase"),
            column("item_id", STRING, "on which item"),
            column("request_id", STRING, "the page of results it belongs to", True),
            column("position", INTEGER, "place on that page, from 0", True),
            column("context", STRING_MAP, "what the log says of the moment", True),
        ]
    ),
    ("dt",),
    statistics=("event_time",),
)

QUARANTINE = Table(
    "quarantine",
    StructType(
        [
            column("dt", DATE, "day of the folder that the row came in"),
            column("reason", STRING, "the first check that the row failed"),
            column("source_file", STRING, "file that it came from"),
            column("raw", STRING, "the row as it was read; of Parquet and of bots, as JSON"),
        ]
    ),
    ("dt",),
)

VALIDATION = Table(
    "validation",
    StructType(
        [
            column("run_date", DATE, "day of the folder that was validated"),
            column("source", STRING, "events"),
            column("reason", STRING, "clean, repeat, blank, or why rows went to quarantine"),
            column("rows", LONG, "rows of the raw log with this outcome"),
            column("made_from", STRING, "fingerprint of the files, settings and rules used", True),
        ]
    ),
    ("run_date",),
)

VALIDATION_MEASURES = Table(
    "validation_measures",
    StructType(
        [
            column("run_date", DATE, "day of the folder that was validated"),
            column("measure", STRING, "quarantined_share, events or clicked_share"),
            column("value", DOUBLE, "what was measured of the day"),
            column("median_before", DOUBLE, "median of the days before; null if too few", True),
            column("least", DOUBLE, "the least that it may be, by limits and days before"),
            column("most", DOUBLE, "the most that it may be; null without limit", True),
            column("passed", BOOLEAN, "false refused the day, of which no other table tells then"),
        ]
    ),
    ("run_date",),
)

VOCABULARIES = Table(
    "vocabularies",
    StructType(
        [
            column("field", STRING, "what is indexed: item, item_id, category, user.age, …"),
            column("key", STRING, "the value"),
            column("index", INTEGER, "its index, for ever; 0 padding, 1 missing, 2 unknown"),
            column("indexed_on", DATE, "the day whose data brought it in"),
        ]
    ),
    ("field",),
)

INTEREST_CENTERS = Table(
    "interest_centers",
    StructType(
        [
            column("run_date", DATE, "the run date"),
            column("level", STRING, "category or fine"),
            column("interests", INTEGER, "K, how many centers there are at this level"),
            column("center", INTEGER, "which of them, from 0"),
            column("behaviour_share", DOUBLE, "share of behaviours that are nearest to it"),
            column("user_share", DOUBLE, "share of users with such a behaviour"),
            column("items", ArrayType(STRING), "its nearest items, the nearest first"),
            column("categories", ArrayType(STRING), "what its behaviours have more often"),
            column("words", ArrayType(STRING), "entities that they have more often"),
        ]
    ),
    ("run_date",),
)

PREDICTIONS = Table(
    "predictions",
    StructType(
        [
            column("run_date", DATE, "the run date"),
            column("model", STRING, "name of the configured model"),
            column("request_id", STRING, "the request"),
            column("user_id", STRING, "who made it"),
            column("item_id", STRING, "the candidate"),
            column("label", INTEGER, "1 if it was clicked within the attribution window"),
            column("score", DOUBLE, "the model's probability of a click"),
            column("history_length", INTEGER, "behaviours the model saw of the user, at most N"),
        ]
    ),
    ("run_date", "model"),
)

METRICS = Table(
    "evaluation/metrics",
    StructType(
        [
            column("run_date", DATE, "the run date"),
            column(
                "model",
                STRING,
                "configured model; popularity is the number of earlier behaviours, oracle the "
                "true probability",
            ),
            column("slice", STRING, "how the candidates were chosen; all is the whole test window"),
            column("slice_value", STRING, "which of the slice's parts"),
            column("requests", LONG, "requests in it; the oracle's are those with a known truth"),
            column("candidates", LONG, "candidates in it; the oracle's likewise"),
            column("clicks", LONG, "clicked candidates in it"),
            *(column(m.name, DOUBLE, f"{m.comment} ({m.unit})", True) for m in metrics.METRICS),
            column(
                "candidates_from",
                STRING,
                "whence candidates come: logged, or drawn by popularity beside what was chosen",
                True,
            ),
        ]
    ),
    ("run_date",),
)

COMPARISONS = Table(
    "evaluation/comparisons",
    StructType(
        [
            column("run_date", DATE, "the run date"),
            column("model", STRING, "as in evaluation/metrics"),
            column("base_model", STRING, "the model it is compared with"),
            column("slice", STRING, "as in evaluation/metrics"),
            column("slice_value", STRING, "as in evaluation/metrics"),
            column("auc", DOUBLE, "the model's AUC", True),
            column("base_auc", DOUBLE, "the base model's AUC", True),
            column("relaimpr", DOUBLE, "RelaImpr, % (eq. 13); null if Base's AUC <= 0.5", True),
        ]
    ),
    ("run_date",),
)

OVER_SEEDS = Table(
    "evaluation/over_seeds",
    StructType(
        [
            column("run_date", DATE, "the run date, whose test window each training read once"),
            column("model", STRING, "name of the configured model"),
            column("base_model", STRING, "the model it is compared with"),
            column("seeds", INTEGER, "trainings, each with an E and centers of its own"),
            column("learning_rate", DOUBLE, "Adam's, as chosen on the earlier run date"),
            column("epochs", INTEGER, "passes over the training rows, chosen likewise"),
            column("auc_mean", DOUBLE, "mean of the seeds' exact AUC"),
            column("auc_std", DOUBLE, "their spread (of a sample); null of one seed", True),
            column("gauc_mean", DOUBLE, "mean of AUC by user, weighted by candidates", True),
            column("users_left_out", INTEGER, "users without an AUC of their own"),
            column("logloss_mean", DOUBLE, "mean binary cross entropy in nats"),
            column(
                "relaimpr", DOUBLE, "RelaImpr, % (mean scores); null if Base's AUC <= 0.5", True
            ),
            column("relaimpr_low", DOUBLE, "its 2.5th percentile over draws of users", True),
            column("relaimpr_high", DOUBLE, "its 97.5th percentile over draws of users", True),
            column("parameters", LONG, "numbers that are learnt"),
            column("candidates_per_second", DOUBLE, "of training, in one thread"),
            column(
                "candidates_from",
                STRING,
                "whence candidates come: logged, or drawn by popularity beside what was chosen",
                True,
            ),
        ]
    ),
    ("run_date",),
)

RUNS = Table(
    "evaluation/runs",
    StructType(
        [
            column("run_date", DATE, "the run date"),
            column("run_id", STRING, "the process that ran the step, alone or with others"),
            column("step", STRING, "the job"),
            column("started_at", TIMESTAMP, "when it began, UTC"),
            column("seconds", DOUBLE, "until it ended, however it did"),
            column(
                "outcome",
                STRING,
                "done; skipped (inputs, settings and code unchanged; in old rows: left alone); "
                "refused (exit 3); failed (exit 1)",
            ),
            column("message", STRING, "why it was refused or failed", True),
            column("rows", LONG, "rows that it read or wrote, as the job counts them", True),
            column("counts", STRING_MAP, "all that it counted, by name"),
            column("settings_hash", STRING, "SHA-256 of all settings"),
            column("code_version", STRING, "version of the package, and SHA-256 of its source"),
            column("inputs", STRING, "versions and settings that its output follows from", True),
        ]
    ),
    ("run_date",),
)

TABLES = (
    EVENTS,
    QUARANTINE,
    VALIDATION,
    VALIDATION_MEASURES,
    VOCABULARIES,
    INTEREST_CENTERS,
    PREDICTIONS,
    METRICS,
    COMPARISONS,
    OVER_SEEDS,
    RUNS,
)

# Splits, plain Parquet.

REQUEST_ROWS = StructType(
    [
        column("request_id", STRING, "the request; a long slate is several rows of it"),
        column("user_id", STRING, "who made it; no feature"),
        column("request_time", TIMESTAMP, "its earliest impression, UTC"),
        column("user_fields", ArrayType(INTEGER, False), "an index for each field of the profile"),
        column("context_fields", ArrayType(INTEGER, False), "an index for each context field"),
        column("history", ArrayType(INTEGER, False), "N item rows, newest last, then 0"),
        column("history_length", INTEGER, "how many of them are real"),
        column("candidates", ArrayType(INTEGER, False), "M item rows, then 0"),
        column("labels", ArrayType(INTEGER, False), "1 where the candidate was clicked"),
        column("candidate_count", INTEGER, "how many candidates are real"),
        column("candidate_ids", ArrayType(STRING, False), "the log's own item ids, not padded"),
    ]
)

ITEM_ROWS = StructType(
    [
        column("item", INTEGER, "the item's row, for ever; 0 padding, 1 missing, 2 unknown"),
        column("key", STRING, "the log's own item id", True),
        *(column(name, INTEGER, f"index of {name} in its vocabulary") for name in ITEM_FIELDS),
        column("entities", ArrayType(INTEGER, False), "indices of its entities, then 0"),
    ]
)
