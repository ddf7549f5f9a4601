"""The help text of a job: the settings that it reads, each with its meaning and default."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args, get_origin

from mfn.configuration import extractor_of, is_section, model_kinds
from mfn.models.settings import NAMED_MODELS
from mfn.settings import Settings

ALWAYS = ("spark",)
"""Sections that every job reads."""
MODELS = "models"
ALL_SECTIONS = (
    *(name for name, field in Settings.model_fields.items() if is_section(field.annotation)),
    MODELS,
)
"""Every section, in the order of the settings."""

_COLUMN = 40


def describe_settings(sections: Collection[str], width: int) -> str:
    """The settings outside sections, then those of these sections and those that every job reads.

    Args:
        sections: names out of ALL_SECTIONS.
        width: longest line, in characters.
    """
    shown = [name for name in ALL_SECTIONS if name in (*ALWAYS, *sections)]
    others = [name for name in ALL_SECTIONS if name not in shown]
    fields = Settings.model_fields
    outside = {name: field for name, field in fields.items() if name not in ALL_SECTIONS}
    blocks = [_lines(outside, "", width)]
    for name in shown:
        blocks += _models(width) if name == MODELS else [_section(name, width)]
    if others:
        rest = f"Not read by this job: {', '.join(others)}. Show all settings with --help all."
        blocks.append(textwrap.fill(rest, width))
    return "\n\n".join(blocks)


def _section(name: str, width: int) -> str:
    kind: Any = Settings.model_fields[name].annotation
    return f"{name}: {_summary(kind)}\n{_lines(kind.model_fields, f'{name}.', width)}"


def _models(width: int) -> list[str]:
    """The settings that every model has, then those of each extractor."""
    field = Settings.model_fields[MODELS]
    about = (
        f"{MODELS}: {field.description}. Default models: {', '.join(field.default)}. A model "
        f"starts with the settings of its own name, if that is one of {', '.join(NAMED_MODELS)}; "
        "other names need an extractor, and start with its settings."
    )
    kinds = model_kinds()
    in_all = set.intersection(*(set(kind.model_fields) for kind in kinds)) - {"extractor"}
    common = {name: one for name, one in kinds[0].model_fields.items() if name in in_all}
    blocks = [f"{textwrap.fill(about, width)}\n{_lines(common, 'models.NAME.', width)}"]
    for kind in kinds:
        hidden = {*in_all, "extractor"}
        own = {name: one for name, one in kind.model_fields.items() if name not in hidden}
        title = f"--models.NAME.extractor {extractor_of(kind)}: {_summary(kind)}"
        title = textwrap.fill(title, width, subsequent_indent="  ")
        blocks.append("\n".join([title, _lines(own, "models.NAME.", width)]).rstrip())
    return blocks


def _lines(fields: Mapping[str, Any], prefix: str, width: int) -> str:
    lines = []
    for name, field in fields.items():
        about = [field.description, _choices(field.annotation)]
        if field.is_required():
            about.append("required")
        elif field.default is not None or "default" not in (field.description or ""):
            about.append(f"default {_as_text(field.default)}")
        left = f"  --{prefix}{name}".ljust(_COLUMN)
        text = "; ".join(filter(None, about))
        if len(left) > _COLUMN:
            lines.append(left)
            left = " " * _COLUMN
        indent = " " * _COLUMN
        lines.append(textwrap.fill(text, width, initial_indent=left, subsequent_indent=indent))
    return "\n".join(lines)


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        value = ",".join(str(one) for one in value)
    if isinstance(value, bool):
        value = str(value).lower()
    return "none" if value in (None, "", {}) else str(value)


def _choices(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    choices = next(filter(None, map(_choices, get_args(kind))), "")
    return choices.replace("one of", "some of") if get_origin(kind) is tuple else choices


def _summary(kind: Any) -> str:
    return str(kind.__doc__).splitlines()[0]
