"""A step's time by the size of the embedding table, and by whether it is spread over workers.

    .venv/bin/python bench/embeddings.py [--items 100000 1000000 10000000] [--steps 100]

A step of MFN, 128 requests of 10 candidates and 50 behaviours, items drawn uniformly, so that a
batch touches as many rows of any table. One worker has a core and a thread; of two each has its
own. What two workers end with is held against each other too: the largest difference between the
parameters of a replicated and a sharded table.

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
"""Of the table that is spread over workers."""
MODEL = "mfn"


def main(arguments: Sequence[str]) -> int:
    """Run all sizes; print the table and the line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS, help="rows, by table")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps that are timed")
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
    milliseconds = {items: of_step(one) for items, one in by_items.items()}
    smallest, largest = min(by_items), max(by_items)
    line = {
        "step_ratio_10m_to_100k": milliseconds[largest] / milliseconds[smallest],
        "sharded_to_replicated": of_step(of_two["sharded"]) / of_step(of_two["replicated"]),
        "largest_difference": of_two["largest_difference"],
        "step_milliseconds": milliseconds,
        "items": [smallest, largest],
    }
    print(json.dumps(line))
    return 0


def published(root: Path, items: int, steps: int, workers: int) -> Settings:
    """Settings of a root in which there are rows for so many steps, the first ones included."""
    conf = ["--config", str(REPOSITORY / "conf/bench.yaml"), "--root", str(root)]
    settings = job.parse(conf, "a benchmark")
    requests = steps * settings.train.batch_requests * workers
    shape = request_rows.Shape(requests, 10, 50, items, "uniform")
    request_rows.publish(settings, shape)
    return settings


def both_forms(settings: Settings) -> dict[str, Any]:
    """In each of two workers: an epoch with a replicated table, and one with a sharded one."""
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


def of_step(account: dict[str, Any]) -> float:
    """Milliseconds of a step."""
    return 1e3 * float(account["seconds"]) / int(account["steps"])


def print_table(by_items: dict[int, dict[str, Any]], of_two: dict[str, Any]) -> None:
    """What was measured, a line a table."""
    table = Table(title=f"a step of {MODEL}: 128 requests a worker, 10 candidates, 50 behaviours")
    for title in ("table", "workers", "ms a step", "ratio", "bytes a step", "MB"):
        table.add_column(title, justify="left" if title == "table" else "right")
    first = of_step(next(iter(by_items.values())))
    for items, one in by_items.items():
        step, peak = of_step(one), one["peak_memory_mb"]
        told = ["1", f"{step:.1f}", f"{step / first:.2f}", "0", f"{peak:,.0f}"]
        table.add_row(f"{items:,} items", *told)
    table.add_section()
    first = of_step(of_two["replicated"])
    for form in ("replicated", "sharded"):
        step, sent = of_step(of_two[form]), of_two[form]["sent_bytes"] / of_two[form]["steps"]
        told = ["2", f"{step:.1f}", f"{step / first:.2f}", f"{sent:,.0f}", ""]
        table.add_row(f"{SHARED_ITEMS:,} items, {form}", *told)
    console = Console(width=100)
    console.print(table)
    console.print(
        f"largest difference between their parameters: {of_two['largest_difference']:.2g}",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
