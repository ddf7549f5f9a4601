"""Time of a training step by the size of the embedding table; replicated and sharded tables.

    .venv/bin/python bench/embeddings.py [--items 100000 1000000 10000000] [--steps 100]

A step of MFN has 128 requests with 10 candidates and 50 behaviours. Items are drawn uniformly, so
that a batch touches about the same number of rows in a table of any size. Each worker has one core
and one thread. With two workers, it also prints the largest difference between the parameters
trained with a replicated and with a sharded table.

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

import horovod
import torch
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
)

from bench import measure, request_rows  # noqa: E402
from bench.trainings import measured, pinned, trainer_of  # noqa: E402
from mfn import job  # noqa: E402
from mfn.settings import Settings  # noqa: E402
from mfn.splits.published import Splits  # noqa: E402

ITEMS = (100_000, 1_000_000, 10_000_000)
STEPS = 100
SHARED_ITEMS = 1_000_000
"""Items of the table in the run with two workers."""
MODEL = "mfn"


def main(arguments: Sequence[str]) -> int:
    """Run all sizes; print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS, help="items of each table")
    parser.add_argument("--steps", type=int, default=STEPS, help="timed steps")
    chosen = parser.parse_args(arguments)
    core = {min(os.sched_getaffinity(0))}
    by_items: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="mfn-bench-") as folder:
        for items in chosen.items:
            settings = published(Path(folder, str(items)), items, chosen.steps, workers=1)
            task = {"settings": settings.model_dump(mode="json"), "model": MODEL, "workers": 1}
            by_items[items], cost = measure.run_task("bench.trainings", task, core)
            by_items[items]["peak_memory_mb"] = cost.peak_memory_mb
        settings = published(Path(folder, "two"), SHARED_ITEMS, chosen.steps, workers=2)
        of_two = horovod.run(both_forms, (settings,), num_proc=2, use_gloo=True)[0]
    print_table(by_items, of_two)
    milliseconds = {items: step_milliseconds(stats) for items, stats in by_items.items()}
    smallest, largest = min(by_items), max(by_items)
    line = {
        "step_ratio_10m_to_100k": milliseconds[largest] / milliseconds[smallest],
        "sharded_to_replicated": step_milliseconds(of_two["sharded"])
        / step_milliseconds(of_two["replicated"]),
        "largest_difference": of_two["largest_difference"],
        "step_milliseconds": milliseconds,
        "items": [smallest, largest],
    }
    print(json.dumps(line))
    return 0


def published(root: Path, items: int, steps: int, workers: int) -> Settings:
    """Publish rows for `steps` steps of each worker, and return the settings to train on them."""
    conf = ["--config", str(REPOSITORY / "conf/bench.yaml"), "--root", str(root)]
    settings = job.parse(conf, "a benchmark")
    requests = steps * settings.train.batch_requests * workers
    shape = request_rows.Shape(requests, 10, 50, items, "uniform")
    request_rows.publish(settings, shape)
    return settings


def both_forms(settings: Settings) -> dict[str, Any]:
    """On each of two workers: one epoch with a replicated table, then one with a sharded table.

    Returns:
        statistics by form of the table; on rank 0 also the largest difference of parameters.
    """
    workers, splits = pinned(), Splits.published(settings)
    found: dict[str, Any] = {}
    states = []
    for name, sharded in (("replicated", False), ("sharded", True)):
        trainer = trainer_of(workers, settings, splits, MODEL, sharded)
        found[name] = measured(trainer, splits, MODEL)
        states.append(trainer.model.full_state_dict())
    if workers.rank == 0:
        one, other = states
        differences = [
            float((one[name] - other[name]).abs().max())
            for name in one
            if one[name].dtype == torch.float32 and one[name].numel()
        ]
        found["largest_difference"] = max(differences)
    return found


def step_milliseconds(stats: dict[str, Any]) -> float:
    """Mean milliseconds per step."""
    return 1e3 * float(stats["seconds"]) / int(stats["steps"])


def print_table(by_items: dict[int, dict[str, Any]], of_two: dict[str, Any]) -> None:
    """Print the results, one line per table of embeddings."""
    table = Table(title=f"step of {MODEL}: 128 requests per worker, 10 candidates, 50 behaviours")
    for title in ("table", "workers", "ms/step", "ratio", "bytes/step", "MB"):
        table.add_column(title, justify="left" if title == "table" else "right")
    first = step_milliseconds(next(iter(by_items.values())))
    for items, one in by_items.items():
        step, peak = step_milliseconds(one), one["peak_memory_mb"]
        cells = ["1", f"{step:.1f}", f"{step / first:.2f}", "0", f"{peak:,.0f}"]
        table.add_row(f"{items:,} items", *cells)
    table.add_section()
    first = step_milliseconds(of_two["replicated"])
    for form in ("replicated", "sharded"):
        step, sent = (
            step_milliseconds(of_two[form]),
            of_two[form]["sent_bytes"] / of_two[form]["steps"],
        )
        cells = ["2", f"{step:.1f}", f"{step / first:.2f}", f"{sent:,.0f}", ""]
        table.add_row(f"{SHARED_ITEMS:,} items, {form}", *cells)
    console = Console(width=100)
    console.print(table)
    console.print(
        f"largest difference between the parameters of both: {of_two['largest_difference']:.2g}",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
