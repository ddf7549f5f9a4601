"""The one tree of settings: their types, defaults, meanings and checks.

`mfn.configuration.load_settings` reads them from a file, the environment and arguments.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from mfn import locations
from mfn.layout import Layout
from mfn.models.settings import NAMED_MODELS, MatchesSettings, ModelSettings
from mfn.settings_types import (
    Change,
    KeptShare,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Share,
    Strict,
)

SECRET_NAME = re.compile(
    r"secret|passw|pwd|passphrase|token|(access|api|private|account)[._-]?key|encryption[.]key$"
    r"|[.]sas[.]",
    re.IGNORECASE,
)
"""Names of options that hold a secret, as Spark and the clients of object stores use them."""
SECRET_VALUE = re.compile(
    r"(secret|passw|pwd|passphrase|token|api[._-]?key)[^\s=]*=", re.IGNORECASE
)
"""A secret among Java options."""

LogsKind = Literal["events", "items", "users", "truth"]
"""Kinds of raw logs; each has its own folder."""

LogFormat = Literal["plain", "json"]

CandidatesFrom = Literal["logged", "drawn by popularity"]
"""Where candidates come from: logged impressions, or sampled negatives next to a choice."""

RESERVED_NAMES = {
    "oracle": "the true probabilities",
    "popularity": "the number of earlier behaviours",
}
"""Rows of the tables of results that are not models, so no model can have these names."""


def _known_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("expected the name of a time zone, such as UTC or Europe/Paris") from error
    return name


def _day_of_the_calendar(date: Any) -> Any:
    """Refuse numbers, which pydantic would read as seconds since 1970."""
    if date is None or isinstance(date, datetime.date):
        return date
    try:
        return datetime.datetime.strptime(str(date), "%Y-%m-%d").date()
    except ValueError as error:
        raise ValueError("expected a day of the calendar as YYYY-MM-DD") from error


class SparkSettings(Strict):
    """The Spark session; options given to spark-submit take precedence."""

    master: str = Field("local[*]", description="Spark master; not used under spark-submit")
    driver_memory: str = Field(
        "3g", description="heap of the driver, such as 3g; not used under spark-submit"
    )
    shuffle_partitions: PositiveInt = Field(
        200,
        description="number of partitions of a shuffle; a small multiple of the slots works well",
    )
    options: dict[str, str] = Field({}, description="other Spark options by their own names")

    @field_validator("driver_memory")
    @classmethod
    def _size(cls, memory: str) -> str:
        if not re.fullmatch(r"\d+[kmgt]", memory):
            raise ValueError("expected a size such as 3g or 512m")
        return memory

    @field_validator("options", mode="before")
    @classmethod
    def _as_spark_writes_them(cls, options: Any) -> Any:
        """YAML's true and 4 are Spark's "true" and "4"."""
        if not isinstance(options, Mapping):
            return options
        return {
            key: str(value).lower() if isinstance(value, bool | int | float) else value
            for key, value in options.items()
        }


class LogsSettings(Strict):
    """Where the raw logs are: each folder holds one folder dt=YYYY-MM-DD for each day."""

    events: str | None = Field(
        None, description="folder of the raw events; default: raw/events under the root"
    )
    items: str | None = Field(
        None, description="folder of the catalogue snapshots; default: raw/items under the root"
    )
    users: str | None = Field(
        None,
        description="folder of the profile snapshots (optional); default: raw/users under the root",
    )
    truth: str | None = Field(
        None,
        description="folder of the true click probabilities of simulated logs, which only "
        "evaluate reads; default: raw/truth under the root",
    )
    made_by: Literal["simulate_logs", "ingest"] | None = Field(
        None,
        description="the job that makes the raw logs, if nobody delivers them; with ingest, "
        "results say that candidates were drawn",
    )
    time_zone: str = Field("UTC", description="time zone of event times that do not name one")
    day_time_zone: str = Field("UTC", description="time zone whose midnight ends a day")

    _zones = field_validator("time_zone", "day_time_zone")(_known_zone)

    @field_validator("events", "items", "users", "truth")
    @classmethod
    def _folders(cls, location: str | None) -> str | None:
        return None if location is None else locations.folder(location)


class SimulateSettings(Strict):
    """Size and seed of the simulated shop."""

    users: PositiveInt = Field(4000, description="number of customers; a few bots come in addition")
    items: PositiveInt = Field(
        12000,
        description="number of items on sale at a time, rounded up to whole families of 6 colours",
    )
    requests_per_day: PositiveInt = Field(10000, description="pages of results per day")
    candidates: PositiveInt = Field(10, description="items on a page of results")
    browsing_per_day: PositiveInt = Field(
        30000, description="behaviours per day outside logged requests"
    )
    days: PositiveInt = Field(8, description="days of logs; the run date is the last")
    interest_match: Literal["joint", "additive"] = Field(
        "joint",
        description="joint: a click needs both attributes of one interest; additive: any "
        "attributes of any interests count, a control in which no model needs several"
        " interests",
    )
    seed: int = Field(7, description="seed of all random draws")


class IngestSettings(Strict):
    """A public data set or your own CSV file, to be turned into raw logs."""

    source: Literal["csv", "movielens", "online_retail", "amazon", "taobao"] = Field(
        "movielens", description="name of the data set; csv is your own file of clicks"
    )
    path: str | None = Field(
        None,
        description="folder that holds the files of the data set; for csv the file, or a folder "
        "of such files",
    )
    first_day: datetime.date | None = Field(
        None,
        description="skip rows of earlier days; default: the first day of the data. The run date "
        "is the last day. MovieLens is always read as a whole",
    )
    negatives: NonNegativeInt = Field(
        4, description="number of unseen items drawn as further candidates for each chosen item"
    )
    seed: int = Field(7, description="seed of the drawn candidates")

    _day = field_validator("first_day", mode="before")(_day_of_the_calendar)

    @field_validator("path")
    @classmethod
    def _location(cls, path: str | None) -> str | None:
        return None if path is None else locations.file_or_folder(path)

    @model_validator(mode="after")
    def _movielens_is_taken_whole(self) -> IngestSettings:
        if self.source == "movielens" and self.first_day is not None:
            raise ValueError(
                f"expected no first_day for movielens, which is always taken whole, "
                f"got {self.first_day}; leave it out, or name another source"
            )
        return self


class ValidateSettings(Strict):
    """Which events are bad, which days are refused, and how many are validated together."""

    late_hours: float = Field(
        0.0,
        ge=0,
        le=12,
        description="accept events up to this many hours before the day of their folder",
    )
    early_minutes: float = Field(
        0.0,
        ge=0,
        le=720,
        description="accept events up to this many minutes after the day of their folder, for "
        "clocks that run fast",
    )
    max_id_length: PositiveInt = Field(
        256, description="longest id that is accepted, in characters"
    )
    max_user_events: PositiveInt = Field(
        10_000,
        description="events of one user in a day's folder; later ones are taken for a bot's and "
        "quarantined",
    )
    max_quarantined_share: Share = Field(
        0.05, description="refuse the day if a larger share of its rows is quarantined"
    )
    min_events: NonNegativeInt = Field(0, description="refuse the day if it has fewer clean events")
    min_clicked_share: Share = Field(
        0.0, description="refuse the day if a smaller share of its requests has a click"
    )
    max_clicked_share: Share = Field(
        1.0, description="refuse the day if a larger share of its requests has a click"
    )
    reference_days: NonNegativeInt = Field(
        7, description="compare the day with the median of this many days before; 0: no comparison"
    )
    max_quarantined_share_ratio: Change = Field(
        10.0,
        description="refuse the day if its share of quarantined rows is more than this many times"
        " the median",
    )
    max_events_ratio: Change = Field(
        4.0,
        description="refuse the day if it has this many times more, or fewer, events than the "
        "median",
    )
    max_clicked_share_ratio: Change = Field(
        3.0,
        description="refuse the day if this many times more, or fewer, requests have a click than"
        " at the median",
    )
    max_unusable_share: Share = Field(
        0.05,
        description="refuse a snapshot of the catalogue or of the profiles if a larger share of "
        "its rows cannot be read or has no id",
    )
    max_snapshot_ratio: Change = Field(
        10.0,
        description="refuse a snapshot that has this many times more, or fewer, rows than the "
        "median",
    )
    max_field_share_ratio: Change = Field(
        2.0,
        description="refuse a snapshot of the catalogue if this many times fewer of its items have "
        "a category, a price or a title than at the median",
    )
    days_at_once: PositiveInt = Field(
        8,
        description="days that are validated and published together; a run that is killed loses "
        "the work of these days only",
    )


class WindowSettings(Strict):
    """Lengths in days of the windows that end with the run date; the test window is the last."""

    history_days: NonNegativeInt = Field(
        0, description="days before the pretraining window that are only used for histories"
    )
    pretraining_days: PositiveInt = Field(
        4, description="days before the training window, on which E and the centers are learnt"
    )
    pretraining_validation_days: PositiveInt = Field(
        1,
        description="last days of the pretraining window, on which early stopping of the "
        "pretraining is decided",
    )
    training_days: PositiveInt = Field(3, description="days before the test window")
    test_days: PositiveInt = Field(1, description="days of the test window, including the run date")

    @model_validator(mode="after")
    def _pretraining_has_days_to_learn_from(self) -> WindowSettings:
        if self.pretraining_validation_days >= self.pretraining_days:
            raise ValueError(
                "expected pretraining_days to be more than pretraining_validation_days "
                f"({self.pretraining_validation_days}), got {self.pretraining_days}"
            )
        return self


class SplitSettings(Strict):
    """What a request row holds."""

    history_length: PositiveInt = Field(50, description="N, the number of behaviours in a history")
    candidates: PositiveInt = Field(
        10, description="M, the number of candidates in a row; a longer slate becomes several rows"
    )
    attribution_minutes: PositiveInt = Field(
        30,
        description="attribution window in minutes: a request ends this long after its first"
        " impression; ignore clicks after it",
    )
    behaviours: tuple[Literal["click", "cart", "purchase"], ...] = Field(
        ("click", "cart", "purchase"), min_length=1, description="event types that enter a history"
    )
    entities: PositiveInt = Field(
        8, description="maximum number of entities of an item, in the order of the catalogue"
    )
    price_buckets: PositiveInt = Field(10, description="number of quantile buckets of the price")
    user_fields: tuple[str, ...] = Field((), description="profile fields to use as categories")
    user_numbers: tuple[str, ...] = Field(
        (), description="profile fields to use as numbers, in quantile buckets"
    )
    context_fields: tuple[str, ...] = Field((), description="context fields to use as categories")
    context_numbers: tuple[str, ...] = Field(
        (), description="context fields to use as numbers, in quantile buckets"
    )
    number_buckets: PositiveInt = Field(
        10, description="number of quantile buckets of a number, learnt on the training window"
    )
    min_events: PositiveInt = Field(
        1, description="events before the test window that an item id needs to get an embedding"
    )
    min_items: PositiveInt = Field(
        1, description="items that a category, brand, entity, … needs to get an embedding"
    )
    item_fields: Literal["as_of_request", "as_of_test_day"] = Field(
        "as_of_request",
        description="which snapshot of the catalogue gives an item's fields: that of the request's"
        " day, or that of the run date for all requests",
    )
    max_unlisted_share: Share = Field(
        1.0,
        description="refuse the run date if no snapshot lists the items of a larger share of the"
        " test window's candidates, or of its behaviours",
    )
    max_unlisted_ratio: Change = Field(
        3.0,
        description="refuse the run date if one of these shares is more than this many times its"
        " median of the run dates before",
    )
    title_words: bool = Field(True, description="use title words as entities for items without any")
    negative_sampling_rate: KeptShare = Field(
        1.0,
        description="share of unclicked candidates to keep in training rows; scores are corrected"
        " for it",
    )
    files: PositiveInt = Field(
        16, description="maximum number of Parquet files of a split, each with one row group"
    )
    seed: int = Field(5, description="seed of the shuffle of the rows and of the negative sampling")

    @model_validator(mode="after")
    def _a_field_is_a_category_or_a_number(self) -> SplitSettings:
        for kind in ("user", "context"):
            names = [*getattr(self, f"{kind}_fields"), *getattr(self, f"{kind}_numbers")]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(
                    f"expected each field once in {kind}_fields and {kind}_numbers, "
                    f"got {', '.join(twice)} twice"
                )
        return self

    @property
    def all_user_fields(self) -> tuple[str, ...]:
        """Fields of the profile in the order of a row's: categories, then numbers."""
        return (*self.user_fields, *self.user_numbers)

    @property
    def all_context_fields(self) -> tuple[str, ...]:
        """Fields of the context in the order of a row's: categories, then numbers."""
        return (*self.context_fields, *self.context_numbers)


WORDS_WITHOUT_FILE = ("cooccurrence", "ctr", "word2vec")
"""Values of embeddings.words that need no file; any other value is the path of a file."""


class EmbeddingSettings(Strict):
    """The click model whose vectors all models start at, and the frozen E of the items."""

    dimension: PositiveInt = Field(16, description="width of the embedding of one field")
    initial_std: PositiveFloat = Field(
        0.2, description="standard deviation of the initial embeddings"
    )
    learning_rate: PositiveFloat = Field(5e-3, description="learning rate of Adam")
    max_epochs: PositiveInt = Field(
        6,
        description="maximum number of epochs; training stops early when the validation loss rises",
    )
    batch_requests: PositiveInt = Field(128, description="requests in a batch")
    ids: Literal["cooccurrence", "ctr", "both"] = Field(
        "cooccurrence",
        description="source of E: cooccurrence (values that stand together in users' histories), "
        "ctr (what the click model has learnt beyond its random start), or both beside each "
        "other, which doubles the width of E",
    )
    words: str = Field(
        "cooccurrence",
        min_length=1,
        description="source of the entity vectors of E: cooccurrence, ctr, word2vec (trained on "
        "the titles of the catalogue), or the path of a text file of word vectors in GloVe's "
        "format, of which principal components are used; with ids: both, those of the click "
        "model stand beside them",
    )
    cooccurrence_window: PositiveInt | None = Field(
        None,
        description="count two behaviours of a history together if they are at most this many "
        "steps apart; null: any two",
    )
    cooccurrence_weighting: Literal["none", "inverse_distance"] = Field(
        "none",
        description="weight of a pair of behaviours: 1, or 1 divided by the steps between them",
    )
    cooccurrence_shift: NonNegativeFloat = Field(
        0.0,
        description="number subtracted from the pointwise mutual information of two values, such "
        "as log 5; the larger, the fewer pairs count",
    )
    cooccurrence_neighbours: PositiveInt = Field(
        1000,
        description="pairs that are kept of each value, those with the largest mutual information; "
        "bounds the driver's memory",
    )
    threads: PositiveInt = Field(2, description="threads of the pretraining process")
    seed: int = Field(11, description="seed of the initial embeddings and of the order of the rows")

    @field_validator("words")
    @classmethod
    def _location(cls, words: str) -> str:
        return words if words in WORDS_WITHOUT_FILE else locations.file_or_folder(words)


class CenterSettings(Strict):
    """Alg. 1: learn the interest centers by back-propagation of L_E."""

    sample_users: PositiveInt = Field(
        100_000,
        description="maximum number of users, drawn at random, from whose latest histories the "
        "centers are learnt",
    )
    learning_rate: PositiveFloat = Field(5e-2, description="learning rate of Adam")
    max_steps: PositiveInt = Field(
        1000, description="maximum number of steps, each on one batch of users"
    )
    min_progress: NonNegativeFloat = Field(
        2e-3,
        description="the centers have converged when 50 steps improve L_E by at most this share "
        "of log(K) / K, the maximum of either of its entropies",
    )
    batch_users: PositiveInt = Field(256, description="users in a batch")
    threads: PositiveInt = Field(
        1, description="threads of the process; more than there are free cores make it far slower"
    )
    seed: int = Field(
        13, description="seed of the sample, of the initial centers and of the order of the users"
    )


class CheckpointSettings(Strict):
    """How often a training writes a checkpoint, from which it can resume."""

    every_steps: PositiveInt = Field(
        2000, description="write a checkpoint after this many steps of an epoch, …"
    )
    every_minutes: PositiveFloat = Field(
        10.0, description="… or after this many minutes, whichever comes first"
    )
    keep: PositiveInt = Field(2, description="number of checkpoints to keep")


class TrainSettings(Strict):
    """How every model of a day is trained."""

    learning_rate: PositiveFloat = Field(
        1e-4, description="learning rate of Adam; 1e-4 in the paper"
    )
    epochs: PositiveInt = Field(1, description="passes over the training rows")
    batch_requests: PositiveInt = Field(128, description="requests in a batch of one worker")
    num_workers: PositiveInt = Field(
        1, description="number of workers; 1 trains in this process, without Horovod"
    )
    threads: PositiveInt = Field(1, description="threads of each worker")
    seed: int = Field(17, description="seed of the initial parameters and of the order of the rows")
    stall_seconds: PositiveFloat = Field(
        300.0,
        description="kill a worker that makes no progress for this many seconds; the job then "
        "fails",
    )
    only: tuple[str, ...] = Field(
        (), description="train only these of the configured models; empty: all of them"
    )
    warm_start: bool = Field(
        False,
        description="start each model from the newest one of an earlier date, if there is one; "
        "new ids get new rows",
    )
    tensorboard: bool = Field(
        False, description="write TensorBoard event files to tensorboard/ under the root"
    )
    table: Literal["replicated", "sharded"] = Field(
        "replicated",
        description="the trainable embedding: a full copy on every worker, or its rows divided "
        "among the workers",
    )

    @property
    def of_the_result(self) -> dict[str, Any]:
        """The settings that can change the trained parameters."""
        return self.model_dump(exclude={"only", "stall_seconds", "tensorboard", "table"})


class PredictSettings(Strict):
    """How the test rows are scored on Spark."""

    batch_requests: PositiveInt = Field(512, description="requests in a batch")


class EvaluateSettings(Strict):
    """Which model is the base, and by which slices results are shown."""

    base_model: str = Field("base", description="the Base of RelaImpr (eq. 13)")
    history_edges: tuple[PositiveInt, ...] = Field(
        (1, 10, 50),
        min_length=1,
        description="rising history lengths at which a slice begins: 1,10,50 gives 0, 1-9, 10-49 "
        "and 50+",
    )
    report_days: PositiveInt = Field(
        30, description="number of days that the report looks back, including the run date"
    )

    @field_validator("history_edges")
    @classmethod
    def _rising(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if list(edges) != sorted(set(edges)):
            raise ValueError("expected rising history lengths, such as 1,10,50")
        return edges


class CompareSettings(Strict):
    """Train every model with several seeds, to find out which model is better."""

    seeds: tuple[int, ...] = Field(
        (1, 2, 3), min_length=1, description="seeds; each trains its own E, centers and models"
    )
    choosing_seeds: tuple[int, ...] = Field(
        (1, 2),
        min_length=1,
        description="seeds of the trainings on the earlier run date; the mean of their AUC decides "
        "on learning rate and epochs, since one training alone may be lucky",
    )
    learning_rates: tuple[PositiveFloat, ...] = Field(
        (1e-3, 3e-3, 9e-3),
        min_length=1,
        description="learning rates to try; each model gets the one that was best on the earlier "
        "run date",
    )
    max_epochs: PositiveInt = Field(
        3, description="maximum number of epochs to try on the earlier run date"
    )
    max_parallel: PositiveInt = Field(
        2, description="trainings that run at the same time, each in its own process"
    )

    @field_validator("seeds", "choosing_seeds", "learning_rates")
    @classmethod
    def _each_once(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(given)) < len(given):
            raise ValueError("expected each of them once")
        return given


class RetentionSettings(Strict):
    """What `clean_up` leaves; days count from the run date, or from when it was made, if later.

    What the newest model of each name was made from stays in any case.
    """

    splits_days: NonNegativeInt = Field(
        14, description="days to keep splits, frozen embeddings and centers"
    )
    models_days: NonNegativeInt = Field(
        90, description="days to keep models, their checkpoints and event files"
    )
    predictions_days: NonNegativeInt = Field(30, description="days to keep predictions")
    table_hours: int = Field(
        168,
        ge=168,
        description="hours for which earlier versions of a Delta table stay readable; a job that "
        "runs longer could lose what it reads",
    )


class Settings(Strict):
    """All settings of a run."""

    root: str = Field(
        "warehouse/default",
        min_length=1,
        validate_default=True,
        description="folder or URL under which all data are stored",
    )
    date: datetime.date = Field(description="the run date: the last day of the test window")
    force: bool = Field(
        False, description="run a job even if its inputs, settings and code are unchanged"
    )
    log_format: LogFormat = Field(
        "plain", description="format of log lines: plain, or json with one object per line"
    )
    spark: SparkSettings = SparkSettings()
    logs: LogsSettings = LogsSettings()
    simulate: SimulateSettings = SimulateSettings()
    ingest: IngestSettings = IngestSettings()
    validation: ValidateSettings = ValidateSettings()
    windows: WindowSettings = WindowSettings()
    splits: SplitSettings = SplitSettings()
    embeddings: EmbeddingSettings = EmbeddingSettings()
    centers: CenterSettings = CenterSettings()
    train: TrainSettings = TrainSettings()
    matches: MatchesSettings = MatchesSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    predict: PredictSettings = PredictSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    compare: CompareSettings = CompareSettings()
    retention: RetentionSettings = RetentionSettings()
    models: dict[str, ModelSettings] = Field(
        {"base": NAMED_MODELS["base"], "mfn": NAMED_MODELS["mfn"]},
        min_length=1,
        validate_default=True,
        description="settings of each configured model by name; the name is the model's key in "
        "every table",
    )

    _same_folder_for_every_process = field_validator("root")(locations.folder)

    _day = field_validator("date", mode="before")(_day_of_the_calendar)

    @field_validator("models", mode="before")
    @classmethod
    def _start_from_named_models(cls, models: Any) -> Any:
        if not isinstance(models, Mapping):
            return models
        return {name: _complete(name, given) for name, given in models.items()}

    @field_validator("models")
    @classmethod
    def _names_fit_tables_and_folders(cls, models: dict[str, Any]) -> dict[str, Any]:
        for name in models:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED_NAMES:
                reserved = " or ".join(f"{one!r} ({what})" for one, what in RESERVED_NAMES.items())
                raise ValueError(
                    f"{name!r} cannot be a model's name; expected lower case letters, digits "
                    f"and _, and not {reserved}, which evaluation adds to the models"
                )
        return models

    @model_validator(mode="after")
    def _base_model_is_configured(self) -> Settings:
        if self.evaluate.base_model not in self.models:
            raise ValueError(
                f"evaluate.base_model: expected one of the models {sorted(self.models)}, "
                f"got {self.evaluate.base_model!r}"
            )
        return self

    @model_validator(mode="after")
    def _models_to_train_are_configured(self) -> Settings:
        for name in self.train.only:
            if name not in self.models:
                raise ValueError(
                    f"train.only: expected some of the models {sorted(self.models)}, got {name!r}"
                )
        return self

    @model_validator(mode="after")
    def _hold_no_secret(self) -> Settings:
        """Manifests hold parts of the settings. No message here may show the refused value."""
        for name, value in self.spark.options.items():
            if SECRET_NAME.search(name) or SECRET_VALUE.search(value):
                raise ValueError(
                    f"spark.options.{name}: expected no secret among the settings; give it to "
                    "spark-submit, or to the environment, such as AWS_SECRET_ACCESS_KEY"
                )
        return self

    @property
    def models_to_train(self) -> dict[str, ModelSettings]:
        """The configured models that a run of `train` trains."""
        only = self.train.only or self.models
        return {name: model for name, model in self.models.items() if name in only}

    @property
    def candidates_from(self) -> CandidatesFrom:
        """Where the candidates come from: `ingest` samples them, other logs hold them."""
        drawn = self.logs.made_by == "ingest" and self.ingest.negatives > 0
        return "drawn by popularity" if drawn else "logged"

    @property
    def layout(self) -> Layout:
        """The paths of the run date's data."""
        return Layout(self.root, self.date)

    def logs_folder(self, kind: LogsKind) -> str:
        """The folder of one kind of raw logs; it has a subfolder dt=YYYY-MM-DD for each day."""
        return getattr(self.logs, kind) or self.layout.raw(kind)


def _complete(name: str, given: Any) -> Any:
    """The settings of model `name`: those given, over the defaults of a named model.

    The named model is the one called `name`; if there is none, or it has another extractor, the one
    called like the extractor.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        return given
    start = NAMED_MODELS[name].model_dump() if name in NAMED_MODELS else {}
    extractor = given.get("extractor", start.get("extractor"))
    if extractor != start.get("extractor"):
        named = NAMED_MODELS.get(extractor) if isinstance(extractor, str) else None
        start = named.model_dump() if named else {}
    return {**start, **given}
