"""Run a peer's training in the peer's own environment."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from bench import measure
from scripts.environments import python_of

PEERS = ("fuxictr", "recbole", "deepctr")


def train(peer: str, task: Any, cores: Collection[int]) -> dict[str, Any]:
    """Run a training in a process of the peer's environment, on these cores.

    Returns:
        the script's result: candidates, seconds, auc, parameters, versions.
    """
    python = python_of(Path(__file__).with_name(f"requirements-{peer}.txt"))
    result: dict[str, Any] = measure.run_task(f"bench.peers.{peer}_din", task, cores, python)[0]
    return result
