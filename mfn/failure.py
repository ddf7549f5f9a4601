"""What went wrong, for people: of traces that fill a screen, the line that says it."""

from __future__ import annotations

from py4j.protocol import Py4JJavaError

_TRACEBACK = "Traceback (most recent call last):"


def in_a_line(error: BaseException) -> str:
    """What was raised and, where that says something else, what it was first of all caused by.

    Of Java's exceptions, which come with their stacks as text, and of those that a Python worker
    of Spark's has raised, it finds these lines in the text.
    """
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    outer, inner = _headlines(error)[0], _headlines(cause)[-1]
    return outer if inner in outer else f"{outer}, caused by {inner}"


def _headlines(error: BaseException) -> list[str]:
    """First what was raised, last the cause that its text tells of."""
    lines = str(error).splitlines()
    found = [f"{type(error).__name__}: {line.strip()}" for line in lines if line.strip()][:1]
    if isinstance(error, Py4JJavaError):
        # "An error occurred while calling o1.save.", then ": " and the exception with its stack.
        found = [line.removeprefix(": ") for line in lines if line.startswith(": ")][:1]
        found += [
            line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by")
        ]
    traces = [place for place, line in enumerate(lines, 1) if line.endswith(_TRACEBACK)]
    if traces:
        # Frames are indented, and what was raised is not.
        raised = [line for line in lines[traces[-1] :] if line.strip() and not line[0].isspace()]
        told = found[0].removesuffix(_TRACEBACK).removesuffix(" Please see the stack trace below.")
        found = [told.rstrip(" .:"), *raised[:1]]
    return found or [type(error).__name__]
