"""The peers' environments, made once each, and a peer's training in its own.

An environment is kept in the cache under the hash of its pinned requirements; a change of these
makes another one.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bench import measure

PEERS = ("fuxictr", "recbole", "deepctr")
CACHE = Path.home() / ".cache" / "mfn" / "peers"
_MADE = "made"
"""A file in an environment, written last: without it, the rest may be half of one."""


def python_of(peer: str) -> Path:
    """The interpreter of the peer's environment, which is made if it is not there.

    Raises:
        ValueError: there is no such peer.
        subprocess.CalledProcessError: it could not be made.
    """
    if peer not in PEERS:
        raise ValueError(f"expected a peer of {', '.join(PEERS)}, got {peer!r}")
    requirements = Path(__file__).with_name(f"requirements-{peer}.txt")
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    folder = CACHE / f"{peer}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / _MADE).exists():
        _uv("venv", "--clear", "--python", sys.executable, folder)
        _uv("pip", "sync", "--python", python, requirements)
        (folder / _MADE).touch()
    return python


def train(peer: str, task: Any, cores: Collection[int]) -> dict[str, Any]:
    """Train as the task says, in a process of the peer's environment, on these cores.

    Returns:
        what its script wrote: candidates, seconds, auc, parameters, versions.
    """
    python = python_of(peer)
    result: dict[str, Any] = measure.run_task(f"bench.peers.{peer}_din", task, cores, python)[0]
    return result


def _uv(*arguments: str | Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, *arguments, "--quiet"], check=True, stdout=sys.stderr)
