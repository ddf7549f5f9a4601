"""Versioned folders: published whole or not at all, on anything that fsspec reaches.

A publication is a new folder `versions/<id>` and then one small file, CURRENT, which names it and
the version before it. Readers follow only that pointer. A rename of a folder would not do: object
stores have none.

Of two runs that make the same at once, the one that began later goes on: a run writes its name
into a file, and looks whether it still stands there before each thing that it publishes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import fsspec

from mfn.errors import NotPublished, Superseded

POINTER = "CURRENT"
MANIFEST = "manifest.json"
MODEL = "model.json"
ABANDONED_AFTER = datetime.timedelta(days=7)
"""A version begun so long ago that is not published belongs to a process that died."""
_BEGUN = "%Y%m%dT%H%M%S"

log = logging.getLogger("mfn")


@dataclass(frozen=True)
class Claim:
    """The right of one run to publish: a file that holds the run's name."""

    path: str
    run: str

    def check(self) -> None:
        """See whether the right is still this run's.

        Raises:
            Superseded: another run has begun.
        """
        files, inner = fsspec.url_to_fs(self.path)
        holder = str(files.cat_file(inner), "utf-8")
        if holder != self.run:
            raise Superseded(
                f"{self.path}: another run of the same began while this one ran, and it goes on; "
                "this one has stopped, and what it had made is made by the other"
            )


_claims: ContextVar[tuple[Claim, ...]] = ContextVar("claims", default=())


@contextlib.contextmanager
def claim(path: str) -> Iterator[None]:
    """Take the right to publish in this block from whoever has it."""
    mine = Claim(path, uuid.uuid4().hex)
    write_whole(path, mine.run)
    with holding((*claims(), mine)):
        yield


def claims() -> tuple[Claim, ...]:
    """What this run has claimed: to be held by its workers too."""
    return _claims.get()


@contextlib.contextmanager
def holding(claimed: tuple[Claim, ...]) -> Iterator[None]:
    """Publish in this block under claims that were made elsewhere."""
    before = _claims.set(claimed)
    try:
        yield
    finally:
        _claims.reset(before)


def check_claims() -> None:
    """See whether this run may still publish.

    Raises:
        Superseded: another run of the same has begun.
    """
    for one in claims():
        one.check()


@contextlib.contextmanager
def publish(folder: str) -> Iterator[str]:
    """Give a fresh folder to fill; make it the current version when the block ends well.

    When the block raises, or the process dies, readers keep the version from before. The version
    before the current one stays, for those who are reading it; older ones are removed. Of two
    publishers at once the last to end wins, unless they have a claim.

    Raises:
        Superseded: another run has taken the claim; the version from before stays.
    """
    begun = datetime.datetime.now(datetime.UTC).strftime(_BEGUN)
    version = f"versions/{begun}-{uuid.uuid4().hex[:12]}"
    files, path = fsspec.url_to_fs(folder)
    files.makedirs(f"{path}/{version}", exist_ok=True)
    try:
        yield f"{folder}/{version}"
        check_claims()
    except BaseException:
        with contextlib.suppress(Exception):  # what is raised already is what matters
            files.rm(f"{path}/{version}", recursive=True)
        raise
    before = _published(files, path)
    _replace_file(files, f"{path}/{POINTER}", "\n".join([version, *before[:1]]))
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


def folders(folder: str) -> dict[str, str]:
    """Folders in this one by name, in the names' order; none where it is not there."""
    files, path = fsspec.url_to_fs(folder)
    found = files.ls(path, detail=True) if files.exists(path) else []
    paths = sorted(str(one["name"]) for one in found if one["type"] == "directory")
    names = (path.rstrip("/").rpartition("/")[2] for path in paths)
    return {name: f"{folder}/{name}" for name in names}


def folders_by_date(folder: str) -> dict[datetime.date, str]:
    """Folders in this one that are named by a date, the oldest first; others are none of ours."""
    dated = {}
    for name, path in folders(folder).items():
        with contextlib.suppress(ValueError):
            dated[datetime.date.fromisoformat(name)] = path
    return dated


def replace_json(path: str, content: Any) -> None:
    """Write `content` as JSON in place of what is there, whole or not at all."""
    write_whole(path, _as_json(content))


def write_whole(path: str, text: str) -> None:
    """Write a text file so that readers see all of it, or what was there before."""
    files, inner = fsspec.url_to_fs(path)
    _replace_file(files, inner, text)


def _replace_file(files: Any, path: str, text: str) -> None:
    """Write a small file beside its place and move it there: on a disk only a rename is atomic."""
    folder, _, name = path.rpartition("/")
    beside = f"{folder}/.{name}.{uuid.uuid4().hex}"
    try:
        with _naming(path):
            files.makedirs(folder, exist_ok=True)
            files.pipe_file(beside, text.encode())
            files.mv(beside, path)
    except BaseException:
        if files.exists(beside):
            files.rm(beside)
        raise


def write_bytes(files: Any, path: str, content: bytes) -> None:
    """Write a file, in a folder that is made if need be; readers may see half of it.

    Raises:
        OSError: the disk is full, say.
    """
    with _naming(path):
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, content)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Have what goes wrong name the file, which a write to a full disk by itself does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or path
        else:  # as object stores raise it: a text alone, which a file name would replace
            error.args = (f"{path}: {error}",)
        raise


def write_json(path: str, content: Any) -> None:
    """Write `content` as sorted, indented JSON."""
    files, inner = fsspec.url_to_fs(path)
    write_bytes(files, inner, _as_json(content).encode())


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


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
