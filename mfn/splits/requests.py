"""Events of a user become requests with their slates and labels, and behaviours beside them.

**Request.** The impressions of one user and one request id; an impression without request id is a
request of its own, whose id is the event's. Two users who share a request id made two requests.
The request's time is its earliest impression, and it belongs to the window of that moment's day.
The attribution window begins there: what comes after it, impression or click, is left out and
counted, so that a request is known to the end when its window is over.

**Candidate.** An item of the request; of several impressions of it the earliest counts (of equal
times the one with the lower position). Candidates are ordered by position, unplaced ones last,
then by item id. A slate longer than M becomes several rows of one request id.

**Label.** 1 if a click on the item with the same user and request id comes from the candidate's
impression on and within the request's attribution window, both ends included. A click without
request id takes that of the nearest earlier impression of its user and item, at most the
attribution window before it. Several clicks are one; other behaviours label nothing.

**Negatives.** Where training rows keep but a share of the candidates without a click, the others
are left out of the slate, and counted; a request with none left is no row.

**Immature.** A request whose attribution window is not over where the data end has unknown labels:
it is left out and counted.

Here a task's events come sorted by (user, request, item, time), so that a request is a run of
rows; runs are worked on with numpy, tens of thousands of rows at a time. Only a run that goes on
in the next batch is kept.
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
"""The windows that rows are made of, in the order of time."""

IMPRESSION, CLICK, OTHER, PROFILE = 0, 1, 2, 3
"""Kinds of rows in EVENTS_BY_USER. Impressions sort before clicks of the same moment."""

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
        StructField("position", INTEGER),
        StructField("event_id", STRING),
        StructField("spared", BooleanType(), False),
        StructField("fields", ArrayType(INTEGER, False), False),
    ]
)
"""What goes in: times in microseconds; `behaviour` says whether it may enter histories, `named`
whether the log itself gave `request`; `spared` whether an impression may be a negative of the
training window; `fields` holds an impression's context or a profile.

Here and in MOMENTS a list that a row has no use for is empty, not null: runs of null lists cost
Spark's Arrow writer time that is quadratic in their length."""

KNOWN_PROFILE, REQUEST, BEHAVIOUR, TALLY = 0, 1, 2, 3
"""Kinds of rows in MOMENTS, in the order in which those of one moment are looked at: a request
knows the profile of that moment and does not know its behaviours."""

MOMENTS = StructType(
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
        StructField("tally", ArrayType(LONG, False), False),
    ]
)
"""What comes out. `own` is -1, but the same number in a request and in those behaviours of its
own request id that precede it; `slate` counts the rows of one request from 0; `tally` holds, in
rows of kind TALLY, the counts named in TALLIES."""

TALLIES = (
    "immature_requests",
    "repeated_impressions",
    "impressions_after_attribution",
    "clicks_without_impression",
    "negatives_left_out",
    "requests_left_without_candidates",
)
NEVER = 1 << 62
_UNPLACED = np.iinfo(np.int32).max


@dataclass(frozen=True)
class RequestRules:
    """What decides about a request; times in microseconds since 1970.

    starts: first moment of each of SPLITS, and then the end of the last.
    complete_until: the last moment whose events are all there.
    """

    attribution: int
    candidates: int
    starts: tuple[int, ...]
    complete_until: int
    context_fields: int = 0


@dataclass(frozen=True)
class ToMoments:
    """The step from EVENTS_BY_USER to MOMENTS, for mapInArrow."""

    rules: RequestRules
    batch_rows: int = BATCH_ROWS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Work on whole requests; carry the rows of one that may go on in the next batch."""
        rest: pa.Table | None = None
        groups = 0
        for piece in pieces(batches, self.batch_rows):
            table = piece if rest is None else pa.concat_tables([rest, piece]).combine_chunks()
            ends = int(np.flatnonzero(_request_starts(table))[-1]) if table.num_rows else 0
            rest = table.slice(ends)
            if ends:
                yield from moments(table.slice(0, ends), self.rules, groups)
                groups += ends
        if rest is not None and rest.num_rows:
            yield from moments(rest, self.rules, groups)


def moments(events: pa.Table, rules: RequestRules, first_group: int) -> Iterator[pa.RecordBatch]:
    """MOMENTS of whole requests in EVENTS_BY_USER's columns, sorted as the module says.

    first_group: a number that no earlier call has given or passed, for `own`.
    """
    time, kind = numbers(events["time"]), numbers(events["kind"])
    starts_request = _request_starts(events)
    request_of = np.cumsum(starts_request) - 1
    shown = kind == IMPRESSION
    request_time = np.minimum.reduceat(np.where(shown, time, NEVER), np.flatnonzero(starts_request))
    window_ends = request_time + rules.attribution
    after = shown & (time > window_ends[request_of])
    shown &= ~after

    starts_item = starts_request | changes(events["item_id"])
    candidate_of_item = np.minimum.reduceat(
        np.where(shown, np.arange(len(time)), len(time)), np.flatnonzero(starts_item)
    )
    clicks = np.flatnonzero(kind == CLICK)
    candidate = candidate_of_item[(np.cumsum(starts_item) - 1)[clicks]]
    met = candidate < len(time)
    met &= time[clicks] >= time[np.where(met, candidate, 0)]
    met &= time[clicks] <= window_ends[request_of[clicks]]
    clicked = np.zeros(len(time), dtype=bool)
    clicked[candidate[met]] = True

    candidates = candidate_of_item[candidate_of_item < len(time)]
    split = np.searchsorted(np.array(rules.starts), request_time, side="right") - 1
    inside = (split >= 0) & (split < len(rules.starts) - 1)
    mature = window_ends <= rules.complete_until
    kept = inside & mature
    candidates = candidates[kept[request_of[candidates]]]
    seen = len(candidates)
    earliest = (
        _earliest(events, candidates, request_of, len(request_time))
        if rules.context_fields
        else np.zeros(0, dtype=np.int64)
    )
    candidates, emptied = _without_spare_negatives(events, candidates, request_of, clicked, split)

    # A request and the behaviours of its id that precede it share a number, so as to be told apart.
    behaviour = booleans(events["behaviour"])
    early = behaviour & booleans(events["request"].is_valid())
    early &= kept[request_of] & (time < request_time[request_of])
    numbered = np.full(len(request_time), -1)
    numbered[request_of[early]] = first_group + request_of[early]

    if len(candidates):
        rows = _slates(events, candidates, request_of, clicked, rules, earliest)
        request = request_of[rows.pop("first")]
        of_request = {"time": request_time, "own": numbered, "split": split}
        columns = {name: values[request] for name, values in of_request.items()}
        yield _batch(REQUEST, len(request), {**rows, **columns})
    if behaviour.any():
        own = np.where(early, numbered[request_of], -1)
        names = ("user_id", "time", "event_id", "item")
        yield _chosen(BEHAVIOUR, events, behaviour, names, own[behaviour])
    if (kind == PROFILE).any():
        yield _chosen(KNOWN_PROFILE, events, kind == PROFILE, ("user_id", "time", "fields"))
    in_windows = (time[clicks] >= rules.starts[0]) & (time[clicks] < rules.starts[-1])
    tally = (
        (inside & ~mature).sum(),
        (shown & kept[request_of]).sum() - seen,
        (after & kept[request_of]).sum(),
        (in_windows & ~met).sum(),
        seen - len(candidates),
        emptied,
    )
    if any(tally):
        of_nobody = {"user_id": pa.array([""]), "time": np.zeros(1, dtype=np.int64)}
        yield _batch(TALLY, 1, {**of_nobody, "tally": lists(np.array([tally], dtype=np.int64))})


def _batch(kind: int, rows: int, columns: dict[str, Any]) -> pa.RecordBatch:
    same = {"kind": np.full(rows, kind), "own": np.full(rows, -1)}
    return record_batch(MOMENTS, rows, {**same, **columns})


def _chosen(
    kind: int,
    events: pa.Table,
    chosen: np.ndarray,
    names: Sequence[str],
    own: np.ndarray | None = None,
) -> pa.RecordBatch:
    """Some of the events as MOMENTS, with these of their columns."""
    rows = events.select(list(names)).filter(pa.array(chosen))
    columns = dict(zip(names, rows.columns, strict=True))
    return _batch(kind, len(rows), columns if own is None else {**columns, "own": own})


def _request_starts(events: pa.Table) -> np.ndarray:
    """[rows] whether a request begins; rows that belong to none stand alone."""
    starts = booleans(events["request"].is_null())
    for name in ("user_id", "request", "named"):
        starts |= changes(events[name])
    return starts


def _earliest(
    events: pa.Table, candidates: np.ndarray, request_of: np.ndarray, requests: int
) -> np.ndarray:
    """[requests] the row of each one's earliest impression, of equal times the first placed one."""
    position = numbers(events["position"], null=_UNPLACED)[candidates]
    time = numbers(events["time"])[candidates]
    order = candidates[np.lexsort((candidates, position, time, request_of[candidates]))]
    earliest = np.zeros(requests, dtype=np.int64)
    # Of several values for one place the last is kept.
    earliest[request_of[order[::-1]]] = order[::-1]
    return earliest


def _without_spare_negatives(
    events: pa.Table,
    candidates: np.ndarray,
    request_of: np.ndarray,
    clicked: np.ndarray,
    split: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Candidates but the negatives of the training window that are not spared.

    Returns also how many requests have none left.
    """
    in_training = split[request_of[candidates]] == SPLITS.index("train")
    stays = ~in_training | clicked[candidates] | booleans(events["spared"])[candidates]
    if stays.all():
        return candidates, 0
    left = candidates[stays]
    emptied = len(np.unique(request_of[candidates])) - len(np.unique(request_of[left]))
    return left, emptied


def _slates(
    events: pa.Table,
    candidates: np.ndarray,
    request_of: np.ndarray,
    clicked: np.ndarray,
    rules: RequestRules,
    earliest: np.ndarray,
) -> dict[str, Any]:
    """Columns of the requests' rows; `first` is, for each, the row in `events` of a candidate."""
    position = numbers(events["position"], null=_UNPLACED)
    # Rows of one request come sorted by item id, so that the row itself orders equal positions.
    candidates = candidates[np.lexsort((candidates, position[candidates], request_of[candidates]))]
    request = request_of[candidates]
    starts_request = np.concatenate([[True], request[1:] != request[:-1]])
    firsts = np.flatnonzero(starts_request)
    width = np.diff(np.append(firsts, len(candidates)))
    place = np.arange(len(candidates)) - np.repeat(firsts, width)
    slate, column = place // rules.candidates, place % rules.candidates
    first = np.flatnonzero(column == 0)
    row = np.cumsum(column == 0) - 1
    ends = np.append(first, len(candidates)).astype(np.int32)

    def padded(values: np.ndarray) -> np.ndarray:
        filled = np.full((len(first), rules.candidates), PADDING, dtype=np.int32)
        filled[row, column] = values
        return filled

    item = numbers(events["item"])[candidates]
    label = clicked[candidates]
    item_ids = events["item_id"].combine_chunks().take(pa.array(candidates))
    chosen = pa.array(candidates[first])
    columns = {
        "first": candidates[first],
        "user_id": events["user_id"].take(chosen),
        "request_id": events["request"].take(chosen),
        "slate": slate[first],
        "candidates": lists(padded(item)),
        "labels": lists(padded(label)),
        "candidate_count": np.diff(ends),
        "candidate_ids": pa.ListArray.from_arrays(pa.array(ends), item_ids),
        "clicks": np.add.reduceat(label.astype(np.int32), first),
        "unknown": np.add.reduceat((item == UNKNOWN).astype(np.int32), first),
    }
    if rules.context_fields:
        # The context is that of the request's earliest impression.
        columns["fields"] = pc.take(events["fields"], pa.array(earliest[request[first]]))
    return columns
