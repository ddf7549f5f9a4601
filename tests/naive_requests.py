"""Requests, labels and histories in plain loops, as defined in `mfn.splits`: the oracle that tests
compare with. Slow, and independent of the real implementation."""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from mfn.windows import Windows

Event = dict[str, Any]
"""dt, event_id, time, user, type, item; optionally request, position, context. If `spared` is
false, training rows drop the candidate of this impression unless it is clicked."""
Key = tuple[str, bool, str]
"""User, whether the log has the request id, request id."""
RowOf = Callable[[str, datetime.date], int]
"""The row of an item in the item table on a day; UNKNOWN if it has none."""
Request = tuple[Key, int]
"""Key and number of the request among those with the same key, from 0."""
UNKNOWN, PADDING = 2, 0
SPLITS = ("pretraining", "pretraining_validation", "train", "test")


@dataclass(frozen=True)
class Rules:
    """The settings that rows depend on: the attribution window, N, M, and so on."""

    windows: Windows
    zone: str = "UTC"
    attribution: datetime.timedelta = datetime.timedelta(minutes=30)
    history: int = 5
    candidates: int = 3
    behaviours: tuple[str, ...] = ("click", "cart", "purchase")

    def day(self, event: Event) -> datetime.date:
        """The day of an event's time in the time zone."""
        time: datetime.datetime = event["time"]
        return time.astimezone(ZoneInfo(self.zone)).date()

    def midnight(self, day: datetime.date) -> datetime.datetime:
        """The start of a day."""
        return datetime.datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone))

    @property
    def last(self) -> datetime.date:
        """The run date."""
        return self.windows.test[1]

    @property
    def needed_from(self) -> datetime.datetime:
        """Impressions and clicks before this time belong to no request of the windows."""
        return self.midnight(self.windows.pretraining[0]) - self.attribution


def naive_rows(
    events: Sequence[Event], row_of: RowOf, rules: Rules, listed_from: int = 3
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows with split, request_id, user_id, time, history, candidates, candidate_ids, labels and
    the context of the earliest impression; and the counts that `build_splits` returns.

    Rows of items below `listed_from` are not in the catalogue."""
    requests, counts, request_of = _requests(events, rules)
    behaviours = defaultdict(list)
    for event in sorted(events, key=lambda event: (event["time"], event["event_id"])):
        in_windows = rules.windows.days[0] <= rules.day(event) <= rules.last
        if event["type"] in rules.behaviours and event["dt"] <= rules.last and in_windows:
            behaviours[event["user"]].append(event)
    rows = []
    for (key, number), (split, time, candidates, clicked, first) in requests.items():
        user, _, request = key
        history = [
            row_of(one["item"], rules.day(one))
            for one in behaviours[user]
            if one["time"] < time and request_of(one) != (key, number)
        ][-rules.history :]
        for place in range(0, len(candidates), rules.candidates):
            part = candidates[place : place + rules.candidates]
            padding = [PADDING] * (rules.candidates - len(part))
            items = [one["item"] for one in part]
            rows_of_items = [row_of(item, rules.day({"time": time})) for item in items]
            rows.append(
                {
                    "split": split,
                    "request_id": request,
                    "user_id": user,
                    "time": time,
                    "history": history + [PADDING] * (rules.history - len(history)),
                    "history_length": len(history),
                    "candidates": rows_of_items + padding,
                    "candidate_ids": items,
                    "labels": [int(item in clicked) for item in items] + padding,
                    "context": first.get("context") or {},
                }
            )
            counts[f"{split}_rows"] += 1
            counts[f"{split}_candidates"] += len(items)
            counts[f"{split}_clicks"] += sum(item in clicked for item in items)
            counts[f"{split}_empty_histories"] += not history
            counts[f"{split}_unknown_candidates"] += rows_of_items.count(UNKNOWN)
            unlisted = sum(row < listed_from for row in rows_of_items)
            counts[f"{split}_unlisted_candidates"] += unlisted
            counts[f"{split}_behaviours"] += len(history)
            counts[f"{split}_unlisted_behaviours"] += sum(row < listed_from for row in history)
        counts[f"{split}_requests"] += 1
    users = {split: {row["user_id"] for row in rows if row["split"] == split} for split in SPLITS}
    counts["test_users"] = len(users["test"])
    counts["test_users_in_training"] = len(users["test"] & users["train"])
    return rows, counts


def comparable(split: str, row: Mapping[str, Any], time: datetime.datetime) -> tuple[Any, ...]:
    """A row of `naive_rows` or of `build_splits`, as a tuple that can be compared."""
    lists = ("history", "candidates", "labels", "candidate_ids")
    names = ("request_id", "user_id", "history_length")
    return (split, time, *(row[name] for name in names), *(tuple(row[name]) for name in lists))


def _position(event: Event) -> float:
    position = event.get("position")
    return float("inf") if position is None else position


def key_of(event: Event) -> Key | None:
    """The request that an event belongs to by its own ids; None if they do not say."""
    if event.get("request"):
        return event["user"], True, event["request"]
    return (event["user"], False, event["event_id"]) if event["type"] == "impression" else None


def _requests(
    events: Sequence[Event], rules: Rules
) -> tuple[dict[Request, Any], Counter[str], Callable[[Event], Request | None]]:
    """By request: split, time, candidates, clicked items and earliest impression; the counts; and
    a function that gives the request that a behaviour belongs to."""
    counts: Counter[str] = Counter()
    impressions = [
        event
        for event in events
        if event["type"] == "impression"
        and event["dt"] <= rules.last
        and event["time"] >= rules.needed_from
        and rules.day(event) <= rules.last
    ]
    clicks_of = defaultdict(list)
    for click in events:
        if click["type"] == "click" and click["time"] >= rules.needed_from:
            clicks_of[key_of(click) or nearest(click, impressions, rules)].append(click)
    # The start of each request of a key: an impression after the window starts the next one.
    starts: dict[Key, list[datetime.datetime]] = defaultdict(list)
    slates: dict[Request, list[Event]] = defaultdict(list)
    for impression in sorted(impressions, key=lambda one: one["time"]):
        key = key_of(impression)
        assert key
        if not starts[key] or impression["time"] > starts[key][-1] + rules.attribution:
            starts[key].append(impression["time"])
        slates[key, len(starts[key]) - 1].append(impression)

    def of_key(event: Event, key: Key) -> int:
        """The first request whose window has not ended, or the last one."""
        open_ones = [
            number
            for number, start in enumerate(starts[key])
            if event["time"] <= start + rules.attribution
        ]
        return open_ones[0] if open_ones else len(starts[key]) - 1

    @cache
    def request_of(place: int) -> Request | None:
        event = events[place]
        is_click = event["type"] == "click" and event["time"] >= rules.needed_from
        key = key_of(event) or (nearest(event, impressions, rules) if is_click else None)
        return None if key is None else (key, of_key(event, key))

    places = {event["event_id"]: place for place, event in enumerate(events)}
    start = rules.midnight(rules.last + datetime.timedelta(days=1))
    later = [event["time"] for event in events if event["dt"] > rules.last]
    complete = max([start - datetime.timedelta(microseconds=1), *later])
    requests: dict[Request, Any] = {}
    matched = set()
    for (key, number), slate in slates.items():
        time = min(event["time"] for event in slate)
        of_item: dict[str, Event] = {}
        for event in sorted(slate, key=lambda event: (event["time"], _position(event))):
            of_item.setdefault(event["item"], event)
        clicked = set()
        for click in clicks_of[key]:
            shown = of_item.get(click["item"])
            if of_key(click, key) != number:
                continue
            if shown and shown["time"] <= click["time"] <= time + rules.attribution:
                clicked.add(click["item"])
                matched.add(click["event_id"])
        split = _split(rules, {"time": time})
        if split is None:
            continue
        if time + rules.attribution > complete:
            counts["immature_requests"] += 1
            continue
        counts["repeated_impressions"] += len(slate) - len(of_item)
        counts["repeated_request_ids"] += number > 0
        candidates = sorted(of_item.values(), key=lambda event: (_position(event), event["item"]))
        first = min(candidates, key=lambda one: (one["time"], _position(one), one["item"]))
        if split == "train":
            seen = len(candidates)
            candidates = [c for c in candidates if c["item"] in clicked or c.get("spared", True)]
            counts["negatives_left_out"] += seen - len(candidates)
            if not candidates:
                counts["requests_left_without_candidates"] += 1
                continue
        requests[key, number] = (split, time, candidates, clicked, first)
    begin = rules.windows.pretraining[0]
    counts["clicks_without_impression"] = sum(
        click["event_id"] not in matched and begin <= rules.day(click) <= rules.last
        for clicks in clicks_of.values()
        for click in clicks
    )
    return requests, counts, lambda event: request_of(places[event["event_id"]])


def nearest(click: Event, impressions: Sequence[Event], rules: Rules) -> Key | None:
    """The request of the latest impression that a click without request id can belong to."""
    found = [
        (impression["time"], key_of(impression))
        for impression in impressions
        if impression["user"] == click["user"]
        and impression["item"] == click["item"]
        and impression["time"] <= click["time"] <= impression["time"] + rules.attribution
    ]
    return max(found)[1] if found else None


def _split(rules: Rules, event: Event) -> str | None:
    day = rules.day(event)
    for split in SPLITS:
        first, last = getattr(rules.windows, split)
        if first <= day <= last:
            return split
    return None
