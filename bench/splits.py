"""Events per second from raw logs to request rows, compared with DuckDB on the same logs.

    .venv/bin/python bench/splits.py [--rows 1000000 3000000 10000000] [--heavy-rows 3000000]

For each size it simulates a shop's logs (kept in the cache). It runs `validate_logs` and
`build_splits` on local[2], and the peer, `bench.splits_duckdb`, on two threads. Each runs in its
own process, with the input files in the page cache. All rows that they wrote are compared. The
start of the Spark session is reported but not counted, because a daily run uses one session for
all steps.

The last two runs measure a heavy user: a third of all events are additional browsing, of one user
in the first run, and of all users in the second run, the control.

It prints a table and one line of JSON. The exit code is 0 for any result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
)

from bench import measure, shops  # noqa: E402
from bench.splits_compare import differences  # noqa: E402

ROWS = (1_000_000, 3_000_000, 10_000_000)
HEAVY_ROWS = 3_000_000


def main(arguments: Sequence[str]) -> int:
    """Run all sizes; print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="raw events of each size")
    parser.add_argument(
        "--heavy-rows",
        type=int,
        default=HEAVY_ROWS,
        help="raw events of the runs with a heavy user",
    )
    chosen = parser.parse_args(arguments)
    console = Console(stderr=True)

    def report(text: str) -> None:
        console.print(text, highlight=False)

    sizes = [
        one_run(shops.cached(rows), f"{rows:,} events", report) for rows in sorted(chosen.rows)
    ]
    extra = chosen.heavy_rows // 3
    one, spread = (
        one_run(shops.cached_with_extra(chosen.heavy_rows, extra, of), f"{extra:,} of {of}", report)
        for of in ("one user", "all users")
    )
    print_table([*sizes, one, spread])
    print(json.dumps(summary(sizes, one, spread, extra)))
    return 0


def one_run(logs: Path, name: str, report: Callable[[str], None]) -> dict[str, Any]:
    """Run both sides on the same logs, and compare what they wrote.

    Args:
        logs: folder of the raw logs.
        name: the run's name in the table.
        report: called with each progress message.
    """
    shops.warm(logs)
    with tempfile.TemporaryDirectory(prefix="mfn-bench-") as folder:
        peer_folder = Path(folder, "peer")
        settings = shops.settings_of(Path(folder, "ours"), logs).model_dump(mode="json")
        report(f"{name}: validate_logs and build_splits")
        ours, our_cost = measure.run_task("bench.splits_spark", settings)
        report(f"{name}: the peer")
        task = {"settings": settings, "folder": str(peer_folder)}
        peers, peer_cost = measure.run_task("bench.splits_duckdb", task)
        report(f"{name}: compare")
        differing = differences(ours, peers, peer_folder)
    for difference in differing:
        report(f"{name}: DIFFERENT: {difference}")
    seconds = ours["validate"] + ours["build"]
    return {
        "name": name,
        "rows": ours["rows"],
        "seconds": seconds,
        "validate_seconds": ours["validate"],
        "build_seconds": ours["build"],
        "session_start_seconds": ours["start"],
        "peer_seconds": peers["seconds"],
        "peer_steps": peers["steps"],
        "events_per_second": ours["rows"] / seconds,
        "peer_events_per_second": ours["rows"] / peers["seconds"],
        "ratio_to_peer": seconds / peers["seconds"],
        "peak_memory_mb": our_cost.peak_memory_mb,
        "peer_peak_memory_mb": peer_cost.peak_memory_mb,
        "cpu_seconds_with_start": our_cost.cpu_seconds,
        "peer_cpu_seconds_with_start": peer_cost.cpu_seconds,
        "rows_equal": not differing,
    }


def summary(
    sizes: Sequence[dict[str, Any]], one: dict[str, Any], spread: dict[str, Any], extra: int
) -> dict[str, Any]:
    """The line of JSON.

    Args:
        sizes: runs of all sizes, ascending.
        one, spread: the runs with the additional events of one user, and of all users.
        extra: number of additional events.
    """
    largest = sizes[-1]
    line: dict[str, Any] = _rounded(
        {
            **{
                name: largest[name]
                for name in ("ratio_to_peer", "events_per_second", "peak_memory_mb")
            },
            "growth_exponent": growth_exponent(sizes),
            "rows_equal": all(run["rows_equal"] for run in [*sizes, one, spread]),
            "sizes": [*sizes],
            "heavy_user": {
                "rows": one["rows"],
                "events_of_the_user": extra,
                "build_seconds_ratio": one["build_seconds"] / spread["build_seconds"],
                "peak_memory_ratio": one["peak_memory_mb"] / spread["peak_memory_mb"],
                "with": one,
                "without": spread,
            },
        }
    )
    return line


def growth_exponent(sizes: Sequence[dict[str, Any]]) -> float | None:
    """Slope of log(our seconds) over log(rows); 1 is linear. None for a single size."""
    if len(sizes) < 2:
        return None
    rows, seconds = (
        np.array([math.log(size[name]) for size in sizes]) for name in ("rows", "seconds")
    )
    return float(np.polyfit(rows, seconds, 1)[0])


def print_table(runs: Sequence[dict[str, Any]]) -> None:
    """Print the results, one line per run."""
    table = Table(title="raw logs to request rows: Spark on local[2], DuckDB on 2 threads")
    table.add_column("run")
    columns: dict[str, tuple[str, str]] = {
        "rows": ("rows", ",.0f"),
        "validate_seconds": ("validate s", ".1f"),
        "build_seconds": ("build s", ".1f"),
        "peer_seconds": ("peer s", ".1f"),
        "ratio_to_peer": ("ratio", ".1f"),
        "events_per_second": ("events/s", ",.0f"),
        "peer_events_per_second": ("peer events/s", ",.0f"),
        "peak_memory_mb": ("MB", ",.0f"),
        "peer_peak_memory_mb": ("peer MB", ",.0f"),
    }
    for title, _ in columns.values():
        table.add_column(title, justify="right")
    table.add_column("equal")
    for run in runs:
        cells = (format(run[name], form) for name, (_, form) in columns.items())
        table.add_row(run["name"], *cells, "yes" if run["rows_equal"] else "NO")
    Console(width=140).print(table)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
