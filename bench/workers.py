"""Candidates per second of one worker and of two, each on its own core, and the bytes they send.

    .venv/bin/python bench/workers.py [--steps 200]

MFN trains on request rows with 10 candidates and 50 behaviours; a million items follow a Zipf
distribution. Each worker takes 128 requests per step, data loading included. One worker runs
without Horovod, as in the job `train`. Two workers exchange dense gradients and the gradients of
the embedding rows in their batches. For comparison, it also prints the minimum that a worker has to
send: each row once with an index of 4 bytes, and the dense gradients once.

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

import torch
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
)

from bench import measure, request_rows  # noqa: E402
from bench.trainings import trainer_of  # noqa: E402
from mfn import job  # noqa: E402
from mfn.engine.shards import shards  # noqa: E402
from mfn.engine.trainer import parameter_count  # noqa: E402
from mfn.engine.workers import SingleWorker  # noqa: E402
from mfn.settings import Settings  # noqa: E402
from mfn.splits.published import Splits  # noqa: E402

STEPS = 200
ITEMS, CANDIDATES, HISTORY = 1_000_000, 10, 50
MODEL = "mfn"
REPETITIONS = 3


def main(arguments: Sequence[str]) -> int:
    """Run one and two workers alternately; print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS, help="steps per worker")
    chosen = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="mfn-bench-") as folder:
        tasks: dict[int, dict[str, Any]] = {}
        for workers in runs:
            conf = [
                "--config",
                str(REPOSITORY / "conf/bench.yaml"),
                "--root",
                f"{folder}/{workers}",
            ]
            settings = job.parse(conf, "a benchmark")
            requests = chosen.steps * settings.train.batch_requests * workers
            request_rows.publish(settings, request_rows.Shape(requests, CANDIDATES, HISTORY, ITEMS))
            tasks[workers] = {
                "settings": settings.model_dump(mode="json"), "model": MODEL, "workers": workers
            }  # fmt: skip
        for _ in range(REPETITIONS):  # alternate, because other processes may use the machine
            for workers, task in tasks.items():
                used = set(cores[:workers])
                runs[workers].append(measure.run_task("bench.trainings", task, used)[0])
        least = least_bytes(Settings(**tasks[2]["settings"]))
    one, two = (max(of, key=lambda run: run["candidates_per_second"]) for of in runs.values())
    print_table(runs, least)
    line = {
        "speedup_2": two["candidates_per_second"] / one["candidates_per_second"],
        "candidates_per_second": {
            workers: [round(run["candidates_per_second"]) for run in of]
            for workers, of in runs.items()
        },
        "communication_share": two["communication_share"],
        "sent_bytes_a_step": two["sent_bytes"] / two["steps"],
        "least_bytes_a_step": least,
        "wait_share": two["wait_share"],
    }
    print(json.dumps(line))
    return 0


def least_bytes(settings: Settings) -> float:
    """Minimum bytes that worker 0 of two has to send per step, on average over an epoch."""
    splits = Splits.published(settings)
    trainer = trainer_of(SingleWorker(), settings, splits, MODEL)
    model, train = trainer.model, settings.train
    table = model.embedding
    shard = shards(splits.files("train"), str(settings.date), 1, workers=2, seed=train.seed)[0]
    touched, steps = 0, 0
    for batch in trainer.feed.epoch(shard, train.batch_requests):
        # Distinct rows of the embedding table in this batch.
        ids, _, _ = model.encoder.rows(
            torch.cat([batch.history_BN, batch.candidates_BM], dim=1).flatten()
        )
        users = batch.user_fields_BP + torch.tensor(model.user_offsets)
        contexts = batch.context_fields_BS + torch.tensor(model.context_offsets)
        touched += len(torch.unique(torch.cat([one.flatten() for one in (ids, users, contexts)])))
        steps += 1
    dense = parameter_count(model) - table.weight.numel()
    # Per touched row an index and its gradient; all numbers have 4 bytes.
    return touched / steps * (4 + 4 * table.weight.shape[1]) + 4 * dense


def print_table(runs: dict[int, list[dict[str, Any]]], least: float) -> None:
    """Print the results, one line per run."""
    table = Table(title=f"{MODEL}, {CANDIDATES} candidates, {HISTORY} behaviours, {ITEMS:,} items")
    for title in (
        "workers",
        "candidates/s",
        "ms/step",
        "waiting",
        "communication",
        "bytes/step",
    ):
        table.add_column(title, justify="right")
    for workers, of in runs.items():
        for run in of:
            table.add_row(
                str(workers),
                f"{run['candidates_per_second']:,.0f}",
                f"{1e3 * run['seconds'] / run['steps']:.1f}",
                f"{run['wait_share']:.1%}",
                f"{run['communication_share']:.1%}",
                f"{run['sent_bytes'] / run['steps']:,.0f}",
            )
        table.add_section()
    console = Console(width=100)
    console.print(table)
    console.print(f"minimum that one of two workers has to send: {least:,.0f} bytes per step")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
