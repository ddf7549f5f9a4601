"""What an output was made from, as one fingerprint: whether it would come out the same again.

Files count with their size and the time of their last change (or what else their file system
tells versions by), settings with their values, code with its text.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import inspect
import json
from importlib.resources.abc import Traversable
from types import ModuleType
from typing import Any

import fsspec


def of_values(*parts: Any) -> str:
    """SHA-256 of anything that JSON can hold; what it cannot hold counts as its text."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_files(folder: str) -> str:
    """Fingerprint of all files in a folder and the folders below it; of none if it is not there."""
    files, path = fsspec.url_to_fs(folder)
    files.invalidate_cache()
    found = files.find(path) if files.exists(path) else []
    return of_values([[name, files.ukey(name)] for name in sorted(found)])


@functools.cache
def of_source(*modules: ModuleType) -> str:
    """Fingerprint of these modules' source."""
    return of_values([inspect.getsource(module) for module in modules])


@functools.cache
def of_package() -> str:
    """Fingerprint of all the source of this package."""
    return of_values(sorted(_sources(importlib.resources.files("mfn"), "mfn")))


def _sources(folder: Traversable, name: str) -> list[tuple[str, str]]:
    found = []
    for inner in folder.iterdir():
        path = f"{name}/{inner.name}"
        if inner.is_dir():
            found += _sources(inner, path)
        elif inner.name.endswith((".py", ".html")):
            found.append((path, inner.read_text(encoding="utf-8")))
    return found
