"""The windows of days that belong to a run date."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from mfn.settings import WindowSettings

Window = tuple[datetime.date, datetime.date]
"""First and last day, both included."""


@dataclass(frozen=True)
class Windows:
    """The windows of one run date, oldest first, without gaps between them."""

    history: Window | None
    pretraining: Window
    pretraining_validation: Window
    train: Window
    test: Window

    @property
    def days(self) -> list[datetime.date]:
        """Every day of every window, oldest first."""
        first = (self.history or self.pretraining)[0]
        return days_between((first, self.test[1]))


def days_between(window: Window) -> list[datetime.date]:
    """The days of a window, oldest first."""
    first, last = window
    return [first + datetime.timedelta(days=n) for n in range((last - first).days + 1)]


def windows(date: datetime.date, settings: WindowSettings) -> Windows:
    """The windows of the run date `date`, which is the last day of the test window."""
    end = date + datetime.timedelta(days=1)

    def take(days: int) -> Window:
        nonlocal end
        last, end = end - datetime.timedelta(days=1), end - datetime.timedelta(days=days)
        return end, last

    test = take(settings.test_days)
    train = take(settings.training_days)
    validation = take(settings.pretraining_validation_days)
    pretraining = take(settings.pretraining_days - settings.pretraining_validation_days)
    history = take(settings.history_days) if settings.history_days else None
    return Windows(history, pretraining, validation, train, test)
