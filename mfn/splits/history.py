"""Add to each request its history, the last N behaviours before it, in one pass over the timeline.

A history holds the user's behaviours strictly before the request's time, newest last. An item that
occurs several times is in it several times. Behaviours with the request's own id are never in it,
even if the log has them before the request's earliest impression. Equal times are ordered by
event id.

The timeline of a task is sorted by (user, time, kind), requests before behaviours of the same
time. The history of a request is therefore the end of the user's behaviours so far: no search by
time is needed. Between batches only the tail of the last user is kept. It has N behaviours or a
few more, even if the user has many.
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
from mfn.splits.requests import BEHAVIOUR, DROPPED, KNOWN_PROFILE, REQUEST, SPLITS

NO_SPLIT = -1
"""The split of rows that only carry counts and are not written."""

COUNTED_ROWS = StructType(
    [
        *REQUEST_ROWS.fields,
        StructField("split", ByteType(), False),
        StructField("slate", INTEGER, False),
        StructField("clicks", INTEGER, False),
        StructField("unknown", INTEGER, False),
        StructField("unlisted", INTEGER, False),
        StructField("unlisted_behaviours", INTEGER, False),
        StructField("test_user", ByteType(), False),
        StructField("tally", ArrayType(LONG, False), False),
    ]
)
"""Request rows and their counts.

slate, clicks, unknown, unlisted, tally: as in TIMELINE.
unlisted_behaviours: how many behaviours of the history are in no snapshot up to their day.
test_user: at a user's first row in the test window KNOWN_TEST_USER or UNKNOWN_TEST_USER, for a
    user with or without rows in the training window; 0 in all other rows."""

UNKNOWN_TEST_USER, KNOWN_TEST_USER = 1, 2


@dataclass(frozen=True)
class Tail:
    """The newest behaviours of a user, oldest first: their items, and `own` as in TIMELINE."""

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
    """Histories of the requests in a part of the timeline, sorted as the module says.

    Args:
        starts_user: [rows] whether a row is the first of its user. If the first row of all is not,
            `tail` holds the earlier behaviours of its user.
        kind, item, own: [rows] as in TIMELINE.
        tail: the result of the call for the rows before, or `Tail.empty()`.
        length: N.

    Returns:
        history [requests, N], oldest first and then padding; the length without padding
        [requests]; the tail for the next call.
    """
    if starts_user[0]:
        tail = Tail.empty()
    # [tail + behaviours] items and `own` of all behaviours; [rows] how many of them come before
    # each row.
    is_behaviour, is_request = kind == BEHAVIOUR, kind == REQUEST
    items = np.concatenate([tail.item, item[is_behaviour]])
    owns = np.concatenate([tail.own, own[is_behaviour]])
    before = len(tail.item) + np.cumsum(is_behaviour) - is_behaviour
    # [rows] number of the user, from 0; [users] the place of the user's first behaviour.
    user_of = np.cumsum(starts_user) - starts_user[0]
    first_of_user = before[starts_user]
    if not starts_user[0]:
        first_of_user = np.concatenate([[0], first_of_user])

    # [requests] the history is items[start:end]; [requests, N] the place of each of its items.
    end, oldest = before[is_request], first_of_user[user_of[is_request]]
    start = np.maximum(end - length, oldest)
    count = end - start
    place = start[:, None] + np.arange(length)
    history = np.where(place < end[:, None], _take(items, place), np.int32(PADDING))
    # A request with earlier behaviours of its own id skips these, and so begins further back.
    with_own = np.flatnonzero(own[is_request] >= 0)
    if len(with_own):
        history[with_own], count[with_own] = _without_own(
            items, owns, oldest[with_own], end[with_own], own[is_request][with_own], length
        )
    return history, count, _tail(items, owns, int(first_of_user[-1]), length)


def _take(items: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Items at these places; padding for places after the end."""
    taken: np.ndarray = np.append(items, np.int32(PADDING))[np.minimum(place, len(items))]
    return taken


def _without_own(
    items: np.ndarray,
    owns: np.ndarray,
    oldest: np.ndarray,
    end: np.ndarray,
    own: np.ndarray,
    length: int,
) -> tuple[np.ndarray, np.ndarray]:
    """History and length as of `histories`, from items[oldest:end] without the request's own.

    Args:
        items, owns: [behaviours] of several users.
        oldest, end, own: [requests].
        length: N.
    """
    # [pairs] every request with every behaviour of its user before it, by request, oldest first.
    width = end - oldest
    request = np.repeat(np.arange(len(end)), width)
    place = np.arange(len(request)) - np.repeat(np.cumsum(width) - width, width) + oldest[request]
    others = owns[place] != own[request]
    request, place = request[others], place[others]
    # [requests] how many pairs are left; [pairs] number within the request, and the column in the
    # history, negative for behaviours that are too old.
    total = np.bincount(request, minlength=len(end))
    count = np.minimum(total, length)
    rank = np.arange(len(request)) - np.repeat(np.cumsum(total) - total, total)
    column = rank - (total - count)[request]
    history = np.full((len(end), length), PADDING, dtype=np.int32)
    newest = column >= 0
    history[request[newest], column[newest]] = items[place[newest]]
    return history, count


def _tail(items: np.ndarray, owns: np.ndarray, first: int, length: int) -> Tail:
    """The last user's newest behaviours: `length` of those without `own`, and all in between.

    A history skips only behaviours with `own`, so this tail contains every later history.

    Args:
        items, owns: [behaviours] of several users.
        first: the place of the last user's first behaviour.
        length: N.
    """
    without_own = np.flatnonzero(owns[first:] < 0)
    if len(without_own) > length:
        first += int(without_own[-length])
    return Tail(items[first:].copy(), owns[first:].copy())


@dataclass(frozen=True)
class ToRows:
    """The step from TIMELINE to COUNTED_ROWS, for mapInArrow.

    length is N; user_fields is the number of profile fields of a row; listed_from is the first row
    of the item table that comes from the catalogue.
    """

    length: int
    user_fields: int
    listed_from: int
    batch_rows: int = BATCH_ROWS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Process batch by batch; keep what later requests of the last user need."""
        tail = Tail.empty()
        user: str | None = None
        profile = np.full(self.user_fields, MISSING, dtype=np.int32)
        in_training = in_test = False
        for piece in pieces(batches, self.batch_rows):
            if not piece.num_rows:
                continue
            # [rows] kind, and whether a user starts here; the first row may continue the user of
            # the batch before.
            kind = numbers(piece["kind"])
            starts_user = changes(piece["user_id"])
            starts_user[0] = user is None or piece["user_id"][0].as_py() != user
            if starts_user[0]:
                profile = np.full(self.user_fields, MISSING, dtype=np.int32)
                in_training = in_test = False
            # history [requests, N], count [requests].
            own = numbers(piece["own"])
            history, count, tail = histories(
                starts_user, kind, numbers(piece["item"]), own, tail, self.length
            )
            # [rows] number of the user, from 0; [requests] the row and the split of each request.
            user_of = np.cumsum(starts_user) - starts_user[0]
            requests = np.flatnonzero(kind == REQUEST)
            split = numbers(piece["split"], null=NO_SPLIT)[requests]
            # profiles [rows, fields], test_user [requests].
            profiles, profile = _profiles(piece, kind, starts_user, profile, self.user_fields)
            test_user, in_training, in_test = _test_users(
                user_of[requests], split, int(user_of[-1]), in_training, in_test
            )
            user = piece["user_id"][-1].as_py()
            if len(requests):
                unlisted = ((history != PADDING) & (history < self.listed_from)).sum(axis=1)
                yield _request_rows(
                    piece, requests, history, count, unlisted, profiles[requests], test_user
                )
            if (kind == DROPPED).any():
                yield _count_rows(piece.filter(pa.array(kind == DROPPED)))


def _profiles(
    piece: pa.Table, kind: np.ndarray, starts_user: np.ndarray, before: np.ndarray, fields: int
) -> tuple[np.ndarray, np.ndarray]:
    """[rows, fields] the newest known profile at each row; and that of the last row.

    `before` is the profile known before the first row.
    """
    # [2 + given profiles, fields] all values that a row can have: none, `before`, those given here.
    known = np.flatnonzero(kind == KNOWN_PROFILE)
    missing = np.full((1, fields), MISSING, dtype=np.int32)
    given = (
        matrix(piece["fields"].take(pa.array(known)), fields)
        if fields
        else np.zeros((len(known), 0), dtype=np.int32)
    )
    values = np.concatenate([missing, before[None, :], given]).astype(np.int32)
    # [rows] the row of `values` that is valid from here on, at rows where the profile changes:
    # none (0) at a user's first row, `before` (1) at row 0, and a given profile at its own row.
    source = np.zeros(len(kind), dtype=np.int64)
    source[0] = 1
    source[known] = 2 + np.arange(len(known))
    changed = starts_user.copy()
    changed[0] = True
    changed[known] = True
    # [rows] the last row up to this one where the profile changed.
    newest = np.maximum.accumulate(np.where(changed, np.arange(len(kind)), 0))
    found = values[source[newest]]
    return found, found[-1]


def _test_users(
    user: np.ndarray, split: np.ndarray, last_user: int, in_training: bool, in_test: bool
) -> tuple[np.ndarray, bool, bool]:
    """`test_user` of COUNTED_ROWS, and the state of the last user for the next batch.

    Args:
        user: [requests] number of the user, from 0.
        split: [requests].
        last_user: number of the last user.
        in_training, in_test: whether user 0 has earlier requests in these windows.

    Returns:
        `test_user` [requests]; whether the last user has requests in the training window, and in
        the test window.
    """
    # [users] whether there are requests in the training window, and in the test window.
    trained = np.zeros(last_user + 1, dtype=bool)
    tested = np.zeros(last_user + 1, dtype=bool)
    trained[user[split == SPLITS.index("train")]] = True
    trained[0] |= in_training
    # [requests] the mark, at the first test request of each user.
    test = np.flatnonzero(split == SPLITS.index("test"))
    marks = np.zeros(len(user), dtype=np.int8)
    users, firsts = np.unique(user[test], return_index=True)
    marks[test[firsts]] = np.where(trained[users], KNOWN_TEST_USER, UNKNOWN_TEST_USER)
    tested[users] = True
    if in_test:
        marks[user == 0] = 0
        tested[0] = True
    return marks, bool(trained[-1]), bool(tested[-1])


def _request_rows(
    piece: pa.Table,
    requests: np.ndarray,
    history: np.ndarray,
    count: np.ndarray,
    unlisted: np.ndarray,
    profiles: np.ndarray,
    test_user: np.ndarray,
) -> pa.RecordBatch:
    """COUNTED_ROWS of the requests, which stand at the rows `requests` [requests] of `piece`.

    history [requests, N], count, unlisted and test_user [requests], profiles [requests, fields].
    """
    rows = piece.take(pa.array(requests))
    names = (
        "request_id", "user_id", "candidates", "labels", "candidate_count", "candidate_ids",
        "split", "slate", "clicks", "unknown", "unlisted",
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
            "unlisted_behaviours": unlisted,
            "test_user": test_user,
        },
    )


def _count_rows(rows: pa.Table) -> pa.RecordBatch:
    """COUNTED_ROWS that only carry DROP_COUNTS and are not written."""
    count = rows.num_rows
    zero = np.zeros(count, dtype=np.int32)
    empty = pa.array([""] * count)
    zero_columns = (
        "history_length", "candidate_count", "slate", "clicks", "unknown", "unlisted",
        "unlisted_behaviours", "test_user",
    )  # fmt: skip
    return record_batch(
        COUNTED_ROWS,
        count,
        {
            **dict.fromkeys(zero_columns, zero),
            "request_id": empty,
            "user_id": empty,
            "request_time": pa.array([0] * count, pa.timestamp("us", "UTC")),
            "split": np.full(count, NO_SPLIT),
            "tally": rows["tally"],
        },
    )
