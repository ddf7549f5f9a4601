"""Error messages for people: the one line of a long trace that says what is wrong."""

from __future__ import annotations

import textwrap

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

LONGEST = 500
"""Maximum number of characters of each part of the line."""
_TRACEBACK = "Traceback (most recent call last):"


def in_a_line(error: BaseException) -> str:
    """The raised error, and its root cause if that says something else.

    Errors of Java and of Spark's Python workers hold their stack traces as text; the two lines are
    found in this text.
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    outer, inner = _headlines(error)[0], _headlines(chain[-1])[-1]
    return outer if inner in outer else f"{outer}, caused by {inner}"


def _headlines(error: BaseException) -> list[str]:
    """The raised error first, its root cause last."""
    kind, text = type(error).__name__, _text(error)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if isinstance(error, Py4JJavaError):
        # "An error occurred while calling o1.save.", then ": " and the exception with its stack.
        found = [line.removeprefix(": ") for line in lines if line.startswith(": ")][:1] or [kind]
        found += [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused")]
    elif isinstance(error, PySparkException):
        found = [f"{kind}: {line.strip()}" for line in lines[:1]]  # then comes a plan or a query
    else:
        found = [f"{kind}: {text}" if lines else kind]
    traces = [place for place, line in enumerate(lines, 1) if line.endswith(_TRACEBACK)]
    if traces:
        # Frames are indented, the raised error is not.
        raised = [line for line in lines[traces[-1] :] if not line[0].isspace()]
        message = (
            found[0].partition(_TRACEBACK)[0].removesuffix(" Please see the stack trace below.")
        )
        found = [message.rstrip(" .:\n"), *raised[:1]]
    return [textwrap.shorten(one, LONGEST, placeholder=" …") for one in found] or [kind]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""  # the text of a Java error is asked of Java, which may have died
