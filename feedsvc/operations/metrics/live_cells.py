"""Figures of subscribers: how many, why they ended, and how late events reach them."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import get_args

from feedsvc.core.events import LiveBehind, LiveEnded, LiveEndReason, LiveLag, LiveTick, Observers
from feedsvc.operations.metrics import declarations as d
from feedsvc.operations.metrics.cells import Cells, Count, each


class LiveCells:
    """The cells of all subscribers together."""

    def __init__(self, cells: Cells) -> None:
        self._ends = each(cells.count, d.LIVE_ENDS, (), get_args(LiveEndReason))
        self._behind = cells.count(d.LIVE_BEHIND)
        self._lag = cells.buckets(d.LIVE_LAG)
        self._ticks = cells.buckets(d.LIVE_TICKS)
        self._reads = cells.count(d.LIVE_READS)
        self._changes = cells.count(d.LIVE_CHANGES)

    def tracked(self) -> dict[tuple[str, ...], Sequence[Count]]:
        """The counters that the tracker reports by minute, by its keys."""
        found: dict[tuple[str, ...], Sequence[Count]] = {
            ("live_behind",): [self._behind],
            ("live_reads",): [self._reads],
        }
        return found | {("live_ends", reason): [count] for reason, count in self._ends.items()}

    def observe(self, observers: Observers) -> None:
        """Count from now on."""
        observers.add(LiveEnded, self._ended)
        observers.add(LiveBehind, self._fell_behind)
        observers.add(LiveLag, self._lagged)
        observers.add(LiveTick, self._ticked)

    def _ended(self, ended: LiveEnded) -> None:
        self._ends[ended.reason].value += 1

    def _fell_behind(self, _: LiveBehind) -> None:
        self._behind.value += 1

    def _lagged(self, lag: LiveLag) -> None:
        """One look at the clock for all that a turn of the loop has written to."""
        self._lag.counts[bisect_left(self._lag.bounds, lag.seconds)] += lag.subscribers
        self._lag.total += lag.seconds * lag.subscribers

    def _ticked(self, tick: LiveTick) -> None:
        self._ticks.counts[bisect_left(self._ticks.bounds, tick.seconds)] += 1
        self._ticks.total += tick.seconds
        self._reads.value += tick.cohorts
        self._changes.value += tick.changes
