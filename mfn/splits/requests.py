"""Turn the events of users into timelines: requests with slates and labels, and behaviours.

**Request.** The impressions of one user with one request id, from the earliest one to the end of
the attribution window that starts with it. An impression without request id is a request by itself,
with the event's id as request id. One request id of two users means two requests. The time of a
request is its earliest impression; the day of that time decides its split. A request is complete
when its attribution window is over.

**Repeated request id.** An impression after the end of the window starts a new request with the
same id: so request ids that begin anew each day are told apart, and a page that is shown for hours
becomes several requests. These later requests are counted. A click or behaviour with the id, or a
click that gets it (see *Label*), belongs to the first of its requests whose window has not ended.

**Candidate.** An item of the request. Of several impressions of an item the earliest counts (at
equal times the one with the lower position). Candidates are sorted by position, those without
position last, then by item id. A slate longer than M becomes several rows of one request id. A
candidate that is shown on a later day than the request has the item's row of one attribution
window earlier: that is the row of the request's day, unless the window is longer than a day.

**Label.** 1 if a click on the item, with the same user and request id, comes between the
candidate's impression and the end of the request's attribution window, both included. A click
without request id gets that of the nearest earlier impression of its user and item, if this is at
most one attribution window earlier. Several clicks count as one. Other behaviours do not set
labels.

**Negatives.** If the negative sampling rate is below 1, training rows keep only that share of the
candidates without a click. The dropped candidates are counted. A request without any candidate
left makes no row, and is counted too.

**Immature.** If the attribution window of a request ends after the time up to which all events
are known, its labels are not known yet: it is dropped and counted.

The events of a task are sorted by (user, request, item, time), so that a request is a contiguous
block of rows. Numpy processes the blocks, tens of thousands of rows at a time. Only a block that
may continue in the next batch is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.types import ArrayType, BooleanType, ByteType, StructField, StructType

from mfn.indices import PADDING, UNKNOWN
from mfn.schema import INTEGER, LONG, STRING
from mfn.splits.columns import BATCH_ROWS, booleans, changes, lists, numbers, pieces, record_batch

SPLITS = ("pretraining", "pretraining_validation", "train", "test")
"""The windows whose requests become rows, oldest first."""

IMPRESSION, CLICK, OTHER, PROFILE = 0, 1, 2, 3
"""Kinds of rows in EVENTS_BY_USER. At equal times impressions sort before clicks."""

EVENTS_BY_USER = StructType(
    [
        StructField("user_id", STRING, False),
        StructField("time", LONG, False),
        StructField("kind", ByteType(), False),
        StructField("behaviour", BooleanType(), False),
        StructField("named", BooleanType(), False),
        StructField("request", STRING),
        StructField("item_id", STRING),
        StructField("item", INTEGER, False),
        StructField("item_before", INTEGER),
        StructField("position", INTEGER),
        StructField("event_id", STRING),
        StructField("spared", BooleanType(), False),
        StructField("fields", ArrayType(INTEGER, False), False),
    ]
)
"""The input: one row per event or profile of a user. Times are in microseconds since 1970.

behaviour: whether the event may enter histories.
item: the item's row on the day of the event.
item_before: of an impression, the item's row one attribution window earlier.
named: whether `request` comes from the log itself.
spared: whether an impression without a click stays a candidate in training rows.
fields: indices of the context of an impression, or of a profile.

Here and in TIMELINE an unused list is empty, not null: Spark's Arrow writer needs time quadratic
in the length of a run of null lists."""

KNOWN_PROFILE, REQUEST, BEHAVIOUR, DROPPED = 0, 1, 2, 3
"""Kinds of rows in TIMELINE, in their order at equal times: a request sees a profile of the same
time, and does not see behaviours of the same time."""

TIMELINE = StructType(
    [
        StructField("user_id", STRING, False),
        StructField("time", LONG, False),
        StructField("kind", ByteType(), False),
        StructField("event_id", STRING),
        StructField("own", LONG, False),
        StructField("item", INTEGER),
        StructField("request_id", STRING),
        StructField("slate", INTEGER),
        StructField("split", ByteType()),
        StructField("fields", ArrayType(INTEGER, False), False),
        StructField("candidates", ArrayType(INTEGER, False), False),
        StructField("labels", ArrayType(INTEGER, False), False),
        StructField("candidate_count", INTEGER),
        StructField("candidate_ids", ArrayType(STRING, False), False),
        StructField("clicks", INTEGER),
        StructField("unknown", INTEGER),
        StructField("unlisted", INTEGER),
        StructField("tally", ArrayType(LONG, False), False),
    ]
)
"""The output: one row per profile, request or behaviour of a user, to be sorted by time.

own: the same number in a request and in the behaviours with its request id that come before it;
    -1 in all other rows.
slate: the number of the row within its request, from 0.
clicks, unknown, unlisted: how many candidates of the row have label 1, how many the index UNKNOWN,
    and how many are in no snapshot up to the request's day.
tally: in rows of kind DROPPED the counts named in DROP_COUNTS; empty in all others."""

DROP_COUNTS = (
    "immature_requests",
    "repeated_impressions",
    "clicks_without_impression",
    "negatives_left_out",
    "requests_left_without_candidates",
    "repeated_request_ids",
)
"""Names of the counts of dropped requests, impressions, clicks and candidates; and of the requests
whose user had an earlier request with the same id."""
NEVER = 1 << 62
_NO_POSITION = np.iinfo(np.int32).max


@dataclass(frozen=True)
class RequestRules:
    """Settings of the step from events to requests; times in microseconds since 1970.

    attribution: length of the attribution window, in microseconds.
    candidates: M, the candidates of one row.
    starts: start of each of SPLITS, and then the end of the last one.
    midnights: start of each day of SPLITS.
    listed_from: first row of the item table that comes from the catalogue.
    complete_until: the time up to which all events are known, included.
    context_fields: how many fields of the context a row has.
    """

    attribution: int
    candidates: int
    starts: tuple[int, ...]
    midnights: tuple[int, ...]
    listed_from: int
    complete_until: int
    context_fields: int = 0


@dataclass(frozen=True)
class ToTimeline:
    """The step from EVENTS_BY_USER to TIMELINE, for mapInArrow."""

    rules: RequestRules
    batch_rows: int = BATCH_ROWS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Process complete requests; keep the rows of the last one for the next batch."""
        rest: pa.Table | None = None
        groups = 0
        for piece in pieces(batches, self.batch_rows):
            table = piece if rest is None else pa.concat_tables([rest, piece]).combine_chunks()
            ends = int(np.flatnonzero(_block_starts(table))[-1]) if table.num_rows else 0
            rest = table.slice(ends)
            if ends:
                yield from timeline(table.slice(0, ends), self.rules, groups)
                groups += ends
        if rest is not None and rest.num_rows:
            yield from timeline(rest, self.rules, groups)


def timeline(events: pa.Table, rules: RequestRules, first_group: int) -> Iterator[pa.RecordBatch]:
    """TIMELINE of the requests and behaviours in `events`.

    Args:
        events: EVENTS_BY_USER's columns, complete requests, sorted as the module says.
        rules: settings of this step.
        first_group: added to the numbers in `own`, so that no two calls use the same number.
    """
    # [rows] time, kind and number of the request; [requests] time and end of the attribution
    # window, and whether the id is repeated. A block of rows without impressions has the time
    # NEVER.
    events, starts_request, repeated = _with_one_request_a_block(events, rules.attribution)
    time, kind = numbers(events["time"]), numbers(events["kind"])
    request_of = np.cumsum(starts_request) - 1
    shown = kind == IMPRESSION
    request_time = _first_shown(time, shown, starts_request)
    window_ends = request_time + rules.attribution

    # [items of requests] the row of the item's first impression: the candidate; len(time) if the
    # item has none. Rows of one item are contiguous within a request.
    starts_item = starts_request | changes(events["item_id"])
    candidate_of_item = np.minimum.reduceat(
        np.where(shown, np.arange(len(time)), len(time)), np.flatnonzero(starts_item)
    )
    # [clicks] the row of each click and of its candidate, and whether the click sets the label
    # (matched): it has a candidate, is not earlier, and lies within the attribution window.
    clicks = np.flatnonzero(kind == CLICK)
    candidate = candidate_of_item[(np.cumsum(starts_item) - 1)[clicks]]
    matched = candidate < len(time)
    matched &= time[clicks] >= time[np.where(matched, candidate, 0)]
    matched &= time[clicks] <= window_ends[request_of[clicks]]
    # [rows] the label of each candidate, at the candidate's row.
    clicked = np.zeros(len(time), dtype=bool)
    clicked[candidate[matched]] = True

    # [requests] the split, and whether the request lies in one and its labels are known.
    # [candidates] the rows of the candidates of such requests.
    candidates = candidate_of_item[candidate_of_item < len(time)]
    split = np.searchsorted(np.array(rules.starts), request_time, side="right") - 1
    in_split = (split >= 0) & (split < len(rules.starts) - 1)
    mature = window_ends <= rules.complete_until
    kept = in_split & mature
    candidates = candidates[kept[request_of[candidates]]]
    before_sampling = len(candidates)
    # [requests] the row of the earliest impression, before negatives are dropped: it gives the
    # context.
    earliest = (
        _earliest(events, candidates, request_of, len(request_time))
        if rules.context_fields
        else np.zeros(0, dtype=np.int64)
    )
    candidates, emptied_requests = _drop_negatives(events, candidates, request_of, clicked, split)

    # [rows] behaviours with the id of a kept request and before it; [requests] the number that the
    # request shares with them, which excludes them from its history; -1 if there are none.
    behaviour = booleans(events["behaviour"])
    early = behaviour & booleans(events["request"].is_valid())
    early &= kept[request_of] & (time < request_time[request_of])
    own_number = np.full(len(request_time), -1)
    own_number[request_of[early]] = first_group + request_of[early]

    # One batch for each kind of row of the timeline.
    if len(candidates):
        item = _item_rows(events, rules, request_time, request_of)
        rows = _slates(events, candidates, request_of, item, clicked, rules, earliest)
        request = request_of[rows.pop("first")]
        of_request = {"time": request_time, "own": own_number, "split": split}
        columns = {name: values[request] for name, values in of_request.items()}
        yield _batch(REQUEST, len(request), {**rows, **columns})
    if behaviour.any():
        own = np.where(early, own_number[request_of], -1)
        names = ("user_id", "time", "event_id", "item")
        yield _selected(BEHAVIOUR, events, behaviour, names, own[behaviour])
    if (kind == PROFILE).any():
        yield _selected(KNOWN_PROFILE, events, kind == PROFILE, ("user_id", "time", "fields"))
    # In the order of DROP_COUNTS.
    in_windows = (time[clicks] >= rules.starts[0]) & (time[clicks] < rules.starts[-1])
    dropped = (
        (in_split & ~mature).sum(),
        (shown & kept[request_of]).sum() - before_sampling,
        (in_windows & ~matched).sum(),
        before_sampling - len(candidates),
        emptied_requests,
        (repeated & kept).sum(),
    )
    if any(dropped):
        no_user = {"user_id": pa.array([""]), "time": np.zeros(1, dtype=np.int64)}
        counts = lists(np.array([dropped], dtype=np.int64))
        yield _batch(DROPPED, 1, {**no_user, "tally": counts})


def _batch(kind: int, rows: int, columns: dict[str, Any]) -> pa.RecordBatch:
    defaults = {"kind": np.full(rows, kind), "own": np.full(rows, -1)}
    return record_batch(TIMELINE, rows, {**defaults, **columns})


def _selected(
    kind: int,
    events: pa.Table,
    selected: np.ndarray,
    names: Sequence[str],
    own: np.ndarray | None = None,
) -> pa.RecordBatch:
    """TIMELINE rows of the `selected` events, with the columns `names` of these events."""
    rows = events.select(list(names)).filter(pa.array(selected))
    columns = dict(zip(names, rows.columns, strict=True))
    return _batch(kind, len(rows), columns if own is None else {**columns, "own": own})


def _block_starts(events: pa.Table) -> np.ndarray:
    """[rows] whether a block of one user and request id starts here.

    A row without request is a block by itself.
    """
    starts = booleans(events["request"].is_null())
    for name in ("user_id", "request", "named"):
        starts |= changes(events[name])
    return starts


def _first_shown(time: np.ndarray, shown: np.ndarray, starts_block: np.ndarray) -> np.ndarray:
    """[blocks] the time of the earliest impression; NEVER without impressions."""
    first: np.ndarray = np.minimum.reduceat(
        np.where(shown, time, NEVER), np.flatnonzero(starts_block)
    )
    return first


def _with_one_request_a_block(
    events: pa.Table, attribution: int
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Sort the rows of a user and request id by request, if they have several requests.

    Returns:
        The rows; whether a request starts at a row [rows]; and whether its user had an earlier
        request with its id [requests].
    """
    starts_block = _block_starts(events)
    time, shown = numbers(events["time"]), numbers(events["kind"]) == IMPRESSION
    first = _first_shown(time, shown, starts_block)
    block_of = np.cumsum(starts_block) - 1
    if not (shown & (time > first[block_of] + attribution)).any():
        return events, starts_block, np.zeros(len(first), dtype=bool)
    # [rows] block and rank of the time, and of the end of a window that starts then, each pair as
    # one number: so both are sorted and searched at once.
    end = time + attribution
    moments = np.unique(np.concatenate([time, end[shown]]))
    place, place_of_end = (
        block_of * len(moments) + np.searchsorted(moments, moment) for moment in (time, end)
    )
    # [impressions] in order; the place of the first impression after the window of each; and
    # whether a request starts there: from each block's first one on, that is the next after it.
    by_place = np.flatnonzero(shown)[np.argsort(place[shown], kind="stable")]
    block = block_of[by_place]
    after = np.searchsorted(place[by_place], place_of_end[by_place], side="right")
    starts = np.append(True, block[1:] != block[:-1])
    starting = np.flatnonzero(starts)
    while len(starting):  # as often as one id has requests at most
        following = after[starting]
        starting = following[np.append(block, -1)[following] == block[starting]]
        starts[starting] = True
    # [rows] the number of the request: the first one whose window has not ended; at most the last
    # one of the block.
    last_of_block = np.cumsum(np.bincount(block[starts], minlength=len(first))) - 1
    number = np.searchsorted(place_of_end[by_place[starts]], place)
    number = np.minimum(number, last_of_block[block_of])
    order = np.lexsort((number, block_of))
    block_of, number = block_of[order], number[order]
    new_block = np.append(True, block_of[1:] != block_of[:-1])
    starts_request = new_block | np.append(True, number[1:] != number[:-1])
    return events.take(pa.array(order)), starts_request, ~new_block[starts_request]


def _earliest(
    events: pa.Table, candidates: np.ndarray, request_of: np.ndarray, requests: int
) -> np.ndarray:
    """[requests] the row of the earliest impression; at equal times that of the lowest position."""
    position = numbers(events["position"], null=_NO_POSITION)[candidates]
    time = numbers(events["time"])[candidates]
    order = candidates[np.lexsort((candidates, position, time, request_of[candidates]))]
    earliest = np.zeros(requests, dtype=np.int64)
    # Numpy keeps the last of several values that are assigned to one place; hence the reverse.
    earliest[request_of[order[::-1]]] = order[::-1]
    return earliest


def _drop_negatives(
    events: pa.Table,
    candidates: np.ndarray,
    request_of: np.ndarray,
    clicked: np.ndarray,
    split: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Drop the candidates of training rows that have no click and are not `spared`.

    Returns:
        The candidates that stay, and how many requests have no candidate left.
    """
    in_training = split[request_of[candidates]] == SPLITS.index("train")
    stays = ~in_training | clicked[candidates] | booleans(events["spared"])[candidates]
    if stays.all():
        return candidates, 0
    left = candidates[stays]
    emptied = len(np.unique(request_of[candidates])) - len(np.unique(request_of[left]))
    return left, emptied


def _item_rows(
    events: pa.Table, rules: RequestRules, request_time: np.ndarray, request_of: np.ndarray
) -> np.ndarray:
    """[rows] an impression's row in the item table: no later than that of the request's day."""
    midnights = np.array(rules.midnights)
    day = np.searchsorted(midnights, numbers(events["time"]), side="right")
    day_of_request = np.searchsorted(midnights, request_time, side="right")
    later = day > day_of_request[request_of]
    found: np.ndarray = np.where(later, numbers(events["item_before"]), numbers(events["item"]))
    return found


def _slates(
    events: pa.Table,
    candidates: np.ndarray,
    request_of: np.ndarray,
    item: np.ndarray,
    clicked: np.ndarray,
    rules: RequestRules,
    earliest: np.ndarray,
) -> dict[str, Any]:
    """Columns of the requests' rows, and `first`: the row in `events` of the first candidate.

    `item` [rows] is the result of `_item_rows`.
    """
    # [candidates] sorted by request, then position. The rows of a request come sorted by item id,
    # so that the row number itself orders equal positions.
    position = numbers(events["position"], null=_NO_POSITION)
    candidates = candidates[np.lexsort((candidates, position[candidates], request_of[candidates]))]
    # [candidates] the place within the request, from 0; then the slate and the column within it.
    request = request_of[candidates]
    starts_request = np.concatenate([[True], request[1:] != request[:-1]])
    firsts = np.flatnonzero(starts_request)
    width = np.diff(np.append(firsts, len(candidates)))
    place = np.arange(len(candidates)) - np.repeat(firsts, width)
    slate, column = place // rules.candidates, place % rules.candidates
    # [output rows] the first candidate of each; [candidates] the output row of each.
    first = np.flatnonzero(column == 0)
    row = np.cumsum(column == 0) - 1
    offsets = np.append(first, len(candidates)).astype(np.int32)

    def padded(values: np.ndarray) -> np.ndarray:
        """[output rows, M] from [candidates]."""
        filled = np.full((len(first), rules.candidates), PADDING, dtype=np.int32)
        filled[row, column] = values
        return filled

    # [candidates] item index, label and item id.
    item = item[candidates]
    label = clicked[candidates]
    item_ids = events["item_id"].combine_chunks().take(pa.array(candidates))
    first_rows = pa.array(candidates[first])
    columns = {
        "first": candidates[first],
        "user_id": events["user_id"].take(first_rows),
        "request_id": events["request"].take(first_rows),
        "slate": slate[first],
        "candidates": lists(padded(item)),
        "labels": lists(padded(label)),
        "candidate_count": np.diff(offsets),
        "candidate_ids": pa.ListArray.from_arrays(pa.array(offsets), item_ids),
        "clicks": np.add.reduceat(label.astype(np.int32), first),
        "unknown": np.add.reduceat((item == UNKNOWN).astype(np.int32), first),
        "unlisted": np.add.reduceat((item < rules.listed_from).astype(np.int32), first),
    }
    if rules.context_fields:
        # The context is that of the request's earliest impression.
        columns["fields"] = pc.take(events["fields"], pa.array(earliest[request[first]]))
    return columns
