"""Progress of a long loop: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 10.0


class Progress:
    """How far a loop is, with what it says of itself and time left; on worker 0 only."""

    def __init__(self, name: str, steps: int, shown: bool, done: int = 0) -> None:
        # A worker's output comes to the driver line by line, where a bar would be many lines.
        terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=steps,
            initial=done,
            desc=name,
            unit="step",
            disable=not shown,
            leave=True,
            mininterval=0.2 if terminal else LINE_SECONDS,
            maxinterval=LINE_SECONDS,
            ascii=not terminal,
            ncols=100,
            file=sys.stderr if terminal else _Lines(),
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()

    def advance(self, told: str) -> None:
        """One more step, and what to say of it."""
        self.bar.set_postfix_str(told, refresh=False)
        self.bar.update()


class _Lines:
    """Standard error for tqdm where it is no terminal: what it redraws becomes lines."""

    def write(self, text: str) -> None:
        """Write a redrawn bar as a line of its own."""
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()
