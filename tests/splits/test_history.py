"""Histories against plain loops, for any split of the timeline into batches."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn.indices import PADDING
from mfn.splits.history import Tail, histories
from mfn.splits.requests import BEHAVIOUR, REQUEST

TimelineRow = tuple[int, int, int, int]
"""User, kind, item and own."""


@st.composite
def timelines(draw: st.DrawFn) -> list[TimelineRow]:
    """Rows sorted by user; a request shares `own` only with behaviours before it."""
    rows = []
    for user in range(draw(st.integers(1, 4))):
        kinds = draw(st.lists(st.sampled_from([REQUEST, BEHAVIOUR]), max_size=30))
        owns = draw(st.lists(st.sampled_from([-1, -1, 0, 1, 2]), min_size=30, max_size=30))
        taken = set()
        for kind, own in zip(kinds, owns, strict=False):
            if kind == REQUEST and own in taken:
                own = -1
            if kind == REQUEST:
                taken.add(own)
            number = own if own < 0 else 100 * user + own
            rows.append((user, kind, draw(st.integers(3, 9)), number))
    return rows


def naive(rows: list[TimelineRow], length: int) -> list[list[int]]:
    """The histories in plain loops."""
    found = []
    for place, (user, kind, _, own) in enumerate(rows):
        if kind == REQUEST:
            found.append(
                [
                    item
                    for who, what, item, of in rows[:place]
                    if who == user and what == BEHAVIOUR and not (own >= 0 and of == own)
                ][-length:]
            )
    return found


def in_batches(
    rows: list[TimelineRow], cuts: list[int], length: int
) -> tuple[list[list[int]], int]:
    """Histories from batches that end at `cuts`, and the length of the longest tail."""
    found: list[list[int]] = []
    tail, longest, before = Tail.empty(), 0, None
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(rows)), len(rows)]
    for start, end in itertools.pairwise(edges):
        if start == end:
            continue
        user, kind, item, own = (np.array(column) for column in zip(*rows[start:end], strict=True))
        starts = np.concatenate([[user[0] != before], user[1:] != user[:-1]])
        history, count, tail = histories(starts, kind, item.astype(np.int32), own, tail, length)
        assert history.shape == (int((kind == REQUEST).sum()), length)
        for values, real in zip(history, count, strict=True):
            assert (values[real:] == PADDING).all()
            found.append(values[:real].tolist())
        longest, before = max(longest, len(tail.item)), user[-1]
    return found, longest


@settings(max_examples=300, deadline=None)
@given(timelines(), st.lists(st.integers(1, 120), max_size=6), st.integers(1, 5))
def test_histories_are_the_last_behaviours_before_each_request_wherever_batches_end(
    rows: list[TimelineRow], cuts: list[int], length: int
) -> None:
    if rows:
        assert in_batches(rows, cuts, length)[0] == naive(rows, length)


def test_behaviours_at_the_time_of_the_request_are_not_in_its_history() -> None:
    """At equal times requests are sorted before behaviours."""
    rows = [(0, BEHAVIOUR, 3, -1), (0, REQUEST, 0, -1), (0, BEHAVIOUR, 4, -1)]
    assert in_batches(rows, [], 5)[0] == [[3]]


def test_own_behaviours_of_a_request_are_skipped_by_it_and_seen_by_other_requests() -> None:
    rows = [
        (0, BEHAVIOUR, 3, -1),
        (0, BEHAVIOUR, 4, -1),
        (0, BEHAVIOUR, 5, 77),
        (0, REQUEST, 0, 77),
        (0, REQUEST, 0, -1),
    ]
    for cuts in ([], [3], [1, 2, 3, 4]):
        assert in_batches(rows, cuts, 2)[0] == [[3, 4], [4, 5]]


@pytest.mark.parametrize("length", [1, 50])
def test_the_tail_of_a_user_does_not_grow_with_the_number_of_behaviours(length: int) -> None:
    rows: list[Any] = [(0, BEHAVIOUR, 3 + n % 7, -1) for n in range(5000)] + [(0, REQUEST, 0, -1)]
    found, longest = in_batches(rows, list(range(100, 5000, 100)), length)
    assert longest == length
    assert found == naive(rows, length)


def test_a_user_without_behaviours_gets_no_history_of_the_previous_user() -> None:
    rows = [(0, BEHAVIOUR, 3, -1), (1, REQUEST, 0, -1)]
    assert in_batches(rows, [], 4)[0] == [[]]
    assert in_batches(rows, [1], 4)[0] == [[]]
