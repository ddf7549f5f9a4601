"""The one tree of settings: a YAML file, then the environment, then dotted arguments.

`load_settings` is the only way in. Whatever is wrong with a setting is found here, before Spark
starts, and is reported by the setting's dotted name.
"""

from __future__ import annotations

import datetime
import difflib
import json
import os
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from mfn.models.settings import (
    NAMED_MODELS,
    ModelSettings,
    NonNegativeFloat,
    PositiveFloat,
    Strict,
)

ENVIRONMENT_PREFIX = "MFN_"
NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class BadSettings(ValueError):
    """A setting or an argument is wrong; the message says which, and what was expected."""


def _known_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("expected the name of a time zone, such as UTC or Europe/Paris") from error
    return name


class SparkSettings(Strict):
    """The Spark session; what spark-submit was given wins over all of this."""

    master: str = Field("local[*]", description="used when not started by spark-submit")
    driver_memory: str = Field("3g", pattern=r"^\d+[kmgt]$")
    shuffle_partitions: PositiveInt = Field(
        200, description="partitions of a shuffle; a small multiple of the slots"
    )
    options: dict[str, str] = Field({}, description="any other Spark option by its own name")


class LogsSettings(Strict):
    """Where raw logs lie: one folder a day, dt=YYYY-MM-DD, under each of these."""

    events: str | None = Field(None, description="default: raw/events under the root")
    items: str | None = Field(None, description="catalogue snapshots; default: raw/items")
    users: str | None = Field(None, description="profile snapshots, optional; default: raw/users")
    truth: str | None = Field(
        None, description="true click probabilities, read by evaluate alone; default: raw/truth"
    )
    time_zone: str = Field("UTC", description="of event times that name no zone themselves")
    day_time_zone: str = Field("UTC", description="whose midnight cuts the days")

    _zones = field_validator("time_zone", "day_time_zone")(_known_zone)


class SimulateSettings(Strict):
    """Size and seed of the simulated shop."""

    users: PositiveInt = 4000
    items: PositiveInt = 6000
    requests_per_day: PositiveInt = 12000
    candidates: PositiveInt = Field(10, description="items on a page of results")
    days: PositiveInt = Field(8, description="days of logs, the run date being the last")
    seed: int = 7


class IngestSettings(Strict):
    """A public data set's own files, turned into raw logs."""

    source: Literal["movielens"] = "movielens"
    path: str | None = Field(None, description="the folder that holds the data set's files")
    negatives: NonNegativeInt = Field(
        4, description="unseen items drawn as further candidates beside each rated one"
    )
    seed: int = 7


class ValidateSettings(Strict):
    """What makes an event bad, and how much of that a day may hold."""

    late_hours: NonNegativeFloat = Field(
        0.0, description="how far an event's time may lie outside its day's folder"
    )
    id_length: PositiveInt = Field(256, description="longest id that is still believed")
    quarantined_share: Share = Field(
        0.05, description="a larger share of quarantined rows than this refuses the day"
    )


class WindowSettings(Strict):
    """Lengths in days of the windows that end with the run date, test last."""

    history_days: NonNegativeInt = Field(
        0, description="days before the pretraining window that only feed histories"
    )
    pretraining_days: PositiveInt = 4
    pretraining_validation_days: PositiveInt = Field(
        1, description="the last of the pretraining days, on which pretraining is stopped"
    )
    training_days: PositiveInt = 3
    test_days: PositiveInt = 1

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
        30, description="a click counts for an impression at most this much older"
    )
    behaviours: tuple[Literal["click", "cart", "purchase"], ...] = Field(
        ("click", "cart", "purchase"), min_length=1, description="events that enter a history"
    )
    entities: PositiveInt = Field(8, description="entities kept of an item, in catalogue order")
    price_buckets: PositiveInt = Field(10, description="quantile buckets of the price")
    user_fields: tuple[str, ...] = Field((), description="fields of the users' profile to use")
    context_fields: tuple[str, ...] = Field((), description="fields of the context to use")
    files: PositiveInt = Field(
        16, description="files of one row group each that a split is written as, at most"
    )


class EmbeddingSettings(Strict):
    """The vanilla CTR model whose embeddings become the frozen E."""

    dimension: PositiveInt = Field(16, description="width of one field's embedding")
    initial_std: PositiveFloat = Field(0.2, description="spread of embeddings before any training")
    learning_rate: PositiveFloat = 5e-3
    epochs: PositiveInt = Field(3, description="most passes; fewer if the last day gets worse")
    batch_requests: PositiveInt = 128
    seed: int = 11


class CenterSettings(Strict):
    """Alg. 1: interest centers by back-propagation of L_E."""

    learning_rate: PositiveFloat = 1e-2
    steps: PositiveInt = Field(50, description="mini-batches of users")
    batch_users: PositiveInt = 256
    marginal: Literal["user", "batch"] = Field(
        "user", description="q of eq. 1 per user, as in Alg. 1, or over the whole batch"
    )
    seed: int = 13


class TrainSettings(Strict):
    """How every model of a day is trained."""

    learning_rate: PositiveFloat = Field(1e-4, description="Adam's; the paper's is 1e-4")
    epochs: PositiveInt = 1
    batch_requests: PositiveInt = Field(128, description="requests a worker takes in one step")
    num_workers: PositiveInt = Field(1, description="1 trains in this process, without Horovod")
    seed: int = 17


class PredictSettings(Strict):
    """Scoring of the test rows on Spark."""

    batch_requests: PositiveInt = 512


class EvaluateSettings(Strict):
    """What the models are compared with."""

    base_model: str = Field("base", description="the Base of RelaImpr (eq. 13)")


class Settings(BaseSettings):
    """All settings of a run."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    root: str = Field("warehouse/default", description="folder or URL under which all data lie")
    date: datetime.date = Field(description="the run date: the last day of the test window")
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
    predict: PredictSettings = PredictSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    models: dict[str, ModelSettings] = Field(
        {"base": NAMED_MODELS["base"], "mfn": NAMED_MODELS["mfn"]},
        min_length=1,
        validate_default=False,
        description="name of a configured model: its settings; the name is its key in every table",
    )

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
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "oracle":
                raise ValueError(
                    f"{name!r} cannot be a model's name; expected lower case letters, digits "
                    "and _, and not 'oracle', which stands for the true probabilities"
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

    def logs_folder(self, kind: Literal["events", "items", "users", "truth"]) -> str:
        """Folder of one kind of raw logs, which holds a folder dt=YYYY-MM-DD a day."""
        return getattr(self.logs, kind) or f"{self.root}/raw/{kind}"


def _complete(name: str, given: Any) -> Any:
    """Settings of model `name`: what was given, over the named model it starts from."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        return given
    start = NAMED_MODELS.get(name) or NAMED_MODELS.get(str(given.get("extractor")))
    if (
        start is None
        or given.get("extractor", start.model_dump()["extractor"])
        != (start.model_dump()["extractor"])
    ):
        return {"extractor": name, **given}
    return {**start.model_dump(), **given}


def setting_names(model: type[Any] = Settings, prefix: str = "") -> Iterator[str]:
    """Dotted name of every setting, as it is written as an argument."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if hasattr(field.annotation, "model_fields"):
            yield from setting_names(field.annotation, f"{prefix}{name}.")


def spark_slots(master: str) -> int | None:
    """Tasks that a local master runs at once; None for a cluster, which this cannot know."""
    local = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?", master)
    if local is None:
        return None
    if local[1] == "*":
        return os.cpu_count() or 1
    return int(local[1] or 1)


def check_workers(settings: Settings, master: str) -> None:
    """Refuse more workers than Spark has slots: they would wait for one another for ever."""
    slots = spark_slots(master)
    if slots is not None and settings.train.num_workers > slots:
        raise BadSettings(
            f"train.num_workers: expected at most {slots}, the slots of Spark's master "
            f"{master!r}, got {settings.train.num_workers}"
        )


def load_settings(
    config: str | None, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Settings:
    """Read `config`, then the environment (MFN_TRAIN__EPOCHS=2), then dotted `arguments`.

    Raises:
        BadSettings: a file, name, type or value is wrong; the message names each one.
    """
    environment = os.environ if environment is None else environment
    if config is not None:
        _check_yaml(config)
    _check_names(_environment_names(environment), "environment variable")
    _check_names(_argument_names(arguments), "argument")

    class FromEverywhere(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            command_line: Any = CliSettingsSource(
                settings_cls,
                cli_parse_args=_one_argument_for_models(arguments),
                cli_exit_on_error=False,
            )
            layers = [command_line, sources["env_settings"]]
            if config is not None:
                layers.append(YamlConfigSettingsSource(settings_cls, yaml_file=config))
            return tuple(layers)

    try:
        return FromEverywhere()
    except ValidationError as error:
        raise BadSettings("\n".join(_explain(one) for one in error.errors())) from error
    except SettingsError as error:
        raise BadSettings(str(error)) from error


def _check_yaml(path: str) -> None:
    if not Path(path).is_file():
        raise BadSettings(f"--config: expected a YAML file, got {path!r}, which does not exist")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadSettings(f"--config: {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise BadSettings(f"--config: expected {path} to hold settings by name")


def _argument_names(arguments: Sequence[str]) -> list[str]:
    return [word[2:].partition("=")[0] for word in arguments if word.startswith("--")]


def _one_argument_for_models(arguments: Sequence[str]) -> list[str]:
    """Arguments with every --models.NAME.SETTING VALUE gathered into one --models JSON.

    The command-line source knows the settings' own names, but not those of configured models.
    """
    rest: list[str] = []
    models: dict[str, dict[str, Any]] = {}
    words = iter(arguments)
    for word in words:
        name, has_value, value = word.partition("=")
        parts = name.split(".")
        if parts[0] != "--models" or len(parts) == 1:
            rest.append(word)
            continue
        if len(parts) != 3:
            raise BadSettings(f"{name[2:]}: expected --models.NAME.SETTING VALUE")
        text = value if has_value else next(words, None)
        if text is None:
            raise BadSettings(f"{name[2:]}: expected a value, got none")
        models.setdefault(parts[1], {})[parts[2]] = yaml.safe_load(text)
    return [*rest, "--models", json.dumps(models)] if models else rest


def _environment_names(environment: Mapping[str, str]) -> list[str]:
    return [
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
        for name in environment
        if name.startswith(ENVIRONMENT_PREFIX)
    ]


def _check_names(names: Sequence[str], what: str) -> None:
    known = set(setting_names())
    for name in names:
        if name not in known and not name.startswith("models."):
            raise BadSettings(f"{name}: there is no such setting ({what}){_nearest(name)}")


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, list(setting_names()), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _explain(error: Any) -> str:
    place = [str(part) for part in error["loc"]]
    if place[:1] == ["models"] and len(place) > 3:
        del place[2]  # the extractor, by which pydantic chose the settings' type
    name = ".".join(place)
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting{_nearest(name)}"
    if error["type"] == "missing":
        return f"{name}: expected a value, got none"
    if error["type"] == "value_error" and not name:
        return str(error["ctx"]["error"])
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{name}: expected {expected.removeprefix('expected ')}, got {error['input']!r}"
