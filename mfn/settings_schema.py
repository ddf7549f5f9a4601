"""The JSON Schema of the settings, with which editors complete and check a configuration file."""

from __future__ import annotations

from typing import Any

from mfn.configuration import extractor_of, model_kinds
from mfn.models.settings import NAMED_MODELS
from mfn.settings import Settings


def settings_schema() -> dict[str, Any]:
    """The schema of a YAML file of settings.

    Nothing is required: the run date usually comes as an argument. A model starts with the settings
    of its own name, so `mfn: {}` is complete, and so is a model with no settings at all (`mfn:`).
    """
    schema = Settings.model_json_schema()
    del schema["required"]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Settings of mfn"
    kinds = {extractor_of(kind): _or_nothing(f"#/$defs/{kind.__name__}") for kind in model_kinds()}
    models = schema["properties"]["models"]
    models["properties"] = {name: kinds[model.extractor] for name, model in NAMED_MODELS.items()}
    models["additionalProperties"] = {"anyOf": list(kinds.values())}
    # YAML's true and 4 are Spark's "true" and "4".
    options = schema["$defs"]["SparkSettings"]["properties"]["options"]
    options["additionalProperties"] = {"type": ["string", "number", "boolean"]}
    return schema


def _or_nothing(reference: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": reference}, {"type": "null"}]}
