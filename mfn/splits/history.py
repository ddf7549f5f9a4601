"""The last N behaviours before each request, in one pass over a user's moments.

A history is what the user did strictly before the request's time, newest last, the same item as
often as it occurs; behaviours of the request's own id never enter it, not even where the log has
them before the request's earliest impression. Equal times are ordered by event id.

A task's moments come sorted by (user, time, kind), requests before behaviours of the same moment,
so that a request's history is the end of the behaviours met so far: no search by time is needed.
What is kept between batches is the last user's tail, N behaviours or a few more, however many
that user has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.types import ArrayType, ByteType, StructField, StructType

from mfn.indices import MISSING, PADDING
from mfn.schema import INTEGER, LONG, REQUEST_ROWS
from mfn.splits.columns import BATCH_ROWS, changes, lists, matrix, numbers, pieces, record_batch
from mfn.splits.requests import BEHAVIOUR, KNOWN_PROFILE, REQUEST, SPLITS, TALLY

LEFT_OUT = -1
"""The split of rows that only carry counts."""

COUNTED_ROWS = StructType(
    [
        *REQUEST_ROWS.fields,
        StructField("split", ByteType(), False),
        StructField("slate", INTEGER, False),
        StructField("clicks", INTEGER, False),
        StructField("unknown", INTEGER, False),
        StructField("test_user", ByteType(), False),
        StructField("tally", ArrayType(LONG, False), False),
    ]
)
"""Request rows and what is counted of them. `test_user` is 0, but at a user's first row in the
test window 2 where the user has rows in the training window and 1 where not."""

UNKNOWN_TEST_USER, KNOWN_TEST_USER = 1, 2


@dataclass(frozen=True)
class Tail:
    """The newest behaviours of a user, oldest first: their items, and `own` as in MOMENTS."""

    item: np.ndarray
    own: np.ndarray

    @classmethod
    def empty(cls) -> Tail:
        """No behaviours."""
        return cls(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))


def histories(
    starts_user: np.ndarray,
    kind: np.ndarray,
    item: np.ndarray,
    own: np.ndarray,
    tail: Tail,
    length: int,
) -> tuple[np.ndarray, np.ndarray, Tail]:
    """Histories of the requests among moments sorted as the module says.

    Args:
        starts_user: [rows] whether a row is the first of its user; where the first row is not,
            `tail` holds that user's behaviours before it.
        kind, item, own: [rows] as in MOMENTS.
        tail: what an earlier call left, or `Tail.empty()`.
        length: N.

    Returns:
        history [requests, N], oldest first and then padding; how many are real [requests]; the
        tail for the call that continues.
    """
    if starts_user[0]:
        tail = Tail.empty()
    is_behaviour, is_request = kind == BEHAVIOUR, kind == REQUEST
    items = np.concatenate([tail.item, item[is_behaviour]])
    owns = np.concatenate([tail.own, own[is_behaviour]])
    before = len(tail.item) + np.cumsum(is_behaviour) - is_behaviour
    user_of = np.cumsum(starts_user) - starts_user[0]
    first_of_user = before[starts_user]
    if not starts_user[0]:
        first_of_user = np.concatenate([[0], first_of_user])

    end, oldest = before[is_request], first_of_user[user_of[is_request]]
    start = np.maximum(end - length, oldest)
    # A request with behaviours of its own id before it reaches back further, past those.
    for_itself = np.flatnonzero(own[is_request] >= 0)
    count = end - start
    place = start[:, None] + np.arange(length)
    history = np.where(place < end[:, None], _take(items, place), np.int32(PADDING))
    if len(for_itself):
        history[for_itself], count[for_itself] = _without_own(
            items, owns, oldest[for_itself], end[for_itself], own[is_request][for_itself], length
        )
    return history, count, _tail(items, owns, int(first_of_user[-1]), length)


def _take(items: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Items at these places; places past the end give padding."""
    found: np.ndarray = np.append(items, np.int32(PADDING))[np.minimum(place, len(items))]
    return found


def _without_own(
    items: np.ndarray,
    owns: np.ndarray,
    oldest: np.ndarray,
    end: np.ndarray,
    own: np.ndarray,
    length: int,
) -> tuple[np.ndarray, np.ndarray]:
    """As `histories`, over all behaviours from `oldest` to `end` but the request's own."""
    width = end - oldest
    request = np.repeat(np.arange(len(end)), width)
    place = np.arange(len(request)) - np.repeat(np.cumsum(width) - width, width) + oldest[request]
    others = owns[place] != own[request]
    request, place = request[others], place[others]
    total = np.bincount(request, minlength=len(end))
    count = np.minimum(total, length)
    rank = np.arange(len(request)) - np.repeat(np.cumsum(total) - total, total)
    column = rank - (total - count)[request]
    history = np.full((len(end), length), PADDING, dtype=np.int32)
    last = column >= 0
    history[request[last], column[last]] = items[place[last]]
    return history, count


def _tail(items: np.ndarray, owns: np.ndarray, first: int, length: int) -> Tail:
    """The last user's newest behaviours, `length` of them besides those that precede their request.

    Only the latter can be left out of a history, so every later history lies in this tail.
    """
    counted = np.flatnonzero(owns[first:] < 0)
    if len(counted) > length:
        first += int(counted[-length])
    return Tail(items[first:].copy(), owns[first:].copy())


@dataclass(frozen=True)
class ToRows:
    """The step from MOMENTS to COUNTED_ROWS, for mapInArrow.

    length is N; user_fields is how many profile fields a row carries.
    """

    length: int
    user_fields: int
    batch_rows: int = BATCH_ROWS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Work on any run of moments; carry what the last user's later requests need."""
        tail = Tail.empty()
        user: str | None = None
        profile = np.full(self.user_fields, MISSING, dtype=np.int32)
        in_training = in_test = False
        for piece in pieces(batches, self.batch_rows):
            if not piece.num_rows:
                continue
            kind = numbers(piece["kind"])
            starts_user = changes(piece["user_id"])
            starts_user[0] = user is None or piece["user_id"][0].as_py() != user
            if starts_user[0]:
                profile = np.full(self.user_fields, MISSING, dtype=np.int32)
                in_training = in_test = False
            own = numbers(piece["own"])
            history, count, tail = histories(
                starts_user, kind, numbers(piece["item"]), own, tail, self.length
            )
            user_of = np.cumsum(starts_user) - starts_user[0]
            requests = np.flatnonzero(kind == REQUEST)
            split = numbers(piece["split"], null=LEFT_OUT)[requests]
            profiles, profile = _profiles(piece, kind, starts_user, profile, self.user_fields)
            test_user, in_training, in_test = _test_users(
                user_of[requests], split, int(user_of[-1]), in_training, in_test
            )
            user = piece["user_id"][-1].as_py()
            if len(requests):
                yield _rows(piece, requests, history, count, profiles[requests], test_user)
            if (kind == TALLY).any():
                yield _counts(piece.filter(pa.array(kind == TALLY)))


def _profiles(
    piece: pa.Table, kind: np.ndarray, starts_user: np.ndarray, before: np.ndarray, fields: int
) -> tuple[np.ndarray, np.ndarray]:
    """[rows, fields] the newest profile known at each row; and that of the last row.

    `before` is what is known when the first row begins.
    """
    known = np.flatnonzero(kind == KNOWN_PROFILE)
    missing = np.full((1, fields), MISSING, dtype=np.int32)
    given = (
        matrix(piece["fields"].take(pa.array(known)), fields)
        if fields
        else np.zeros((len(known), 0), dtype=np.int32)
    )
    values = np.concatenate([missing, before[None, :], given]).astype(np.int32)
    # Where the value of a row is found: 0 for none known, 1 for `before`, then those given here.
    source = np.zeros(len(kind), dtype=np.int64)
    source[0] = 1
    source[known] = 2 + np.arange(len(known))
    changed = starts_user.copy()
    changed[0] = True
    changed[known] = True
    newest = np.maximum.accumulate(np.where(changed, np.arange(len(kind)), 0))
    found = values[source[newest]]
    return found, found[-1]


def _test_users(
    user: np.ndarray, split: np.ndarray, last_user: int, in_training: bool, in_test: bool
) -> tuple[np.ndarray, bool, bool]:
    """`test_user` of COUNTED_ROWS [requests], and what is known of the last user afterwards.

    user: [requests] numbered from 0, whose state before is `in_training` and `in_test`.
    """
    trained = np.zeros(last_user + 1, dtype=bool)
    tested = np.zeros(last_user + 1, dtype=bool)
    trained[user[split == SPLITS.index("train")]] = True
    trained[0] |= in_training
    test = np.flatnonzero(split == SPLITS.index("test"))
    marks = np.zeros(len(user), dtype=np.int8)
    users, firsts = np.unique(user[test], return_index=True)
    marks[test[firsts]] = np.where(trained[users], KNOWN_TEST_USER, UNKNOWN_TEST_USER)
    tested[users] = True
    if in_test:
        marks[user == 0] = 0
        tested[0] = True
    return marks, bool(trained[-1]), bool(tested[-1])


def _rows(
    piece: pa.Table,
    requests: np.ndarray,
    history: np.ndarray,
    count: np.ndarray,
    profiles: np.ndarray,
    test_user: np.ndarray,
) -> pa.RecordBatch:
    rows = piece.take(pa.array(requests))
    names = (
        "request_id", "user_id", "candidates", "labels", "candidate_count", "candidate_ids",
        "split", "slate", "clicks", "unknown",
    )  # fmt: skip
    return record_batch(
        COUNTED_ROWS,
        len(requests),
        {
            **{name: rows[name] for name in names},
            "request_time": pc.cast(rows["time"], pa.timestamp("us", "UTC")),
            "user_fields": lists(profiles),
            "context_fields": rows["fields"],
            "history": lists(history),
            "history_length": count,
            "test_user": test_user,
        },
    )


def _counts(rows: pa.Table) -> pa.RecordBatch:
    """Rows that carry TALLIES and are written nowhere."""
    count = rows.num_rows
    zero = np.zeros(count, dtype=np.int32)
    nobody = pa.array([""] * count)
    numbers_of = ("history_length", "candidate_count", "slate", "clicks", "unknown", "test_user")
    return record_batch(
        COUNTED_ROWS,
        count,
        {
            **dict.fromkeys(numbers_of, zero),
            "request_id": nobody,
            "user_id": nobody,
            "request_time": pa.array([0] * count, pa.timestamp("us", "UTC")),
            "split": np.full(count, LEFT_OUT),
            "tally": rows["tally"],
        },
    )
