"""The errors that end a job with a message for people; each names its exit code.

This module imports nothing, so that a model can be read without Spark.
"""

from __future__ import annotations


class BadSettings(ValueError):
    """A setting or an argument is wrong (exit 2); the message names it and what was expected."""


class DataRefused(Exception):
    """The data are not fit to use (exit 3); the message says what, where, and what to do."""


class Unreadable(DataRefused):
    """A file cannot be read: it is cut short, damaged, or of another kind."""


class NotPublished(FileNotFoundError):
    """An artifact that a job needs is missing (exit 3); the message names the job that makes it."""


class Superseded(RuntimeError):
    """A later run of the same job took over (exit 3); this run may publish nothing more."""


class JobFailed(RuntimeError):
    """The work stopped before its end (exit 1), for a reason that the message fully explains."""


REFUSALS = (DataRefused, NotPublished, Superseded)
"""The errors that end a job with exit 3."""
