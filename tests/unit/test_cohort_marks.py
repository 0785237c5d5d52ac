"""States of a cohort: bounded in number, and exact for every event that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import Cursor
from feedsvc.core.broadcast import Broadcast, FanOut
from feedsvc.core.principal import Principal
from feedsvc.feeds.live.cohort import Cohort
from feedsvc.feeds.live.step import FeedChanges, LiveStep
from streams.deltas import ChangeBatch

if TYPE_CHECKING:
    from feedsvc.feeds.cursors import Cursors

STEPS = 5_000
KEPT = 5_000  # bytes of events


class PlainCursors:
    """Cursors that are texts of snapshots."""

    def text(self, cursor: Cursor) -> str:
        return str(cursor.snapshot)


def state(number: int) -> Cursor:
    return Cursor(Snapshot(number, number, frozenset()), b"", 0, b"", b"", {})


def step(number: int, *, is_exact: bool = False) -> LiveStep:
    changes = FeedChanges(None, ChangeBatch((b'{"n":%d}' % number,), ()))
    return LiveStep(state(number), (changes,), (), is_exact=is_exact)


def moved_far() -> Cohort:
    """A cohort that has just thinned out its states for the second time, and keeps few events."""
    broadcast = Broadcast(FanOut(), most_bytes=KEPT, most_age=3_600.0)
    reader = Principal("a", "member", None, 0.0)
    cohort = Cohort((), reader, broadcast, cast("Cursors", PlainCursors()), "/v1/feeds/orders")
    cohort.begin(LiveStep(state(1), (), ()))
    number, thinned = 1, 0
    while thinned < 2:
        number, before = number + 1, len(cohort._marks)
        cohort.move(step(number), 0.0)
        thinned += len(cohort._marks) <= before
        assert number < 2 * STEPS, "they are never thinned out"
    assert number > STEPS
    return cohort


def test_each_state_whose_events_are_kept_has_its_own_number() -> None:
    cohort = moved_far()
    first, following = cohort.broadcast.first, cohort.broadcast.next
    assert 0 < following - first < 100
    for number in range(first, following + 1):
        snapshot = state(number + 1).snapshot
        assert cohort.number_behind(snapshot) == number
    assert cohort.number_behind(state(first).snapshot) is None


def test_old_states_are_thinned_out_and_lead_back_a_little_further() -> None:
    cohort = moved_far()
    assert len(cohort._marks) <= 4_096
    for number in range(1, STEPS, 100):
        before = cohort.state_before(number)
        assert before is not None
        assert number + 1 - 8 <= before.snapshot.xmax <= number + 1
