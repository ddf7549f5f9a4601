"""Every table's columns, types and comments, in one place.

A table is a Delta table under the root; its name is its path. A split is a folder of plain Parquet
files, which Petastorm reads. Column comments say what a number means.
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
    """A Delta table: its path under the root, its columns and its partition columns.

    Attributes:
        statistics: columns whose smallest and largest value Delta stores for each file, so that
            readers can skip files; None: all columns. They make writing slower.
    """

    name: str
    columns: StructType
    partitions: tuple[str, ...]
    statistics: tuple[str, ...] | None = None


# Raw logs as they are read, before any check: every column may be missing.

RAW_EVENT = StructType(
    [
        column("event_id", STRING, "unique id of the event", True),
        column("event_time", STRING, "ISO 8601, or milliseconds since 1970 in UTC", True),
        column("user_id", STRING, "the user", True),
        column("event_type", STRING, "impression, click, cart or purchase", True),
        column("item_id", STRING, "the item", True),
        column("request_id", STRING, "the page of results it belongs to, if known", True),
        column("position", STRING, "place on that page, from 0", True),
        column("context", STRING_MAP, "context of the event: device, page, …", True),
    ]
)

RAW_ITEM = StructType(
    [
        column("item_id", STRING, "unique id of the item", True),
        column("category", STRING, "category", True),
        column("shop", STRING, "the seller", True),
        column("brand", STRING, "brand", True),
        column("price", DOUBLE, "price in the log's own currency", True),
        column("title", STRING, "title", True),
        column("entities", ArrayType(STRING), "fine-grained features, such as colour", True),
    ]
)

RAW_USER = StructType(
    [
        column("user_id", STRING, "unique id of the user", True),
        column("profile", STRING_MAP, "fields of the profile", True),
    ]
)

TRUTH = StructType(
    [
        column("request_id", STRING, "the simulated request"),
        column("user_id", STRING, "the user"),
        column("item_id", STRING, "the candidate"),
        column("probability", DOUBLE, "the probability with which the click was drawn"),
    ]
)

# Delta tables.

EVENTS = Table(
    "events",
    StructType(
        [
            column("dt", DATE, "day of the folder that holds the event"),
            column("event_id", STRING, "unique id of the event"),
            column("event_time", TIMESTAMP, "when it happened, UTC"),
            column("user_id", STRING, "the user"),
            column("event_type", STRING, "impression, click, cart or purchase"),
            column("item_id", STRING, "the item"),
            column("request_id", STRING, "the page of results it belongs to", True),
            column("position", INTEGER, "place on that page, from 0", True),
            column("context", STRING_MAP, "context of the event: device, page, …", True),
        ]
    ),
    ("dt",),
    statistics=("event_time",),
)

QUARANTINE = Table(
    "quarantine",
    StructType(
        [
            column("dt", DATE, "day of the folder that holds the row"),
            column("reason", STRING, "the first check that the row failed"),
            column("source_file", STRING, "file that holds the row"),
            column(
                "raw", STRING, "the row as it was read; rows of Parquet files and of bots as JSON"
            ),
        ]
    ),
    ("dt",),
)

VALIDATION = Table(
    "validation",
    StructType(
        [
            column("run_date", DATE, "day of the folder that was validated"),
            column("source", STRING, "events, items (the catalogue) or users (the profiles)"),
            column(
                "reason",
                STRING,
                "of a row: clean, repeat, blank, or why it cannot be used; of a value: "
                "unreadable_value or key_twice",
            ),
            column("rows", LONG, "rows of the files with this outcome, or with such a value"),
            column("made_from", STRING, "fingerprint of the files, settings and rules used", True),
            column(
                "field",
                STRING,
                "field that lost a value in rows that are used; null: the count is of whole rows",
                True,
            ),
        ]
    ),
    ("run_date",),
)

VALIDATION_MEASURES = Table(
    "validation_measures",
    StructType(
        [
            column("run_date", DATE, "day of the folder that was validated"),
            column(
                "measure",
                STRING,
                "of events: quarantined_share, events, clicked_share; of the catalogue: "
                "items_rows, items_unusable_share, items_with_…_share; of profiles: users_rows, "
                "users_unusable_share",
            ),
            column("value", DOUBLE, "the value of the day"),
            column(
                "median_before",
                DOUBLE,
                "median of the reference days; null if there are too few",
                True,
            ),
            column(
                "least", DOUBLE, "smallest accepted value, from the limits and the reference days"
            ),
            column("most", DOUBLE, "largest accepted value; null: no limit", True),
            column("passed", BOOLEAN, "false: the day was refused; no other table was changed"),
        ]
    ),
    ("run_date",),
)

VOCABULARIES = Table(
    "vocabularies",
    StructType(
        [
            column("field", STRING, "the vocabulary: item_id, category, user.age, …"),
            column("key", STRING, "the value"),
            column(
                "index", INTEGER, "its index, which never changes; 0 padding, 1 missing, 2 unknown"
            ),
            column("indexed_on", DATE, "the day whose data first held it"),
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
            column("interests", INTEGER, "K, the number of centers at this level"),
            column("marginal", STRING, "batch or user: over whom Alg. 1 took q of eq. 1"),
            column(
                "norm",
                DOUBLE,
                "length at which Alg. 1 held every center, as a multiple of a behaviour's in E; "
                "null: it was free",
                True,
            ),
            column("center", INTEGER, "number of the center, from 0"),
            column("behaviour_share", DOUBLE, "share of behaviours whose nearest center it is"),
            column("user_share", DOUBLE, "share of users with such a behaviour"),
            column(
                "next_share",
                DOUBLE,
                "share of its behaviours whose user's next one is at it too, by chance "
                "behaviour_share; null: none has a next one",
                True,
            ),
            column(
                "mean_weight", DOUBLE, "mean P of its behaviours for it; null: it has none", True
            ),
            column("duplicate", BOOLEAN, "it is at nearly the same place as an earlier center"),
            column("items", ArrayType(STRING), "its nearest items, nearest first"),
            column(
                "categories",
                ArrayType(STRING),
                "categories that its behaviours have more often than others",
            ),
            column(
                "words",
                ArrayType(STRING),
                "entities that its behaviours have more often than others",
            ),
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
            column("user_id", STRING, "the user"),
            column("request_time", TIMESTAMP, "its earliest impression, UTC", True),
            column("item_id", STRING, "the candidate"),
            column("label", INTEGER, "1 if it was clicked within the attribution window"),
            column("score", DOUBLE, "the model's probability of a click"),
            column(
                "history_length",
                INTEGER,
                "behaviours in the history that the model read, at most N",
            ),
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
            column("slice", STRING, "how candidates are divided; all: the whole test window"),
            column("slice_value", STRING, "the part of the slice"),
            column(
                "requests", LONG, "requests in this part; for the oracle, those with a known truth"
            ),
            column(
                "candidates",
                LONG,
                "candidates in this part; for the oracle, those with a known truth",
            ),
            column("clicks", LONG, "clicked candidates in this part"),
            *(column(m.name, DOUBLE, f"{m.comment} ({m.unit})", True) for m in metrics.METRICS),
            column(
                "candidates_from",
                STRING,
                "logged, or drawn by popularity next to the chosen item",
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
            column("run_date", DATE, "the run date; each training reads its test window once"),
            column("model", STRING, "name of the configured model"),
            column("base_model", STRING, "the model it is compared with"),
            column("seeds", INTEGER, "number of trainings, each with its own E and centers"),
            column(
                "learning_rate", DOUBLE, "learning rate of Adam, chosen on the earlier run date"
            ),
            column(
                "epochs", INTEGER, "passes over the training rows, chosen on the earlier run date"
            ),
            column("auc_mean", DOUBLE, "mean of the seeds' exact AUC"),
            column(
                "auc_std",
                DOUBLE,
                "their standard deviation (of a sample); null with one seed",
                True,
            ),
            column("gauc_mean", DOUBLE, "mean of AUC by user, weighted by candidates", True),
            column(
                "users_left_out", INTEGER, "users whose candidates are all clicked or all unclicked"
            ),
            column("logloss_mean", DOUBLE, "mean binary cross entropy in nats"),
            column(
                "relaimpr", DOUBLE, "RelaImpr, % (mean scores); null if Base's AUC <= 0.5", True
            ),
            column("relaimpr_low", DOUBLE, "its 2.5th percentile over draws of users", True),
            column("relaimpr_high", DOUBLE, "its 97.5th percentile over draws of users", True),
            column("parameters", LONG, "number of trained parameters"),
            column(
                "candidates_per_second", DOUBLE, "candidates per second of training, in one thread"
            ),
            column(
                "candidates_from",
                STRING,
                "logged, or drawn by popularity next to the chosen item",
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
            column("run_id", STRING, "identifies the process that ran the step"),
            column("step", STRING, "the job"),
            column("started_at", TIMESTAMP, "start of the step, UTC"),
            column("seconds", DOUBLE, "duration, whatever the outcome"),
            column(
                "outcome",
                STRING,
                "done; skipped (inputs, settings and code unchanged; in old rows: left alone); "
                "refused (exit 3); failed (exit 1)",
            ),
            column("message", STRING, "why the step was refused or failed", True),
            column("rows", LONG, "rows read or written, as the job counts them", True),
            column("counts", STRING_MAP, "all counts of the job, by name"),
            column("settings_hash", STRING, "SHA-256 of all settings"),
            column("code_version", STRING, "version of the package, and SHA-256 of its source"),
            column(
                "inputs", STRING, "versions and settings that the output depends on, as JSON", True
            ),
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
        column("user_id", STRING, "the user; not a feature"),
        column("request_time", TIMESTAMP, "its earliest impression, UTC"),
        column("user_fields", ArrayType(INTEGER, False), "an index for each field of the profile"),
        column("context_fields", ArrayType(INTEGER, False), "an index for each context field"),
        column("history", ArrayType(INTEGER, False), "N item rows, newest last, then 0"),
        column("history_length", INTEGER, "number of real steps in the history"),
        column("candidates", ArrayType(INTEGER, False), "M item rows, then 0"),
        column("labels", ArrayType(INTEGER, False), "1 where the candidate was clicked"),
        column("candidate_count", INTEGER, "number of real candidates"),
        column("candidate_ids", ArrayType(STRING, False), "the log's own item ids, not padded"),
    ]
)

ITEM_ROWS = StructType(
    [
        column(
            "item",
            INTEGER,
            "number of the row, in these splits only: a version of an item; 0 padding, 1 missing, "
            "2 unknown",
        ),
        column("key", STRING, "the log's own item id", True),
        column(
            "valid_from",
            DATE,
            "first day of this version; null: it holds from the first day on",
            True,
        ),
        *(column(name, INTEGER, f"index of {name} in its vocabulary") for name in ITEM_FIELDS),
        column("entities", ArrayType(INTEGER, False), "indices of its entities, then 0"),
    ]
)
