"""The report of a range of time: PostgreSQL's minutes and hours, and this machine's present."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from feedsvc.core.events import Observers
from feedsvc.core.problems import NotSetUp, Problem
from feedsvc.core.process_stats import ProcessStats
from feedsvc.operations.performance import live, report
from feedsvc.operations.performance.figures import Figures
from feedsvc.operations.performance.past import PastFigures, PastRange
from feedsvc.operations.performance.recorder import MINUTE, Minute, Recorder, TrackedCounters
from feedsvc.operations.performance.store import HOUR, Store, StoredFigures
from feedsvc.operations.sampling import Sampling

ReportRange: TypeAlias = Literal["1h", "24h", "7d"]

_PATIENCE: Final = 5.0  # seconds that PostgreSQL gets
_UNDER_WAY: Final = live.UNDER_WAY
_OF_QUERIES: Final = ("statements", "repeated")  # parts of another report than the rest
RANGES: Final[dict[ReportRange, tuple[int, int, float]]] = {
    "1h": (HOUR, MINUTE, 4.0),
    "24h": (24 * HOUR, HOUR, 30.0),
    "7d": (7 * 24 * HOUR, HOUR, 60.0),
}
"""Seconds; what they begin at a multiple of; and for how long a report is as good as new."""


class Tracker:
    """The record of this worker, and reports of all."""

    def __init__(
        self,
        store: Store,
        sampling: Sampling,
        counters: TrackedCounters,
        folder: Path | None,
        slot: int,
    ) -> None:
        self._store = store
        self._recorder = Recorder(sampling, counters, self._close_minute)
        self._folder = folder
        self._file = None if folder is None else live.LiveFile(folder, slot)
        self._written = 0.0
        self._pasts = {name: PastRange(store, seconds) for name, (seconds, _, _) in RANGES.items()}
        self._made: dict[ReportRange, tuple[float, dict[str, Any]]] = {}
        self._lock = asyncio.Lock()

    def observe(self, observers: Observers) -> None:
        """Record from now on."""
        self._recorder.observe(observers)
        observers.add(ProcessStats, self._publish)  # behind the recorder, which must have seen them

    async def close(self) -> None:
        """Keep the minute under way, for the worker ends."""
        self._recorder.close()
        await self._store.close()

    async def present(self) -> list[live.Present]:
        """The present of every worker of this service, this one at least."""
        found: list[live.Present] = []
        if self._folder is not None:
            found = await asyncio.to_thread(live.present, self._folder)
        minute, vitals = self._recorder.so_far(), self._recorder.vitals
        if not found and minute is not None and vitals is not None:
            # A copy, for what is under way goes on while others look at it in a thread.
            figures = Figures.parse(minute.figures.plain())
            found.append(
                live.Present(vitals, [StoredFigures(_UNDER_WAY, minute.at, MINUTE, figures)])
            )
        return found

    async def report(self, wanted: ReportRange) -> dict[str, Any]:
        """The figures of the range, and by how much they differ from the range before it.

        While PostgreSQL is away it is made of what this machine's workers still have, with the
        reason under `lacking`. Raises NotSetUp where the database was never migrated.
        """
        made = await self._current(wanted)
        present = await self.present()
        vitals = [each.vitals for each in present]
        shown = {name: part for name, part in made.items() if name not in _OF_QUERIES}
        return {**shown, "now": report.now(vitals, recent(present, time.time()))}

    async def statements(self, wanted: ReportRange) -> dict[str, Any]:
        """The service's own statements of the range, by total time, and repeated requests.

        Raises NotSetUp.
        """
        made = await self._current(wanted)
        return {name: made[name] for name in ("range", "from", "to", "lacking", *_OF_QUERIES)}

    async def _current(self, wanted: ReportRange) -> dict[str, Any]:
        async with self._lock:
            at, made = self._made.get(wanted, (0.0, None))
            if made is None or time.monotonic() - at > RANGES[wanted][2]:
                made = await self._report(wanted)
                self._made[wanted] = time.monotonic(), made
        return made

    async def _report(self, wanted: ReportRange) -> dict[str, Any]:
        seconds, unit, _ = RANGES[wanted]
        now = time.time()
        begins = (now - seconds) // unit * unit
        # In this order: what is in PostgreSQL by now is no more under way in a file that is read
        # after it, so no minute is counted twice.
        past, lacking = await self._past(wanted, begins)
        present = await self.present()
        rows = {row.id: row for row in self._store.outbox.waiting}
        rows |= {row.id: row for each in present for row in each.rows if row.id != _UNDER_WAY}
        fresh = [row for name, row in rows.items() if name not in past.ids]
        fresh += [row for each in present for row in each.rows if row.id == _UNDER_WAY]
        made = await asyncio.to_thread(_made, past, fresh, (begins, now), seconds)
        return {"range": wanted, "from": begins, "to": round(now, 3), "lacking": lacking, **made}

    async def _past(self, wanted: ReportRange, begins: float) -> tuple[PastFigures, str | None]:
        nothing = PastFigures(Figures(), Figures(), frozenset())
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._pasts[wanted].read(begins), None
        except NotSetUp:
            raise
        except Problem as problem:
            return nothing, problem.detail
        except TimeoutError:
            return nothing, "The database did not give the figures of the past in time."

    def _close_minute(self, minute: Minute) -> None:
        row = self._store.keep(minute)
        if self._file is not None:
            self._file.closed(row)
            self._written = 0.0  # or it would count as under way until the next writing, too

    def _publish(self, vitals: ProcessStats) -> None:
        minute = self._recorder.so_far()
        if self._file is None or minute is None or vitals.at - self._written < live.EVERY - 0.5:
            return
        self._written = vitals.at
        self._file.write(vitals, minute)


def _made(
    past: PastFigures, fresh: Iterable[StoredFigures], bounds: tuple[float, float], ago: float
) -> dict[str, Any]:
    """The report of what lies within the bounds, against so many seconds before them."""
    begins, ends = bounds
    figures, before, _ = past
    for row in fresh:
        if row.at >= begins:
            figures.merge(row.figures)
        elif row.at >= begins - ago:
            before.merge(row.figures)
    span, earlier = report.Span(figures, ends - begins), report.Span(before, ago)
    listed = report.endpoints(span, earlier)
    return {
        "totals": report.totals(span, earlier),
        "endpoints": listed,
        "slowest": report.slowest(listed),
        "problems": report.problems(figures),
        "database": report.database(figures),
        "queries": report.queries(figures),
        "cache": report.cache(figures),
        "live": report.live(figures),
        "pools": report.pools(figures),
        "system": report.system(figures),
        "statements": report.statements(figures),
        "repeated": report.repeated(figures),
    }


def recent(present: Sequence[live.Present], now: float) -> report.Span:
    """The last minute or two of every worker of this service."""
    figures, began = Figures(), now
    for row in (row for each in present for row in each.rows):
        figures.merge(row.figures)
        began = min(began, row.at)
    return report.Span(figures, now - began)
