"""How a process logs: one line for each event, plain or as JSON, on standard error."""

from __future__ import annotations

import logging

from pythonjsonlogger.json import JsonFormatter

from mfn.settings import LogFormat

log = logging.getLogger("mfn")


def set_up_logging(form: LogFormat = "plain") -> None:
    """Log one line an event, with time and level, to standard error; of others only warnings."""
    handler = logging.StreamHandler()
    if form == "json":
        handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], force=True)
    log.setLevel(logging.INFO)
