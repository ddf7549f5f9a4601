"""Candidates a second, from Parquet on disk to the optimizer's step, beside three peers' DIN.

    .venv/bin/python bench/training.py [--candidates 200000] [--models mfn din …] [--no-auc]

Every model of conf/bench.yaml trains one epoch of the same rows: requests of 10 candidates and 50
behaviours among a million items, and once more of a single candidate. The peers are FuxiCTR,
RecBole and DeepCTR-Torch, in environments of their own, fed as their documents say with a row a
candidate (`bench.peers`); what they do once with the data, such as converting them, is not counted.
A batch has 1,280 candidates for all. Every process has one core and one thread, its feed included.

For how good the models are, all of them train on a day of the simulated shop too, the peers on the
same features (`bench.flat`), and their AUC on its test day stands beside.

It ends with a table and one line of JSON, and with exit code 0 whatever they say.
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
"""Candidates of a request."""

Network = dict[str, tuple[int, ...]]
"""The peers' settings of the widths of their layers."""

console = Console(stderr=True)


def main(arguments: Sequence[str]) -> int:
    """Run all of it; print the table and the line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--candidates", type=int, default=CANDIDATES, help="of 10 a request")
    parser.add_argument("--models", nargs="+", help="only these of conf/bench.yaml")
    parser.add_argument("--no-auc", action="store_true", help="leave the shop out")
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
            # Requests of one candidate cost as much of their histories: fewer of them will do.
            candidates = chosen.candidates if slate > 1 else chosen.candidates // 5
            for name, found in speeds(
                settings, network, Path(folder, str(slate)), slate, candidates
            ):
                rows[name][f"speed_{slate}"] = found["candidates_per_second"]
                rows[name][f"wait_{slate}"] = found.get("wait_share")
                rows[name]["parameters"] = found["parameters"]
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
    """How it is called in the table."""
    return f"{peer}'s din"


def speeds(
    settings: Settings, network: Network, folder: Path, slate: int, candidates: int
) -> list[tuple[str, dict[str, Any]]]:
    """Every model's account, and the peers', of one epoch of requests of so many candidates."""
    core = {min(os.sched_getaffinity(0))}
    train = settings.train.model_copy(update={"batch_requests": BATCH_CANDIDATES // slate})
    settings = settings.model_copy(update={"root": str(folder), "train": train})
    shape = request_rows.Shape(candidates // slate, slate, HISTORY, ITEMS)
    request_rows.publish(settings, shape)
    flat.write(Splits.published(settings), folder / "flat")
    found = []
    for name in settings.models:
        console.print(f"{slate} candidates a request: {name}", highlight=False)
        task = {"settings": settings.model_dump(mode="json"), "model": name, "workers": 1}
        found.append((name, measure.run_task("bench.trainings", task, core)[0]))
    for peer in environments.PEERS:
        console.print(f"{slate} candidates a request: {peer_name(peer)}", highlight=False)
        one = train_peer(peer, settings, network, folder, epochs=1, auc=False)
        one["candidates_per_second"] = one["candidates"] / one["seconds"]
        found.append((peer_name(peer), one))
    return found


def aucs(settings: Settings, network: Network, folder: Path) -> list[tuple[str, float]]:
    """AUC on the test day of a shop that all have trained on."""
    console.print("a day of the simulated shop", highlight=False)
    day, _ = measure.run_task("bench.shop_day", settings.model_dump(mode="json"))
    flat.write(Splits.at(day["splits"]), folder / "flat")
    found = [(name, auc) for name, auc in day["aucs"].items() if name in settings.models]
    for peer in environments.PEERS:
        console.print(f"the shop: {peer_name(peer)}", highlight=False)
        one = train_peer(peer, settings, network, folder, epochs=settings.train.epochs, auc=True)
        found.append((peer_name(peer), one["auc"]))
    return found


def train_peer(
    peer: str, settings: Settings, network: Network, folder: Path, *, epochs: int, auc: bool
) -> dict[str, Any]:
    """What a peer says of a training on the flat rows of this folder."""
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
    """What was measured, a line a model."""
    table = Table(title=f"one core, {ITEMS:,} items, {HISTORY} behaviours: candidates a second")
    table.add_column("model")
    for title in ("parameters", *(f"{slate} a request" for slate in SLATES), "waiting", "shop AUC"):
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
