"""Fingerprints of what an output depends on: equal ones mean that a rerun gives the same output.

A file counts with its size and the time of its last change (or whatever its file system uses to
tell versions apart), a setting with its value, code with its text.
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

from mfn.locations import files_at


def of_values(*parts: Any) -> str:
    """SHA-256 of values as JSON; a value that JSON cannot hold counts as its text."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_files(folder: str) -> str:
    """Fingerprint of all files in a folder and its subfolders; a missing folder has no files."""
    files, path = files_at(folder)
    found = files.find(path) if files.exists(path) else []
    return of_values([[name, files.ukey(name)] for name in sorted(found)])


@functools.cache
def of_source(*modules: ModuleType) -> str:
    """Fingerprint of the source of these modules."""
    return of_values([inspect.getsource(module) for module in modules])


@functools.cache
def of_package() -> str:
    """Fingerprint of the source of this package."""
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
