"""Raw events and the files that a log delivers."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mfn.settings import Settings, WindowSettings

DAYS = [datetime.date(2026, 3, day) for day in range(5, 9)]
LAST = DAYS[-1]
WINDOWS = WindowSettings(pretraining_days=2, training_days=1, test_days=1)
MakeSettings = Callable[..., Settings]
Line = bytes | str | dict[str, Any]


def event(event_id: str, day: datetime.date = LAST, /, **other: Any) -> dict[str, Any]:
    """A clean event; a field with the value ... is left out."""
    fields = {
        "event_id": event_id,
        "event_time": f"{day}T12:00:00Z",
        "user_id": "u1",
        "event_type": "click",
        "item_id": "i1",
        **other,
    }
    return {name: value for name, value in fields.items() if value is not ...}


def as_bytes(line: Line) -> bytes:
    if isinstance(line, dict):
        line = json.dumps(line)
    return line.encode() if isinstance(line, str) else line


def deliver(
    settings: Settings, day: datetime.date, lines: Iterable[Line], name: str = "part-0.json"
) -> Path:
    """Write one file into a day's folder."""
    folder = Path(settings.logs_folder("events"), f"dt={day}")
    folder.mkdir(parents=True, exist_ok=True)
    content = b"".join(as_bytes(line) + b"\n" for line in lines)
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path
