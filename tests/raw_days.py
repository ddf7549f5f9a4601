"""Read the raw logs that `ingest` writes, in plain Python."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, Literal

from mfn.settings import Settings

Kind = Literal["events", "items", "users"]


def lines(settings: Settings, kind: Kind, day: str) -> list[dict[str, Any]]:
    """The rows of a day, in file order."""
    folder = Path(settings.logs_folder(kind), f"dt={day}")
    return [
        json.loads(line)
        for file in sorted(folder.glob("*.json.gz"))
        for line in gzip.open(file, "rt", encoding="utf-8")
    ]


def contents(settings: Settings, day: str | None = None) -> dict[str, bytes]:
    """Content of every raw log file, of all kinds, of one day or of all days."""
    root = Path(settings.root, "raw")
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted(root.glob(f"*/dt={day or '*'}/*"))
        if not file.name.startswith(".")
    }


def days(settings: Settings, kind: Kind) -> list[str]:
    """Days whose folder is finished (has _SUCCESS)."""
    folder = Path(settings.logs_folder(kind))
    return sorted(one.parent.name.removeprefix("dt=") for one in folder.glob("dt=*/_SUCCESS"))
