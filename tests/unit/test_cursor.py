"""Cursors: what goes in comes out, and nothing that was made elsewhere or changed is believed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedsvc.access.service_key import ServiceKey
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import (
    LONGEST,
    Cursor,
    CursorTooLongError,
    FeedState,
    ForeignCursorError,
    feed_digest,
    origin_digest,
    state_digest,
)

SEAL = ServiceKey(b"one").seal("cursors")
OTHER = ServiceKey(b"another").seal("cursors")
STATE = FeedState(*map(state_digest, ("query", "rights", "schema")))

digests = st.binary(min_size=4, max_size=4)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    xmin = draw(st.integers(3, 2**63))
    running = draw(st.frozensets(st.integers(xmin, xmin + 5_000), max_size=40))
    return Snapshot(xmin, max(running, default=xmin) + draw(st.integers(1, 2**20)), running)


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    states = st.builds(FeedState, digests, digests, digests)
    return Cursor(
        draw(snapshots()),
        draw(st.binary(min_size=6, max_size=6)),
        draw(st.integers(0, 2**64 - 1)),
        draw(digests),
        draw(digests),
        draw(st.dictionaries(digests, states, max_size=5)),
    )


def cursor(running: int = 0, feeds: int = 1) -> Cursor:
    xmin = 1_000_000_000
    listed = frozenset(range(xmin, xmin + 3 * running, 3))
    return Cursor(
        Snapshot(xmin, xmin + 3 * running + 1, listed),
        origin_digest("7/5/00000001"),
        2**63 + 1,
        state_digest("a", "member", ""),
        state_digest("policies"),
        {feed_digest(f"feed {n}"): STATE for n in range(feeds)},
    )


@given(cursors())
def test_what_goes_in_comes_out(made: Cursor) -> None:
    text = made.encode(SEAL)
    assert re.fullmatch("[A-Za-z0-9_-]+", text)
    assert Cursor.decode(text, SEAL) == made


@given(st.data())
def test_no_changed_cursor_is_believed(data: st.DataObject) -> None:
    text = cursor(running=2).encode(SEAL)
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda found: found != text[place]))
    with pytest.raises((ValueError, ForeignCursorError)):
        Cursor.decode(text[:place] + letter + text[place + 1 :], SEAL)


@given(st.text(max_size=300))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises((ValueError, ForeignCursorError)):
        Cursor.decode(text, SEAL)


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_a_cut_cursor_is_refused(cut: int) -> None:
    with pytest.raises((ValueError, ForeignCursorError)):
        Cursor.decode(cursor().encode(SEAL)[:-cut], SEAL)


def test_another_key_makes_another_service() -> None:
    with pytest.raises(ForeignCursorError):
        Cursor.decode(cursor().encode(OTHER), SEAL)


def test_it_is_short_and_has_a_bound() -> None:
    assert len(cursor().encode(SEAL)) < 100
    assert len(cursor(running=100).encode(SEAL)) < 256
    assert len(cursor(running=2_000).encode(SEAL)) <= LONGEST
    with pytest.raises(CursorTooLongError):
        cursor(running=4_000).encode(SEAL)


def test_the_feeds_that_were_named_last_are_remembered() -> None:
    old = cursor(feeds=16)
    later = Snapshot(2_000_000_000, 2_000_000_000, frozenset())
    moved = old.moved(later, old.policies, feed_digest("feed 0"), STATE)
    assert moved == replace(old, snapshot=later, feeds=moved.feeds)
    assert set(moved.feeds) == set(old.feeds)
    more = moved.moved(later, old.policies, feed_digest("another"), STATE)
    assert set(more.feeds) == {*old.feeds, feed_digest("another")} - {feed_digest("feed 1")}
