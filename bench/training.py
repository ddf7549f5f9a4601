"""Candidates per second, from Parquet files to optimizer steps, compared with DIN of three peers.

    .venv/bin/python bench/training.py [--candidates 200000] [--models mfn din …] [--no-auc]

Every model of conf/bench.yaml trains one epoch on the same rows: requests with 10 candidates and 50
behaviours, a million items; and a second time on requests with a single candidate. The peers are
FuxiCTR, RecBole and DeepCTR-Torch. Each has its own environment and is fed one row per candidate,
as its documentation says (`bench.peers`). Work that a peer does once with the data, such as a
conversion, is not counted. All batches have 1,280 candidates. Every process has one core and one
thread, including its data loading.

To compare quality too, all models also train on a day of the simulated shop, the peers on the same
features (`bench.flat`). The table shows their AUC on the test day.

It prints a table and one line of JSON. The exit code is 0 for any result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
)

from bench import flat, measure, request_rows  # noqa: E402
from bench.peers import environments  # noqa: E402
from mfn import job  # noqa: E402
from mfn.models.settings import DinSettings  # noqa: E402
from mfn.settings import Settings  # noqa: E402
from mfn.splits.published import Splits  # noqa: E402

CANDIDATES = 200_000
BATCH_CANDIDATES = 1_280
ITEMS, HISTORY = 1_000_000, 50
SLATES = (10, 1)
"""Candidates per request, of each run."""

Network = dict[str, tuple[int, ...]]
"""Widths of the peers' layers."""

console = Console(stderr=True)


def main(arguments: Sequence[str]) -> int:
    """Run everything; print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--candidates", type=int, default=CANDIDATES, help="candidates to train on, 10 per request"
    )
    parser.add_argument("--models", nargs="+", help="train only these models of conf/bench.yaml")
    parser.add_argument("--no-auc", action="store_true", help="skip the shop and its AUC")
    chosen = parser.parse_args(arguments)
    conf = ["--config", str(REPOSITORY / "conf/bench.yaml")]
    settings = job.parse(conf, "a benchmark")
    din = settings.models["din"]
    if not isinstance(din, DinSettings):
        raise TypeError(f"conf/bench.yaml: expected din to be DIN, got {din.extractor}")
    network = {"mlp_units": din.head_units, "attention_units": din.target_units}
    if chosen.models:
        models = {name: settings.models[name] for name in chosen.models}
        evaluate = settings.evaluate.model_copy(update={"base_model": chosen.models[0]})
        settings = settings.model_copy(update={"models": models, "evaluate": evaluate})
    rows: dict[str, dict[str, Any]] = {
        name: {} for name in [*settings.models, *map(peer_name, environments.PEERS)]
    }
    with tempfile.TemporaryDirectory(prefix="mfn-bench-") as folder:
        for slate in SLATES:
            # The cost of a history does not depend on the number of candidates, so the run with one
            # candidate per request uses fewer candidates.
            candidates = chosen.candidates if slate > 1 else chosen.candidates // 5
            for name, stats in speeds(
                settings, network, Path(folder, str(slate)), slate, candidates
            ):
                rows[name][f"speed_{slate}"] = stats["candidates_per_second"]
                rows[name][f"wait_{slate}"] = stats.get("wait_share")
                rows[name]["parameters"] = stats["parameters"]
        if not chosen.no_auc:
            for name, auc in aucs(settings, network, Path(folder, "shop")):
                rows[name]["auc"] = auc
    print_table(rows)
    peers = [rows[peer_name(peer)] for peer in environments.PEERS]
    line = {
        f"mfn_to_fastest_peer_{slate}": rows["mfn"][f"speed_{slate}"]
        / max(peer[f"speed_{slate}"] for peer in peers)
        for slate in SLATES
        if "mfn" in rows
    }
    waits = [row[f"wait_{slate}"] for row in rows.values() for slate in SLATES]
    line |= {
        "wait_share": max(wait for wait in waits if wait is not None),
        "candidates_per_second": {
            name: {slate: round(row[f"speed_{slate}"]) for slate in SLATES}
            for name, row in rows.items()
        },
        "auc": {name: row["auc"] for name, row in rows.items() if "auc" in row},
    }
    print(json.dumps(line))
    return 0


def peer_name(peer: str) -> str:
    """Name of a peer in the table."""
    return f"{peer}'s din"


def speeds(
    settings: Settings, network: Network, folder: Path, slate: int, candidates: int
) -> list[tuple[str, dict[str, Any]]]:
    """Train each model and each peer for one epoch on requests with `slate` candidates.

    Returns:
        pairs of name and training statistics.
    """
    core = {min(os.sched_getaffinity(0))}
    train = settings.train.model_copy(update={"batch_requests": BATCH_CANDIDATES // slate})
    settings = settings.model_copy(update={"root": str(folder), "train": train})
    shape = request_rows.Shape(candidates // slate, slate, HISTORY, ITEMS)
    request_rows.publish(settings, shape)
    flat.write(Splits.published(settings), folder / "flat")
    all_stats = []
    for name in settings.models:
        console.print(f"{slate} candidates per request: {name}", highlight=False)
        task = {"settings": settings.model_dump(mode="json"), "model": name, "workers": 1}
        all_stats.append((name, measure.run_task("bench.trainings", task, core)[0]))
    for peer in environments.PEERS:
        console.print(f"{slate} candidates per request: {peer_name(peer)}", highlight=False)
        stats = train_peer(peer, settings, network, folder, epochs=1, auc=False)
        stats["candidates_per_second"] = stats["candidates"] / stats["seconds"]
        all_stats.append((peer_name(peer), stats))
    return all_stats


def aucs(settings: Settings, network: Network, folder: Path) -> list[tuple[str, float]]:
    """AUC of each model and each peer on the test day of the simulated shop."""
    console.print("a day of the simulated shop", highlight=False)
    day, _ = measure.run_task("bench.shop_day", settings.model_dump(mode="json"))
    flat.write(Splits.at(day["splits"]), folder / "flat")
    found = [(name, auc) for name, auc in day["aucs"].items() if name in settings.models]
    for peer in environments.PEERS:
        console.print(f"the shop: {peer_name(peer)}", highlight=False)
        stats = train_peer(peer, settings, network, folder, epochs=settings.train.epochs, auc=True)
        found.append((peer_name(peer), stats["auc"]))
    return found


def train_peer(
    peer: str, settings: Settings, network: Network, folder: Path, *, epochs: int, auc: bool
) -> dict[str, Any]:
    """Train a peer on the flat rows of this folder; return its result."""
    task = {
        "data": str(folder / "flat"),
        "scratch": str(folder / peer),
        "settings": {
            "dimension": settings.embeddings.dimension,
            **network,
            "batch_candidates": BATCH_CANDIDATES,
            "learning_rate": settings.train.learning_rate,
            "epochs": epochs,
            "seed": settings.train.seed,
        },
        "auc": auc,
    }
    return environments.train(peer, task, {min(os.sched_getaffinity(0))})


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    """Print the results, one line per model."""
    table = Table(title=f"candidates per second: one core, {ITEMS:,} items, {HISTORY} behaviours")
    table.add_column("model")
    for title in (
        "parameters",
        *(f"{slate} per request" for slate in SLATES),
        "waiting",
        "shop AUC",
    ):
        table.add_column(title, justify="right")
    for name, row in rows.items():
        wait, auc = row[f"wait_{SLATES[0]}"], row.get("auc")
        table.add_row(
            name,
            f"{row['parameters']:,}",
            *(f"{row[f'speed_{slate}']:,.0f}" for slate in SLATES),
            "" if wait is None else f"{wait:.1%}",
            "" if auc is None else f"{auc:.4f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
