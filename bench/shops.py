"""Raw logs of simulated shops of any size, simulated once and kept in the user's cache.

python -m bench.shops TASK.json RESULT.json
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import duckdb

from bench import measure
from mfn import spark as sessions
from mfn.settings import Settings, SimulateSettings, SparkSettings
from mfn.simulator.simulate import simulate_logs
from mfn.windows import windows

DATE = datetime.date(2026, 3, 8)
SPARK = SparkSettings(master="local[2]", driver_memory="3g", shuffle_partitions=8)
ITEMS = 12_000
"""Items of a shop of any size; users and their events grow with the size."""
EVENTS_OF_A_REQUEST, EVENTS_A_BROWSING, EVENTS_A_USER = 15, 5, 250
"""Raw events per request, per browsing session, and per user, used to choose a shop's size; about
12 of 15 events belong to requests."""
HEAVIEST_USER = 1_000_000
"""Limit of events per user and day; above it, validation would drop the heavy user as a bot."""
_WHOLE = "WHOLE"

Extra = Literal["one user", "all users"]


def size(rows: int) -> SimulateSettings:
    """Settings of a shop that writes about `rows` raw events in all its days."""
    days = SimulateSettings().days
    return SimulateSettings(
        users=max(1, rows // EVENTS_A_USER),
        items=ITEMS,
        requests_per_day=max(1, rows // days // EVENTS_OF_A_REQUEST),
        browsing_per_day=max(1, rows // days // EVENTS_A_BROWSING),
    )


def settings_of(root: Path, logs: Path, **sections: Any) -> Settings:
    """Settings of a benchmark run on the logs in this folder."""
    folders = {kind: f"{logs}/raw/{kind}" for kind in ("events", "items", "users", "truth")}
    checks = {"max_user_events": HEAVIEST_USER}
    return Settings(
        **{
            "root": str(root),
            "date": DATE,
            "spark": SPARK,
            "logs": folders,
            "validation": checks,
            **sections,
        }
    )


def cached(rows: int) -> Path:
    """Folder of a shop's logs with about `rows` events; simulated if they are not in the cache."""
    simulate = size(rows)
    folder = _cache("shop", simulate.model_dump(mode="json"))
    if not (folder / _WHOLE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        settings = settings_of(folder, folder, simulate=simulate)
        measure.run_task("bench.shops", settings.model_dump(mode="json"))
        (folder / _WHOLE).touch()
    return folder


def cached_with_extra(rows: int, extra: int, of: Extra) -> Path:
    """Like `cached`, with `rows` events in total, `extra` of them additional browsing.

    The additional events belong to one user or to all users; all else in them is the same.
    """
    base = cached(rows - extra)
    folder = _cache("extra", [base.name, extra, of, duckdb.__version__])
    if not (folder / _WHOLE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base / "raw", folder / "raw")
        add_browsing(settings_of(folder, folder), extra, of, size(rows - extra).users)
        (folder / _WHOLE).touch()
    return folder


def add_browsing(settings: Settings, events: int, of: Extra, users: int) -> None:
    """Add one more file with browsing events to each day's folder of raw events."""
    days = windows(settings.date, settings.windows).days
    user = "'u0'" if of == "one user" else f"'u' || (hash(n, 'user') % {users})"
    with duckdb.connect() as database:
        for position, day in enumerate(days):
            first, end = (events * part // len(days) for part in (position, position + 1))
            items = f"{settings.logs_folder('items')}/dt={day}/*.json.gz"
            events_of_day = f"{settings.logs_folder('events')}/dt={day}"
            database.execute(f"""
                COPY (
                    WITH item AS MATERIALIZED (
                        SELECT list(item_id ORDER BY item_id) AS ids
                        FROM read_json('{items}', columns = {{'item_id': 'VARCHAR'}})
                    )
                    SELECT '{day:%Y%m%d}-x' || n || '-0' AS event_id,
                        strftime(
                            TIMESTAMP '{day}'
                                + to_milliseconds((hash(n, 'time') % 86400000)::BIGINT),
                            '%Y-%m-%dT%H:%M:%S.%gZ'
                        ) AS event_time,
                        {user} AS user_id,
                        CASE hash(n, 'type') % 5 WHEN 0 THEN 'cart' WHEN 1 THEN 'purchase'
                            ELSE 'click' END AS event_type,
                        ids[(hash(n, 'item') % len(ids) + 1)::BIGINT] AS item_id,
                        {{'device': 'phone'}} AS context
                    FROM range({first}, {end}) AS numbers(n), item
                ) TO '{events_of_day}/part-extra.json.gz' (FORMAT json, COMPRESSION gzip)
            """)


def warm(logs: Path) -> int:
    """Read all files once, so that the first run does not wait for the disk; return their bytes."""
    return sum(len(path.read_bytes()) for path in sorted(logs.rglob("*.json.gz")))


def _cache(kind: str, inputs: Any) -> Path:
    """Folder in the cache for these inputs."""
    text = json.dumps(inputs, sort_keys=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mfn" / "bench" / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _serve(task: Any) -> None:
    settings = Settings(**task)
    with sessions.session(settings, "simulated logs for a benchmark") as session:
        simulate_logs(session, settings)


if __name__ == "__main__":
    measure.serve(_serve)
