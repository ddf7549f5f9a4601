"""Versioned folders, published whole or not at all, on every file system that fsspec supports.

To publish is to write a new folder `versions/<id>` and then one small file, CURRENT, which names
it and the version before it. Readers follow only this pointer. Renaming a folder would not work:
object stores cannot rename.

If two runs make the same output at once, the later one wins. Each run writes its name into a claim
file, and checks before each publication that its name is still there. This is no lock: two runs
that check at the same moment may both publish a folder, and then the last one to publish wins. A
Delta table is stricter (`mfn.tables.replace`): there the claim is checked within the commit.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from mfn.errors import NotPublished, Superseded, Unreadable
from mfn.locations import files_at

POINTER = "CURRENT"
MANIFEST = "manifest.json"
MODEL = "model.json"
ABANDONED_AFTER = datetime.timedelta(days=7)
"""An unpublished version older than this belongs to a process that died."""
_BEGUN = "%Y%m%dT%H%M%S"

log = logging.getLogger("mfn")


@dataclass(frozen=True)
class Claim:
    """The right of a run to publish: a file that names the run.

    Attributes:
        date: the run's date; empty if it has none.
        work: what the run does, as others read it: "validates 2026-03-04 to 2026-03-08".
        run: a name of its own.
    """

    path: str
    date: str = ""
    work: str = ""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def again(self) -> Claim:
        """The same claim for another run."""
        return Claim(self.path, self.date, self.work)

    def check(self) -> None:
        """Check that no other run has taken the claim.

        Raises:
            Superseded: another run has; the message names its date.
        """
        other = holder(self.path)
        if other is None or other.run != self.run:
            of_date = f", that of {other.date}" if other is not None and other.date else ""
            raise Superseded(
                f"{self.path}: a later run of the same job took over{of_date}; this run stopped "
                "without publishing"
            )


def holder(path: str) -> Claim | None:
    """The claim in a file; None if there is none, or one of an earlier version of this package."""
    text = read_text(path)
    try:
        return None if text is None else Claim(path, **json.loads(text))
    except (ValueError, TypeError):
        return None


_claims: ContextVar[tuple[Claim, ...]] = ContextVar("claims", default=())


@contextlib.contextmanager
def claim(mine: Claim) -> Iterator[None]:
    """Claim the right to publish in this block; an earlier run loses it."""
    write_whole(mine.path, json.dumps({"date": mine.date, "work": mine.work, "run": mine.run}))
    with holding((*claims(), mine)):
        yield


def claims() -> tuple[Claim, ...]:
    """The claims of this run, to be passed on to its workers."""
    return _claims.get()


@contextlib.contextmanager
def holding(claimed: tuple[Claim, ...]) -> Iterator[None]:
    """Publish in this block under claims that another process made."""
    before = _claims.set(claimed)
    try:
        yield
    finally:
        _claims.reset(before)


def check_claims() -> None:
    """Check that this run may still publish.

    Raises:
        Superseded: a later run of the same job took over.
    """
    for one in claims():
        one.check()


@contextlib.contextmanager
def publish(folder: str) -> Iterator[str]:
    """Give an empty folder to fill, and make it the current version when the block succeeds.

    If the block raises, or the process dies, the earlier version stays current. The version before
    the current one is kept for those who still read it; older ones are removed. If two publish at
    the same time without a claim, the last one wins.

    Raises:
        Superseded: a later run has taken the claim; the earlier version stays current.
    """
    begun = datetime.datetime.now(datetime.UTC).strftime(_BEGUN)
    version = f"versions/{begun}-{uuid.uuid4().hex[:12]}"
    files, path = files_at(folder)
    files.makedirs(f"{path}/{version}", exist_ok=True)
    try:
        yield f"{folder}/{version}"
        check_claims()
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to report
            files.rm(f"{path}/{version}", recursive=True)
        raise
    before = _published(folder)
    _replace_file(files, f"{path}/{POINTER}", "\n".join([version, *before[:1]]))
    _remove_old(files, path, kept={version, *before[:1]}, superseded=before[1:])


def _remove_old(files: Any, path: str, kept: set[str], superseded: list[str]) -> None:
    """Remove superseded and abandoned versions; a failure to do so does not fail the job."""
    oldest = (datetime.datetime.now(datetime.UTC) - ABANDONED_AFTER).strftime(_BEGUN)
    versions = f"{path}/versions"
    try:
        for name in (found.rstrip("/").rpartition("/")[2] for found in files.ls(versions, False)):
            version = f"versions/{name}"
            abandoned = name[0].isdigit() and name < oldest  # names begin with the time
            if version in superseded or (abandoned and version not in kept):
                files.rm(f"{versions}/{name}", recursive=True)
    except OSError as error:
        log.warning("%s: could not remove an old version: %s", versions, error)


def current(folder: str, made_by: str) -> str:
    """The folder of the current version.

    Raises:
        NotPublished: there is none; the message names `made_by`, the job to run first.
    """
    versions = _published(folder)
    if not versions:
        raise NotPublished(f"{folder}: nothing is published there; run jobs/{made_by}.py first")
    return f"{folder}/{versions[0]}"


def exists(path: str) -> bool:
    """Whether a file or folder exists."""
    files, inner = files_at(path)
    return bool(files.exists(inner))


def list_files(folder: str, suffix: str) -> list[str]:
    """Files of a folder with this suffix, as URLs sorted by name; empty if it does not exist."""
    files, path = files_at(folder)
    if not files.exists(path):
        return []
    return sorted(
        files.unstrip_protocol(name)
        for name in files.ls(path, detail=False)
        if name.endswith(suffix)
    )


def folders(folder: str) -> dict[str, str]:
    """Subfolders by name, sorted by name; empty if the folder does not exist."""
    files, path = files_at(folder)
    found = files.ls(path, detail=True) if files.exists(path) else []
    paths = sorted(str(one["name"]) for one in found if one["type"] == "directory")
    names = (path.rstrip("/").rpartition("/")[2] for path in paths)
    return {name: f"{folder}/{name}" for name in names}


def folders_by_date(folder: str) -> dict[datetime.date, str]:
    """Subfolders whose name is a date, oldest first; other subfolders are ignored."""
    dated = {}
    for name, path in folders(folder).items():
        with contextlib.suppress(ValueError):
            dated[datetime.date.fromisoformat(name)] = path
    return dated


def replace_json(path: str, content: Any) -> None:
    """Write `content` as JSON over an existing file, whole or not at all."""
    write_whole(path, _as_json(content))


def read_text(path: str) -> str | None:
    """The text of a small file; None if there is none."""
    files, inner = files_at(path)
    try:
        return str(files.cat_file(inner), "utf-8")
    except FileNotFoundError:
        return None


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    files, inner = files_at(path)
    with contextlib.suppress(FileNotFoundError):
        files.rm_file(inner)


def write_whole(path: str, text: str) -> None:
    """Write a text file so that readers see either all of it or the old content."""
    files, inner = files_at(path)
    _replace_file(files, inner, text)


def _replace_file(files: Any, path: str, text: str) -> None:
    """Write a temporary file and move it into place: on a disk only a rename is atomic."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{uuid.uuid4().hex}"
    try:
        with _naming(path):
            files.makedirs(folder, exist_ok=True)
            files.pipe_file(temporary, text.encode())
            files.mv(temporary, path)
    except BaseException:
        if files.exists(temporary):
            files.rm(temporary)
        raise


def write_bytes(files: Any, path: str, content: bytes) -> None:
    """Write a file and create its folder if needed; readers may see half of it.

    Raises:
        OSError: for example, the disk is full. The error names the file.
    """
    with _naming(path):
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, content)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Add the file's name to an error: a write to a full disk does not report it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or path
        else:  # from an object store: only a text, which a file name would replace
            error.args = (f"{path}: {error}",)
        raise


def write_json(path: str, content: Any) -> None:
    """Write `content` as sorted, indented JSON."""
    files, inner = files_at(path)
    write_bytes(files, inner, _as_json(content).encode())


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_json(path: str) -> Any:
    """Read a JSON file.

    Raises:
        Unreadable: it is no JSON.
    """
    files, inner = files_at(path)
    content = files.cat_file(inner)
    try:
        return json.loads(content)
    except ValueError as error:
        raise Unreadable(
            f"{path}: expected JSON, got something else ({error}); run the job again that made it"
        ) from error


def _published(path: str) -> list[str]:
    """The current version of a folder and the one before it, if they exist."""
    return (read_text(f"{path}/{POINTER}") or "").split()
