"""Read the settings: from a YAML file, then the environment, then dotted arguments.

`load_settings` is the only way to read them. All problems are found here, before Spark starts, and
reported together, each with the dotted name of its setting.

pydantic-settings was tried: it loses dotted names such as --models.mfn.heads and
--spark.options.spark.executor.memory, the nearest right name, and all problems at once.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from mfn.errors import BadSettings
from mfn.locations import HoldsSecret
from mfn.models.settings import NAMED_MODELS, ModelSettings
from mfn.settings import Settings

ENVIRONMENT_PREFIX = "MFN_"
SERVICE_LINK = re.compile(
    r"MFN(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*"
    r"|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in each pod for a Service called mfn or mfn-…; no settings.

A setting's name never matches: a single _ parts its words, a double one its sections, and no word
of a top-level setting is port."""

RENAMED = {
    "validation.id_length": "validation.max_id_length",
    "validation.user_events": "validation.max_user_events",
    "validation.quarantined_share": "validation.max_quarantined_share",
    "validation.fewest_events": "validation.min_events",
    "validation.least_clicked_share": "validation.min_clicked_share",
    "validation.most_clicked_share": "validation.max_clicked_share",
    "validation.days_before": "validation.reference_days",
    "validation.quarantined_share_change": "validation.max_quarantined_share_ratio",
    "validation.events_change": "validation.max_events_ratio",
    "validation.clicked_share_change": "validation.max_clicked_share_ratio",
    "splits.fewest_events": "splits.min_events",
    "splits.fewest_items": "splits.min_items",
    "splits.negatives_kept": "splits.negative_sampling_rate",
    "embeddings.epochs": "embeddings.max_epochs",
    "centers.steps": "centers.max_steps",
    "centers.least_progress": "centers.min_progress",
    "checkpoints.steps": "checkpoints.every_steps",
    "checkpoints.minutes": "checkpoints.every_minutes",
    "checkpoints.kept": "checkpoints.keep",
    "compare.most_epochs": "compare.max_epochs",
    "compare.at_once": "compare.max_parallel",
}
"""Settings that have a new name, by their old one: the old one is refused and the new one named."""


def load_settings(
    config: str | None, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Settings:
    """Read a file, then the environment (MFN_TRAIN__EPOCHS=2), then dotted `arguments`.

    Later ones override earlier ones. Variables that Kubernetes sets for a Service are no settings.

    Args:
        config: the YAML file, unless `arguments` name one with --config; None: no file.
        arguments: as on the command line, `--train.epochs 2` or `--train.epochs=2`.
        environment: default: that of this process.

    Raises:
        BadSettings: a file, name, type or value is wrong. The message has a line for each problem,
            with the dotted name of the setting, what was expected, and where it was given.
    """
    given = _Given()
    texts = given.read_arguments(arguments)
    config = texts.pop("config", config)
    if config is not None:
        given.read_file(config)
    default_models = Settings.model_fields["models"].default
    given.values.setdefault("models", {name: {} for name in default_models})
    for variable, text in sorted((os.environ if environment is None else environment).items()):
        if variable.startswith(ENVIRONMENT_PREFIX) and not SERVICE_LINK.fullmatch(variable):
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            given.put_text(name, text, f"environment variable {variable}")
    for name, text in texts.items():
        given.put_text(name, text, "argument")
    try:
        settings = Settings.model_validate(given.values)
    except ValidationError as error:
        errors = error.errors()
        parents = {one["loc"][:-1] for one in errors if one["loc"]}
        # Pydantic also calls a list with a wrong item too short: only the item is reported.
        given.problems += [given.explain(one) for one in errors if one["loc"] not in parents]
    if given.problems:
        raise BadSettings("\n".join(given.problems))
    return settings


class _Given:
    """Settings as given, later ones over earlier ones, and the problems found."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[tuple[str, ...], str] = {}
        self.problems: list[str] = []

    def read_arguments(self, words: Sequence[str]) -> dict[str, str]:
        """Text by name; a word that is not an argument is noted as a problem."""
        texts: dict[str, str] = {}
        rest = list(words)
        while rest:
            word = rest.pop(0)
            name, has_value, text = word.removeprefix("--").partition("=")
            if not word.startswith("--"):
                self.problems.append(f"{word}: expected --NAME VALUE, with the name of a setting")
                continue
            if not has_value and _kind(tuple(name.split("."))) is bool:
                # `--force` means true; `--force false` overrides a file that says true.
                text = rest.pop(0) if rest and rest[0] in ("true", "false") else "true"
            elif not has_value:
                if not rest or rest[0].startswith("--"):
                    self.problems.append(f"{name}: expected a value after --{name}, got none")
                    continue
                text = rest.pop(0)
            if name in texts:
                self.problems.append(f"{name}: given twice, as {texts[name]!r} and as {text!r}")
            texts[name] = text
        return texts

    def read_file(self, path: str) -> None:
        """Put the settings of a YAML file."""
        try:
            content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Yaml)  # noqa: S506
        except (OSError, UnicodeDecodeError) as error:
            problem = f"expected a YAML file, got {path!r}, which cannot be read: {error}"
        except _NOT_YAML as error:
            problem = f"{path} is not YAML as expected: {_reason(error)}"
        else:
            if isinstance(content, Mapping):
                for name, value in content.items():
                    self.put((str(name),), value, path)
                return
            problem = f"expected {path} to hold settings by name, such as `root: warehouse/mine`"
        self.problems.append(f"config: {problem}")

    def put_text(self, name: str, text: str, origin: str) -> None:
        """Put a value from an argument or the environment; there every value is text."""
        options = "spark.options."  # whose keys have dots of their own
        path = (*options.split(".")[:2], name.removeprefix(options))
        if not name.startswith(options):
            path = tuple(name.split("."))
        kind = _kind(path)
        value: Any = text
        if text == "null":
            value = None
        elif text.startswith(("[", "{")):
            try:
                value = yaml.load(text, Loader=_Yaml)  # noqa: S506
            except _NOT_YAML:
                self.problems.append(
                    f"{name}: expected a YAML value, got {_shown(text)} ({origin})"
                )
                return
        elif get_origin(kind) is tuple:
            value = [part.strip() for part in text.split(",")] if text else []
        self.put(path, value, origin)

    def put(self, path: tuple[str, ...], value: Any, origin: str) -> None:
        """Put one value, or each value of a section."""
        kind = _kind(path)
        if kind is None:
            name = ".".join(path)
            hint = _nearest(name, _known_names())
            if name in RENAMED:
                hint = f"; it is now called {RENAMED[name]}"
            self.problems.append(f"{name}: there is no such setting ({origin}){hint}")
            return
        node = self.values
        for part in path[:-1]:
            inner = node.get(part)
            node[part] = node = inner if isinstance(inner, dict) else {}
        holds_settings = is_section(kind) or get_origin(kind) is dict or kind == ModelSettings
        if holds_settings and (value is None or isinstance(value, Mapping)):
            node.setdefault(path[-1], {})
            for name, inner in (value or {}).items():
                self.put((*path, str(name)), inner, origin)
        else:
            node[path[-1]] = value
            self.origins[path] = origin

    def explain(self, error: Any) -> str:
        """An error of pydantic in the form of our messages."""
        path = tuple(str(part) for part in error["loc"])
        known = _known_names()
        if path[:1] == ("models",) and len(path) > 2:
            # Pydantic adds the extractor, by which it chose the type of the model's settings.
            model, extractor, path = path[1], path[2], (*path[:2], *path[3:])
            kind = next(kind for kind in model_kinds() if extractor_of(kind) == extractor)
            known = [f"models.{model}.{name}" for name in kind.model_fields]
        name, kind_of_error, value = ".".join(path), error["type"], error["input"]
        origin = self._origin(path)
        if kind_of_error == "missing":
            return f"{name}: expected a value, got none"
        if kind_of_error == "extra_forbidden":
            return f"{name}: there is no such setting{origin}{_nearest(name, known)}"
        if kind_of_error.startswith("union_tag"):
            extractors = [extractor_of(kind) for kind in model_kinds()]
            near = _nearest(path[1], NAMED_MODELS) if "extractor" not in value else ""
            expected = ", ".join(repr(extractor) for extractor in extractors)
            got = repr(value["extractor"]) if "extractor" in value else "none"
            return f"{name}.extractor: expected one of {expected}, got {got}{origin}{near}"
        message = _in_our_words(error)
        if not name:
            return message
        secret = isinstance(error.get("ctx", {}).get("error"), HoldsSecret)
        if not secret and not isinstance(value, Mapping | BaseModel):
            message += f", got {_shown(value)}"
        return f"{name}: {message}{origin}"

    def _origin(self, path: tuple[str, ...]) -> str:
        """Where the setting was given, or the section around it, or the first one inside it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return f" ({self.origins[path[:end]]})"
        inside = [origin for place, origin in self.origins.items() if place[: len(path)] == path]
        return f" ({inside[0]})" if inside and path else ""


class _Yaml(yaml.SafeLoader):
    """YAML in which a repeated key is an error, and a date stays text, which the settings check."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "expected a name, got a list or a section", key.start_mark
                )
            if key.value in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep)


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError)
"""What the loader raises for a text that it cannot read; ValueError: a number is too long."""


def _reason(error: Exception) -> str:
    """The error in a few words; that of a too deep nesting would not say what is nested."""
    return "its brackets are nested too deeply" if isinstance(error, RecursionError) else str(error)


_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 200
_shorten.maxlevel = 2


def _shown(value: Any) -> str:
    """A value for a message: cut, since aliases of YAML make values that never end in print."""
    try:
        return _shorten.repr(value)
    except ValueError:  # Python prints no number of more than some thousand digits
        return "a very long number"


def _in_our_words(error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    what = re.sub(r"^\w+ should (be )?", "", error["msg"]).replace("have", "to have")
    for of_no_use in (", unable to", ", got a number", " after validation, not"):
        what = what.partition(of_no_use)[0]
    return f"expected {what}"


# The names of the settings.


def setting_names(model: type[Any] = Settings, prefix: str = "") -> Iterator[str]:
    """The dotted name of every setting and section, as written on the command line."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if is_section(field.annotation):
            yield from setting_names(field.annotation, f"{prefix}{name}.")


def is_section(kind: Any) -> bool:
    """Whether this type of a setting is a section of settings."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def model_kinds() -> tuple[type[BaseModel], ...]:
    """The type of the settings of each extractor."""
    union = get_args(ModelSettings)[0]
    return get_args(union) if get_origin(union) in (Union, types.UnionType) else (union,)


def extractor_of(kind: type[BaseModel]) -> str:
    """The name of the extractor that these model settings are for."""
    return str(kind.model_fields["extractor"].default)


def _kind(path: tuple[str, ...]) -> Any:
    """The type of the setting or section at `path`; None if there is no such setting.

    The settings of a model depend on its extractor, so pydantic checks them.
    """
    kind: Any = Settings
    for part in path:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif kind == ModelSettings:
            fields = [k.model_fields[part] for k in model_kinds() if part in k.model_fields]
            kind = fields[0].annotation if fields else object
        elif is_section(kind) and part in kind.model_fields:
            kind = kind.model_fields[part].annotation
        else:
            return object if kind is object else None
    return kind


def _known_names() -> list[str]:
    inner = {f"models.NAME.{name}" for kind in model_kinds() for name in kind.model_fields}
    return ["config", *setting_names(), *sorted(inner)]


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name that is most like `name`, as a whole and in its last part."""

    def likeness(candidate: str) -> float:
        pairs = [(name, candidate), (name.split(".")[-1], candidate.split(".")[-1])]
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs) / 2

    best = max(known, key=likeness)
    if best == name:
        return "; in a file, write a section's settings under its name, not with dots"
    return f"; did you mean {best}?" if likeness(best) >= 0.6 else "; --help lists all"
