"""Versioned folders: published whole or not at all, on anything that fsspec reaches.

A publication is a new folder `versions/<id>` and then one small file, CURRENT, which names it and
the version before it. Readers follow only that pointer. A rename of a folder would not do: object
stores have none.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec

POINTER = "CURRENT"
MANIFEST = "manifest.json"
MODEL = "model.json"
ABANDONED_AFTER = datetime.timedelta(days=7)
"""A version begun so long ago that is not published belongs to a process that died."""
_BEGUN = "%Y%m%dT%H%M%S"

log = logging.getLogger("mfn")


class NotPublished(FileNotFoundError):
    """An artifact that a job needs is not there; the message says which job makes it."""


@contextlib.contextmanager
def publish(folder: str) -> Iterator[str]:
    """Give a fresh folder to fill; make it the current version when the block ends well.

    When the block raises, or the process dies, readers keep the version from before. The version
    before the current one stays, for those who are reading it; older ones are removed. Of two
    publishers at once the last to end wins.
    """
    begun = datetime.datetime.now(datetime.UTC).strftime(_BEGUN)
    version = f"versions/{begun}-{uuid.uuid4().hex[:12]}"
    files, path = fsspec.url_to_fs(folder)
    files.makedirs(f"{path}/{version}", exist_ok=True)
    try:
        yield f"{folder}/{version}"
    except BaseException:
        with contextlib.suppress(Exception):  # what is raised already is what matters
            files.rm(f"{path}/{version}", recursive=True)
        raise
    before = _published(files, path)
    # Written beside its place and moved over it: on a local disk only a rename is atomic.
    pointer = f"{path}/{version}.{POINTER}"
    files.pipe_file(pointer, "\n".join([version, *before[:1]]).encode())
    files.mv(pointer, f"{path}/{POINTER}")
    _remove_old(files, path, kept={version, *before[:1]}, superseded=before[1:])


def _remove_old(files: Any, path: str, kept: set[str], superseded: list[str]) -> None:
    """Remove what is superseded or abandoned; that it cannot be is no reason to fail a job."""
    oldest = (datetime.datetime.now(datetime.UTC) - ABANDONED_AFTER).strftime(_BEGUN)
    versions = f"{path}/versions"
    try:
        for name in (found.rstrip("/").rpartition("/")[2] for found in files.ls(versions, False)):
            version = f"versions/{name}"
            abandoned = name[0].isdigit() and name < oldest  # names begin with the time
            if version in superseded or (abandoned and version not in kept):
                files.rm(f"{versions}/{name}", recursive=True)
    except OSError as error:
        log.warning("%s: an old version could not be removed: %s", versions, error)


def current(folder: str, made_by: str) -> str:
    """The folder of the current version.

    Raises:
        NotPublished: there is none; `made_by` is the job to run first.
    """
    versions = _published(*fsspec.url_to_fs(folder))
    if not versions:
        raise NotPublished(f"{folder}: nothing is published there; run jobs/{made_by}.py first")
    return f"{folder}/{versions[0]}"


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


def _published(files: Any, path: str) -> list[str]:
    """The current version and the one before it, as far as there are such."""
    try:
        # Not by `open`: that trusts a cached listing, which may be older than the file.
        return str(files.cat_file(f"{path}/{POINTER}"), "utf-8").split()
    except FileNotFoundError:
        return []
