"""Folders and files by name, in a form that Spark, Delta, fsspec and Petastorm all read alike.

Hadoop, through which Spark reads, takes `*`, `?`, `[`, `{` and `\\` in a path for patterns. fsspec
does so where it removes files of an object store, and takes `::` for a chain of file systems.
Petastorm ends a URL at `#` and `?`, and Delta a path at a backtick. So a folder that the settings
name may have none of these. The names of delivered files, which others choose, may: `for_spark`
escapes them.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any

import fsspec

_PATTERNS = re.compile(r"[*?\[\]{}\\]")
_NOT_IN_A_FOLDER = re.compile(r"[*?\[\]{}\\#`]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_NOT_EXPANDED = re.compile(r"^~[^/]*|\$\w+|\$\{[^}]*\}")
# Two letters at least, since Windows has drives of one.
_URL = re.compile(r"([a-z][a-z0-9+.-]+):(.*)", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    # A password, not a port (a key of AWS may contain a slash).
    r"://[^/@:]*:(?!\d+/)[^@]*@"
    # A key before the name of a bucket; elsewhere the name before an @ is a container or a user.
    r"|^(s3[an]?|gc?s|https?)://[^/]*@"
    # A query, where tokens and signatures stand.
    r"|://.*\?",
    re.IGNORECASE | re.DOTALL,
)


class HoldsSecret(ValueError):
    """A value seems to hold a secret; no message may show the value."""


def file_or_folder(location: str) -> str:
    """A location that is only read, made absolute, in the one form that all readers understand.

    `~` and variables of the environment are expanded. A folder of this machine becomes a plain
    path: `file:///x` is `/x`. A URL gets its scheme in small letters, and a path without `//`, `.`
    and `..`, which Hadoop leaves out and object stores do not.

    Raises:
        HoldsSecret: it has a password, a key or a query, which may hold a token.
        ValueError: it has a blank at an end, a control character or `::`, names an unknown
            variable or user, is an incomplete URL, or the top of the file system.
    """
    text = os.path.expandvars(os.path.expanduser(location))
    if _SECRET.search(text):
        raise HoldsSecret(
            "expected an address without a password, a key or a query; give secrets to the "
            "environment, such as AWS_SECRET_ACCESS_KEY"
        )
    if text != text.strip() or _CONTROLS.search(text):
        raise ValueError("expected no blank at an end, no line break and no other control")
    if unknown := _NOT_EXPANDED.search(text):
        raise ValueError(f"expected known variables and users, but there is no {unknown[0]}")
    if "::" in text:
        raise ValueError("expected no '::', which fsspec takes for a chain of file systems")
    url = _URL.fullmatch(text)
    if url is None:
        return _of_this_machine(text)
    scheme = url[1].lower()
    rest = url[2] if url[2].startswith("//") else f"//{url[2]}"  # hdfs:/x is hdfs:///x
    name, _, path = rest.removeprefix("//").partition("/")
    if not url[2].startswith("/"):
        raise ValueError(f"expected {scheme}://NAME/FOLDER, or ./{text} for a folder here")
    if scheme == "file":
        if name not in ("", "localhost"):
            raise ValueError(f"expected the path of a folder, or file:///{name}/{path}")
        return _of_this_machine(f"/{path}")
    if not name and scheme != "hdfs":
        raise ValueError(f"expected {scheme}://NAME/FOLDER")
    inner = posixpath.normpath(f"/{path}").lstrip("/")
    return f"{scheme}://{name}/{inner}".rstrip("/")


def _of_this_machine(path: str) -> str:
    absolute = "/" + os.path.abspath(path).lstrip("/")
    if absolute == "/":
        raise ValueError("expected a folder below the top of the file system")
    return absolute


def folder(location: str) -> str:
    """A folder in which much lies or is written, as `file_or_folder`.

    Raises:
        HoldsSecret: as `file_or_folder`.
        ValueError: as `file_or_folder`, or a character of the path means something else to one of
            the readers.
    """
    path = file_or_folder(location)
    if special := _NOT_IN_A_FOLDER.search(path):
        raise ValueError(
            r"expected no * ? [ ] { } # \ ` in the path, which Spark, Delta, fsspec or Petastorm "
            f"take for something else, but {path} has {special[0]}; rename the folder, or "
            "give a symbolic link to it"
        )
    return path


def files_at(location: str) -> tuple[Any, str]:
    """The file system of a location, and the path in it; it lists what is there now.

    fsspec keeps the listings of an object store. It would not see what Spark or another process has
    written since.
    """
    files, path = fsspec.url_to_fs(location)
    files.invalidate_cache()
    return files, path


def for_spark(path: str) -> str:
    """A path for `spark.read`, which reads just this file or folder and looks for no pattern."""
    return _PATTERNS.sub(r"\\\g<0>", path)
