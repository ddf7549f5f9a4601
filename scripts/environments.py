"""Environments for packages that conflict with this project's own; each is made once, in the cache.

The folder's name contains a hash of the pinned requirements, so a change of them makes a new one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

_FINISHED = "whole"
"""A file that is written last. An environment without it is incomplete and is made again."""


def python_of(requirements: Path) -> Path:
    """The interpreter of the environment with these requirements; makes the environment if needed.

    Raises:
        subprocess.CalledProcessError: uv failed to make it.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mfn" / "environments" / f"{requirements.stem}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / _FINISHED).exists():
        uv("venv", "--clear", "--python", sys.executable, folder)
        # Where PYTHONDONTWRITEBYTECODE is set, no later process can write the bytecode.
        uv("pip", "sync", "--compile-bytecode", "--python", python, requirements)
        (folder / _FINISHED).touch()
    return python


def uv(*arguments: str | Path, stdin: str = "") -> None:
    """Run this environment's uv, with `stdin` as its standard input.

    Raises:
        subprocess.CalledProcessError: it failed; its own message is on stderr.
    """
    program = Path(sys.executable).parent / "uv"
    command = [program, *arguments, "--quiet"]
    subprocess.run(command, input=stdin, text=True, check=True, stdout=sys.stderr)
