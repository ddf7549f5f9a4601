"""Environments for what cannot live in this project's own: made once each, kept in the cache.

An environment lies under the hash of its pinned requirements; a change of these makes another one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

_MADE = "whole"
"""A file in an environment, written last: without it, the rest may be half of one."""


def python_of(requirements: Path) -> Path:
    """The interpreter of the environment with these requirements, made now if it is not there.

    Raises:
        subprocess.CalledProcessError: it could not be made.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mfn" / "environments" / f"{requirements.stem}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / _MADE).exists():
        uv("venv", "--clear", "--python", sys.executable, folder)
        # Compiled now, as processes may not leave bytecode behind (PYTHONDONTWRITEBYTECODE).
        uv("pip", "sync", "--compile-bytecode", "--python", python, requirements)
        (folder / _MADE).touch()
    return python


def uv(*arguments: str | Path, told: str = "") -> None:
    """Run this environment's uv, with `told` on its standard input.

    Raises:
        subprocess.CalledProcessError: it has failed, and has said why.
    """
    program = Path(sys.executable).parent / "uv"
    command = [program, *arguments, "--quiet"]
    subprocess.run(command, input=told, text=True, check=True, stdout=sys.stderr)
