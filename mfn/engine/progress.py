"""Progress of a long loop: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 10.0


class Progress:
    """Shows the steps done, the time left and a short message.

    Args:
        shown: whether to show anything; workers other than worker 0 show nothing.
        done: steps that were done before.
    """

    def __init__(self, name: str, steps: int, shown: bool, done: int = 0) -> None:
        # The driver gets a worker's output as lines; there a bar would become many lines.
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

    def advance(self, message: str) -> None:
        """Count one more step, and show a message about it."""
        self.bar.set_postfix_str(message, refresh=False)
        self.bar.update()


class _Lines:
    """Standard error for tqdm if it is not a terminal: each redrawn bar becomes a line."""

    def write(self, text: str) -> None:
        """Write a redrawn bar as a line."""
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()
