"""Versioned folders: published whole or not at all, on anything that fsspec reaches.

A publication is a new folder `versions/<id>` and then one small file, CURRENT, which names it.
Readers follow only that pointer. A rename of a folder would not do: object stores have none.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

POINTER = "CURRENT"
MANIFEST = "manifest.json"


class NotPublished(FileNotFoundError):
    """An artifact that a job needs is not there; the message says which job makes it."""


@contextmanager
def publish(folder: str) -> Iterator[str]:
    """Give a fresh folder to fill; make it the current version when the block ends well.

    When the block raises, or the process dies, readers keep the version from before.
    """
    version = f"versions/{uuid.uuid4().hex}"
    files, path = fsspec.url_to_fs(folder)
    files.makedirs(f"{path}/{version}", exist_ok=True)
    yield f"{folder}/{version}"
    before = _pointer(folder)
    with files.transaction, files.open(f"{path}/{POINTER}", "w") as pointer:
        pointer.write(version)
    if before is not None and before != version:
        files.rm(f"{path}/{before}", recursive=True)


def current(folder: str, made_by: str) -> str:
    """The folder of the current version.

    Raises:
        NotPublished: there is none; `made_by` is the job to run first.
    """
    version = _pointer(folder)
    if version is None:
        raise NotPublished(f"{folder}: nothing is published there; run jobs/{made_by}.py first")
    return f"{folder}/{version}"


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    files, inner = fsspec.url_to_fs(path)
    return bool(files.exists(inner))


def list_files(folder: str, suffix: str) -> list[str]:
    """Files of a folder with this suffix, sorted by name, as URLs; none if it is not there."""
    files, path = fsspec.url_to_fs(folder)
    if not files.exists(path):
        return []
    return sorted(
        files.unstrip_protocol(name)
        for name in files.ls(path, detail=False)
        if name.endswith(suffix)
    )


def write_json(path: str, content: Any) -> None:
    """Write `content` as sorted, indented JSON."""
    with fsspec.open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, sort_keys=True, ensure_ascii=False)
        file.write("\n")


def read_json(path: str) -> Any:
    """Read a JSON file."""
    with fsspec.open(path, "r", encoding="utf-8") as file:
        return json.load(file)


def _pointer(folder: str) -> str | None:
    files, path = fsspec.url_to_fs(folder)
    if not files.exists(f"{path}/{POINTER}"):
        return None
    with files.open(f"{path}/{POINTER}", "r") as pointer:
        return str(pointer.read()).strip()
