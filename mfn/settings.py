"""The one tree of settings: their types, defaults, meaning, and what is impossible.

`mfn.configuration.load_settings` reads them from a file, the environment and arguments.
"""

from __future__ import annotations

import datetime
import os
import re
import zoneinfo
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from mfn.layout import Layout
from mfn.models.settings import NAMED_MODELS, ModelSettings
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
    r"secret|password|token|access[.]?key|account[.]key|private[.]key|[.]sas[.]", re.IGNORECASE
)
"""Names of options that hold a secret: those that Spark and the object stores' clients know."""
SECRET_VALUE = re.compile(r"(secret|password|token)[^\s=]*=", re.IGNORECASE)
"""A secret among Java's own options."""
PASSWORD_IN_ADDRESS = re.compile(r"://[^/@:]*:(?!\d+/)[^@]*@")
"""And no port; a key of AWS may hold a slash."""

LogsKind = Literal["events", "items", "users", "truth"]
"""Kinds of raw logs, each of which has a folder of its own."""

LogFormat = Literal["plain", "json"]

CandidatesFrom = Literal["logged", "drawn by popularity"]
"""Whence requests have their candidates: somebody saw them, or a law drew them beside a choice."""

RESERVED_NAMES = {
    "oracle": "the true probabilities",
    "popularity": "the number of earlier behaviours",
}
"""What stands among the models in every table of results and is none."""


def _known_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("expected the name of a time zone, such as UTC or Europe/Paris") from error
    return name


def _day_of_the_calendar(date: Any) -> Any:
    """Pydantic alone would take a number for seconds since 1970."""
    if date is None or isinstance(date, datetime.date):
        return date
    try:
        return datetime.datetime.strptime(str(date), "%Y-%m-%d").date()
    except ValueError as error:
        raise ValueError("expected a day of the calendar as YYYY-MM-DD") from error


class SparkSettings(Strict):
    """The Spark session; what spark-submit was given wins over all of this."""

    master: str = Field("local[*]", description="used when not started by spark-submit")
    driver_memory: str = Field("3g", description="heap of the driver, when not by spark-submit")
    shuffle_partitions: PositiveInt = Field(
        200, description="partitions of a shuffle; a small multiple of the slots"
    )
    options: dict[str, str] = Field({}, description="any other Spark option by its own name")

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
    """Where raw logs lie: one folder a day, dt=YYYY-MM-DD, under each of these."""

    events: str | None = Field(None, description="default: raw/events under the root")
    items: str | None = Field(None, description="catalogue snapshots; default: raw/items")
    users: str | None = Field(None, description="profile snapshots, optional; default: raw/users")
    truth: str | None = Field(
        None, description="true click probabilities, read by evaluate alone; default: raw/truth"
    )
    made_by: Literal["simulate_logs", "ingest"] | None = Field(
        None,
        description="the job that makes the raw logs, where they are not delivered; with ingest, "
        "results say that candidates were drawn",
    )
    time_zone: str = Field("UTC", description="of event times that name no zone themselves")
    day_time_zone: str = Field("UTC", description="whose midnight cuts the days")

    _zones = field_validator("time_zone", "day_time_zone")(_known_zone)


class SimulateSettings(Strict):
    """Size and seed of the simulated shop."""

    users: PositiveInt = Field(4000, description="customers; a few bots come on top")
    items: PositiveInt = Field(
        12000, description="items on sale at a time, rounded up to whole families of 6 colours"
    )
    requests_per_day: PositiveInt = Field(10000, description="pages of results a day")
    candidates: PositiveInt = Field(10, description="items on a page of results")
    browsing_per_day: PositiveInt = Field(
        30000, description="behaviours a day that belong to no logged request"
    )
    days: PositiveInt = Field(8, description="days of logs, the run date being the last")
    interest_match: Literal["joint", "additive"] = Field(
        "joint",
        description="whether a click needs both attributes of one interest, or any attributes "
        "of any interests, a control in which nothing needs several interests",
    )
    seed: int = Field(7, description="of everything drawn at random")


class IngestSettings(Strict):
    """A public data set's own files, turned into raw logs."""

    source: Literal["movielens", "online_retail", "amazon", "taobao"] = Field(
        "movielens", description="whose files they are"
    )
    path: str | None = Field(None, description="the folder that holds the data set's files")
    first_day: datetime.date | None = Field(
        None,
        description="rows of earlier days are left out; default: the data's first day. The last "
        "is the run date. MovieLens is always taken whole",
    )
    negatives: NonNegativeInt = Field(
        4, description="unseen items drawn as further candidates beside each rated one"
    )
    seed: int = Field(7, description="of the candidates drawn at random")

    _day = field_validator("first_day", mode="before")(_day_of_the_calendar)

    @model_validator(mode="after")
    def _movielens_is_taken_whole(self) -> IngestSettings:
        if self.source == "movielens" and self.first_day is not None:
            raise ValueError(
                f"expected no first_day for movielens, which is always taken whole, "
                f"got {self.first_day}; leave it out, or name another source"
            )
        return self


class ValidateSettings(Strict):
    """What makes an event bad, and what stops a day."""

    late_hours: float = Field(
        0.0, ge=0, le=12, description="how far before its folder's day an event's time may lie"
    )
    early_minutes: float = Field(
        0.0,
        ge=0,
        le=720,
        description="how far after its folder's day an event's time may lie, for clocks ahead",
    )
    id_length: PositiveInt = Field(256, description="longest id that is still believed")
    user_events: PositiveInt = Field(
        10_000, description="events of a user in a day's folder; those after them are a bot's"
    )
    quarantined_share: Share = Field(
        0.05, description="a larger share of quarantined rows than this refuses the day"
    )
    fewest_events: NonNegativeInt = Field(
        0, description="fewer clean events than this refuse the day"
    )
    least_clicked_share: Share = Field(
        0.0, description="a smaller share of requests with a click than this refuses the day"
    )
    most_clicked_share: Share = Field(
        1.0, description="a larger share of requests with a click than this refuses the day"
    )
    days_before: NonNegativeInt = Field(
        7, description="days before, with whose median a day is compared; 0 for no comparison"
    )
    quarantined_share_change: Change = Field(
        10.0, description="times the median share of quarantined rows that refuse the day"
    )
    events_change: Change = Field(
        4.0, description="times more, or fewer, events than the median that refuse the day"
    )
    clicked_share_change: Change = Field(
        3.0, description="times more, or fewer, requests with a click that refuse the day"
    )


class WindowSettings(Strict):
    """Lengths in days of the windows that end with the run date, test last."""

    history_days: NonNegativeInt = Field(
        0, description="days before the pretraining window that only feed histories"
    )
    pretraining_days: PositiveInt = Field(
        4, description="days before the training window, for E and the centers"
    )
    pretraining_validation_days: PositiveInt = Field(
        1, description="the last of the pretraining days, on which pretraining is stopped"
    )
    training_days: PositiveInt = Field(3, description="days before the test window")
    test_days: PositiveInt = Field(1, description="the last days, the run date included")

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

    history_length: PositiveInt = Field(50, description="N, behaviours in a history")
    candidates: PositiveInt = Field(10, description="M, candidates in a row")
    attribution_minutes: PositiveInt = Field(
        30, description="what a request is made of and is clicked on, this long from its beginning"
    )
    behaviours: tuple[Literal["click", "cart", "purchase"], ...] = Field(
        ("click", "cart", "purchase"), min_length=1, description="events that enter a history"
    )
    entities: PositiveInt = Field(8, description="entities kept of an item, in catalogue order")
    price_buckets: PositiveInt = Field(10, description="quantile buckets of the price")
    user_fields: tuple[str, ...] = Field((), description="fields of the users' profile to use")
    user_numbers: tuple[str, ...] = Field(
        (), description="fields of the users' profile that are numbers, used by quantile bucket"
    )
    context_fields: tuple[str, ...] = Field((), description="fields of the context to use")
    context_numbers: tuple[str, ...] = Field(
        (), description="fields of the context that are numbers, used by quantile bucket"
    )
    number_buckets: PositiveInt = Field(
        10, description="quantile buckets of such a number, learnt on the training window"
    )
    fewest_events: PositiveInt = Field(
        1, description="events before the test window that give an item id an embedding of its own"
    )
    fewest_items: PositiveInt = Field(
        1, description="items with a category, entity, … that give it an embedding of its own"
    )
    title_words: bool = Field(
        True, description="words of its title are the entities of an item that has none"
    )
    negatives_kept: KeptShare = Field(
        1.0,
        description="share of the unclicked candidates that training rows keep; scores are "
        "corrected for it",
    )
    files: PositiveInt = Field(
        16, description="files of one row group each that a split is written as, at most"
    )
    seed: int = Field(
        5, description="of the shuffle of the rows, when written, and of the negatives kept"
    )

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


class EmbeddingSettings(Strict):
    """The vanilla CTR model whose embeddings become the frozen E."""

    dimension: PositiveInt = Field(16, description="width of one field's embedding")
    initial_std: PositiveFloat = Field(0.2, description="spread of embeddings before any training")
    learning_rate: PositiveFloat = Field(5e-3, description="Adam's")
    epochs: PositiveInt = Field(3, description="most passes; fewer if the last day gets worse")
    batch_requests: PositiveInt = Field(128, description="requests of one step")
    words: str = Field(
        "ctr",
        min_length=1,
        description="whence the vectors of entities come: ctr, as the vanilla CTR model has learnt "
        "them; word2vec, from the catalogue's titles; or a text file of word vectors (GloVe's "
        "form), of which principal components are taken",
    )
    threads: PositiveInt = Field(2, description="threads of the process that pretrains")
    seed: int = Field(11, description="of initial embeddings and the order of rows")


class CenterSettings(Strict):
    """Alg. 1: interest centers by back-propagation of L_E."""

    learning_rate: PositiveFloat = Field(1e-2, description="of plain gradient descent")
    steps: PositiveInt = Field(50, description="mini-batches of users, at most")
    least_progress: NonNegativeFloat = Field(
        1e-6, description="fewer steps are taken where ten have lowered L_E by less than this"
    )
    batch_users: PositiveInt = Field(256, description="users of one step")
    marginal: Literal["user", "batch"] = Field(
        "user", description="q of eq. 1 per user, as in Alg. 1, or over the whole batch"
    )
    seed: int = Field(13, description="of the first centers and the order of users")


class CheckpointSettings(Strict):
    """How often a training is written down, so that it can go on after it was killed."""

    steps: PositiveInt = Field(2000, description="steps of an epoch, after each of which it is")
    minutes: PositiveFloat = Field(10.0, description="and minutes after which it is, if sooner")
    kept: PositiveInt = Field(2, description="how many of the newest are kept")


class TrainSettings(Strict):
    """How every model of a day is trained."""

    learning_rate: PositiveFloat = Field(1e-4, description="Adam's; the paper's is 1e-4")
    epochs: PositiveInt = Field(1, description="passes over the training rows")
    batch_requests: PositiveInt = Field(128, description="requests a worker takes in one step")
    num_workers: PositiveInt = Field(1, description="1 trains in this process, without Horovod")
    threads: PositiveInt = Field(1, description="threads of each worker")
    seed: int = Field(17, description="of initial parameters and the order of rows")
    stall_seconds: PositiveFloat = Field(
        300.0,
        description="one of several workers that comes no further for so long ends, and so the job",
    )
    only: tuple[str, ...] = Field(
        (), description="train these of the configured models alone; all of them if it is empty"
    )
    warm_start: bool = Field(
        False,
        description="start each model from the newest one of an earlier date, if there is one; ids "
        "that are new since get rows of their own",
    )
    tensorboard: bool = Field(
        False, description="write event files for TensorBoard to tensorboard/ under the root"
    )
    table: Literal["replicated", "sharded"] = Field(
        "replicated",
        description="the trainable embedding: whole on every worker, or its rows spread over them",
    )

    @property
    def of_the_result(self) -> dict[str, Any]:
        """Those settings from which other parameters may follow."""
        return self.model_dump(exclude={"only", "stall_seconds", "tensorboard", "table"})


class PredictSettings(Strict):
    """Scoring of the test rows on Spark."""

    batch_requests: PositiveInt = Field(512, description="requests scored at once")


class EvaluateSettings(Strict):
    """What the models are compared with, and by what their candidates are divided."""

    base_model: str = Field("base", description="the Base of RelaImpr (eq. 13)")
    history_edges: tuple[PositiveInt, ...] = Field(
        (1, 10, 50),
        min_length=1,
        description="rising history lengths at which a new slice begins: 0, 1-9, 10-49, 50+",
    )
    report_days: PositiveInt = Field(
        30, description="days up to the run date that the report looks back on"
    )

    @field_validator("history_edges")
    @classmethod
    def _rising(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if list(edges) != sorted(set(edges)):
            raise ValueError("expected rising history lengths, such as 1,10,50")
        return edges


class CompareSettings(Strict):
    """Trainings of every model with several seeds, to say which of them is better."""

    seeds: tuple[int, ...] = Field(
        (1, 2, 3), min_length=1, description="of E, the centers and the training, each its own"
    )
    learning_rates: tuple[PositiveFloat, ...] = Field(
        (1e-3, 3e-3, 9e-3),
        min_length=1,
        description="from which each model gets the one that was best on the earlier run date",
    )
    most_epochs: PositiveInt = Field(3, description="the most that are tried there")
    at_once: PositiveInt = Field(2, description="trainings at a time, each in a thread of its own")

    @field_validator("seeds", "learning_rates")
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
        14, description="days for which splits, frozen embeddings and centers stay"
    )
    models_days: NonNegativeInt = Field(
        90, description="days for which models, their checkpoints and event files stay"
    )
    predictions_days: NonNegativeInt = Field(30, description="days for which predictions stay")
    table_hours: int = Field(
        168,
        ge=168,
        description="hours for which a Delta table's earlier versions can be read; a job that "
        "takes longer than that would lose what it reads",
    )


class Settings(Strict):
    """All settings of a run."""

    root: str = Field(
        "warehouse/default",
        min_length=1,
        validate_default=True,
        description="folder or URL under which all data lie",
    )
    date: datetime.date = Field(description="the run date: the last day of the test window")
    force: bool = Field(
        False, description="run jobs again whose inputs, settings and code have not changed"
    )
    log_format: LogFormat = Field(
        "plain", description="of the lines that jobs log: plain, or json with a key for each number"
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
    checkpoints: CheckpointSettings = CheckpointSettings()
    predict: PredictSettings = PredictSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    compare: CompareSettings = CompareSettings()
    retention: RetentionSettings = RetentionSettings()
    models: dict[str, ModelSettings] = Field(
        {"base": NAMED_MODELS["base"], "mfn": NAMED_MODELS["mfn"]},
        min_length=1,
        validate_default=True,
        description="name of a configured model: its settings; the name is its key in every table",
    )

    @field_validator("root")
    @classmethod
    def _same_folder_for_every_process(cls, root: str) -> str:
        """A relative folder means one thing to Spark, fsspec and workers only once absolute."""
        if re.match(r"[a-z][a-z0-9+.-]*:/", root):
            return root.rstrip("/")
        return os.path.abspath(os.path.expanduser(root))

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
                    f"and _, and not {reserved}, which evaluation puts beside the models"
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
        """Parts of them stand in manifests; and no message here may show what it refuses."""
        for name, value in self.spark.options.items():
            if SECRET_NAME.search(name) or SECRET_VALUE.search(value):
                raise ValueError(
                    f"spark.options.{name}: expected no secret among the settings; give it to "
                    "spark-submit, or to the environment, such as AWS_SECRET_ACCESS_KEY"
                )
        addresses = {"root": self.root, "ingest.path": self.ingest.path}
        addresses |= {"embeddings.words": self.embeddings.words}
        addresses |= {f"logs.{kind}": self.logs_folder(kind) for kind in get_args(LogsKind)}
        for name, address in addresses.items():
            if address and PASSWORD_IN_ADDRESS.search(address):
                raise ValueError(
                    f"{name}: expected an address without a password; give it to the environment, "
                    "such as AWS_SECRET_ACCESS_KEY"
                )
        return self

    @property
    def models_to_train(self) -> dict[str, ModelSettings]:
        """Those of the configured models that a run of `train` is for."""
        only = self.train.only or self.models
        return {name: model for name, model in self.models.items() if name in only}

    @property
    def candidates_from(self) -> CandidatesFrom:
        """Whence the candidates of the raw logs come: `ingest` draws them, others log them."""
        drawn = self.logs.made_by == "ingest" and self.ingest.negatives > 0
        return "drawn by popularity" if drawn else "logged"

    @property
    def layout(self) -> Layout:
        """Where the run date's data lie."""
        return Layout(self.root, self.date)

    def logs_folder(self, kind: LogsKind) -> str:
        """Folder of one kind of raw logs, which holds a folder dt=YYYY-MM-DD a day."""
        return getattr(self.logs, kind) or self.layout.raw(kind)


def _complete(name: str, given: Any) -> Any:
    """Settings of model `name`: what was given, over those of the named model it starts from.

    That is the model of its own name, or, for a name of one's own or another extractor, the one
    named as the extractor.
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
