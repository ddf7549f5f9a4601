"""The shares of candidates and behaviours that the catalogue does not list, and their limits.

Of an item that no snapshot up to the day lists, models know at most the id. If the catalogue loses
items, or names them otherwise than the log does, only worse models would show it.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mfn import layout, storage
from mfn.errors import DataRefused, NotPublished
from mfn.settings import Settings, SplitSettings

KINDS = ("candidates", "behaviours")
MIN_DATES_BEFORE, MAX_DATES_BEFORE = 3, 14
"""A date is compared with at most so many dates before it, and with none if there are fewer."""
MIN_MEDIAN = 0.01
"""Lower bound of the median share: below it, several times as many may be chance."""


def shares(split: Mapping[str, Any]) -> dict[str, float]:
    """The shares of a split that the catalogue does not list, by name.

    Args:
        split: its part of the manifest. In an older one the counts, and so the shares, are missing.
    """
    found = {}
    for kind in KINDS:
        number, total = split.get(f"unlisted_{kind}"), split.get(kind)
        if number is not None and total:
            found[f"unlisted_{kind}_share"] = number / total
    return found


def refuse_too_many(manifest: Mapping[str, Any], settings: Settings) -> None:
    """Compare the test window's shares with the limits and with the dates before.

    Raises:
        DataRefused: a share is above `splits.max_unlisted_share`, or above its median of the dates
            before times `splits.max_unlisted_ratio`.
    """
    problems = find_problems(
        shares(manifest["splits"]["test"]), _of_dates_before(settings), settings.splits
    )
    if problems:
        raise DataRefused(
            "\n".join(
                [
                    *(f"{settings.date}: {problem}" for problem in problems),
                    "nothing was published; deliver a catalogue in "
                    f"{settings.logs_folder('items')} that lists these items by the log's own ids, "
                    "and run the job again, or change the setting if such a day may pass",
                ]
            )
        )


def find_problems(
    today: Mapping[str, float], before: Sequence[Mapping[str, float]], settings: SplitSettings
) -> list[str]:
    """A line for each share that is too high.

    Args:
        today: `shares` of the test window.
        before: those of earlier dates.
        settings: the limits.
    """
    problems = []
    for name, share in today.items():
        past = [of_date[name] for of_date in before if name in of_date]
        most, source = settings.max_unlisted_share, "splits.max_unlisted_share"
        if len(past) >= MIN_DATES_BEFORE:
            median = statistics.median(past)
            by_ratio = max(median, MIN_MEDIAN) * settings.max_unlisted_ratio
            if by_ratio < most:
                most = by_ratio
                source = (
                    f"the median of the dates before is {median:.4%}, and "
                    f"splits.max_unlisted_ratio is {settings.max_unlisted_ratio:g}"
                )
        if share > most:
            kind = name.removeprefix("unlisted_").removesuffix("_share")
            problems.append(
                f"the share of {kind} of the test window whose item no snapshot of the catalogue "
                f"lists: expected at most {most:.4%} ({source}), got {share:.4%}"
            )
    return problems


def _of_dates_before(settings: Settings) -> list[dict[str, float]]:
    """The shares of the last dates before the run date that have splits."""
    folders = storage.folders_by_date(layout.all_dates(settings.root, layout.SPLITS))
    dates = [date for date in folders if date < settings.date][-MAX_DATES_BEFORE:]
    found = []
    for date in dates:
        # A build that was refused or killed leaves a folder without a version.
        with contextlib.suppress(NotPublished):
            folder = storage.current(folders[date], "build_splits")
            manifest = storage.read_json(f"{folder}/{storage.MANIFEST}")
            found.append(shares(manifest["splits"]["test"]))
    return found
