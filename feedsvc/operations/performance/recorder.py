"""This worker's minutes, as observations make them.

Keys of sums: `requests` (method, route, dataset, outcome), `rows` and `bytes` (method, route,
dataset), `problems` and `faults` (problem), `cache` (dataset, outcome), `leases` (pool, outcome),
`parked` and `slow` (dataset), `losses` (log_reader or redis), `away` (what: seconds),
`audit_dropped`, `cpu`, `seconds`, `resets` (reason), `live_ends` (reason), `live_behind` and
`live_reads`.
`statement_rows` (statement) is a sum, too, and `repeats`, `repeat_seconds` and `repeat_runs`
(dataset, pattern, column). Of sketches, in seconds: `statement` (its name),
`seconds` and `first_byte` (method, route, dataset), `query`, `wait`
(pool), `load` (dataset), `lag`, `live_lag`. Of peaks: `memory`, `open_files`, `open_files_share`,
`cpu_share`, `machine_cpu`, `machine_memory`, `disk` (shares in use), `running`, `busy` and
`waiting` (pool), `cached_bytes`, `subscribers`.
"""

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Final, NamedTuple, TypeAlias

from feedsvc.core.events import (
    CacheLoad,
    LiveLag,
    Observers,
    PoolLease,
    QueryRan,
    RequestEnded,
    RequestsRepeated,
)
from feedsvc.core.process_stats import ProcessStats
from feedsvc.operations.metrics.cells import Count
from feedsvc.operations.performance.figures import FigureKey, Figures
from feedsvc.operations.performance.sketch import LEAST, OFFSET, SCALE, Sketch
from feedsvc.operations.sampling import Sampling, Turns

TrackedCounters: TypeAlias = Mapping[FigureKey, Sequence[Count]]

MINUTE: Final = 60
_MOST_ENDPOINTS: Final = 2_000
_MOST_STATEMENTS: Final = 200
OTHERS: Final = "others"
"""The name of statements that are too many to be counted by name."""
_BROKE_OFF: Final = 200  # the status of an answer that failed behind its head
_AWAY: Final = ("database", "redis", "log_reader")


class Minute(NamedTuple):
    """The figures from `at` on, in seconds since 1970: of a minute, or until now."""

    at: int
    figures: Figures


class _RequestFigures:
    """The requests of one method, route and dataset."""

    __slots__ = ("first_byte", "outcomes", "rows", "seconds", "size")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.rows = 0
        self.size = 0
        self.seconds = Sketch()
        self.first_byte = Sketch()


class Recorder:
    """The minutes of one worker; `closed` gets each one that is over.

    `counters` go on from minute to minute, and are what Prometheus is shown; a minute has the
    difference between its end and its start.
    """

    def __init__(
        self, sampling: Sampling, counters: TrackedCounters, closed: Callable[[Minute], None]
    ) -> None:
        self.vitals: ProcessStats | None = None
        """The latest sample of the process."""
        self._turns, self._ran_turns = Turns(sampling), Turns(sampling)
        self._counters = counters
        self._closed = closed
        self._begin(None)
        self._cpu = 0.0
        self._dropped = 0
        self._seen = 0.0

    def observe(self, observers: Observers) -> None:
        """Record from now on."""
        observers.add(RequestEnded, self._ended)
        observers.add(QueryRan, self._ran)
        observers.add(CacheLoad, self._loaded)
        observers.add(PoolLease, self._leased)
        observers.add(LiveLag, self._followed)
        observers.add(RequestsRepeated, self._repeated)
        observers.add(ProcessStats, self._lives)

    def so_far(self) -> Minute | None:
        """The minute that is under way; its sketches are still being added to."""
        if self._at is None:
            return None
        figures = Figures()
        figures.counts = dict(self._figures.counts)
        for key, total in self._totals().items():
            if total != self._before[key]:
                figures.counts[key] = total - self._before[key]
        figures.peaks = dict(self._figures.peaks)
        figures.sketches = {k: v for k, v in self._figures.sketches.items() if v.bins}
        for (method, route, dataset), endpoint in self._endpoints.items():
            key = (method, route, dataset or "")
            for outcome, count in endpoint.outcomes.items():
                figures.counts["requests", *key, outcome] = count
            if endpoint.rows:
                figures.counts["rows", *key] = endpoint.rows
                figures.counts["bytes", *key] = endpoint.size
            figures.sketches["seconds", *key] = endpoint.seconds
            if endpoint.first_byte.bins:
                figures.sketches["first_byte", *key] = endpoint.first_byte
        if len(self._statements) > _MOST_STATEMENTS:
            self._fold_statements()
        for name, (sketch, rows) in self._statements.items():
            figures.sketches["statement", name] = sketch
            figures.counts["statement_rows", name] = rows[0]
        return Minute(self._at, figures)

    def close(self) -> None:
        """Hand over the minute under way, for the worker ends."""
        minute = self.so_far()
        if minute is not None:
            self._closed(minute)
        self._begin(None)

    def _begin(self, at: int | None) -> None:
        self._at = at
        self._before = self._totals()
        self._endpoints: dict[tuple[str, str, str | None], _RequestFigures] = {}
        self._figures = Figures()
        self._query = self._figures.sketch(("query",))
        self._statements: dict[str, tuple[Sketch, list[int]]] = {}

    def _totals(self) -> dict[FigureKey, int]:
        return {
            key: round(sum([count.value for count in counts]))
            for key, counts in self._counters.items()
        }

    def _ended(self, ended: RequestEnded) -> None:
        key = (ended.method, ended.route, ended.dataset)
        found = self._endpoints[key] if key in self._endpoints else self._endpoint(key)
        outcome: str = ended.result
        if outcome == "failed" and ended.status == _BROKE_OFF:
            outcome = "broken"
        found.outcomes[outcome] = found.outcomes.get(outcome, 0) + 1
        if rows := ended.rows:
            found.rows += rows
            found.size += ended.size
        # As Sketch.add does it, without the calls: this is done for each request.
        seconds, sketch = ended.seconds - ended.followed, found.seconds
        place = int(log(seconds) * SCALE + OFFSET) if seconds > LEAST else 1
        sketch.bins[place] = sketch.bins.get(place, 0) + 1
        sketch.total += seconds
        first_byte = ended.first_byte
        if first_byte is not None:
            sketch = found.first_byte
            if first_byte != seconds:
                place = int(log(first_byte) * SCALE + OFFSET) if first_byte > LEAST else 1
            sketch.bins[place] = sketch.bins.get(place, 0) + 1
            sketch.total += first_byte
        if "db" in ended.stages and (weight := self._turns.next()):
            self._query.add(ended.stages["db"], weight)

    def _endpoint(self, key: tuple[str, str, str | None]) -> _RequestFigures:
        if key[1] == "unknown" or len(self._endpoints) >= _MOST_ENDPOINTS:
            # Where there is no route, the method can be any word of a client's.
            key = ("*", "unknown", None)
        return self._endpoints.setdefault(key, _RequestFigures())

    def _ran(self, ran: QueryRan) -> None:
        weight = self._ran_turns.next()
        if not weight:
            return
        found = self._statements.get(ran.statement)
        if found is None:
            if len(self._statements) >= 2 * _MOST_STATEMENTS:
                self._fold_statements()
            found = self._statements[ran.statement] = (Sketch(), [0])
        found[0].add(ran.seconds, weight)
        found[1][0] += ran.rows * weight

    def _fold_statements(self) -> None:
        """Count the statements that took the least time as others, until few enough are left."""
        taken = self._statements
        others = taken.pop(OTHERS, (Sketch(), [0]))
        ranked = sorted(taken, key=lambda name: -taken[name][0].total)
        for name in ranked[_MOST_STATEMENTS - 1 :]:
            sketch, rows = taken.pop(name)
            others[0].merge(sketch)
            others[1][0] += rows[0]
        taken[OTHERS] = others

    def _loaded(self, load: CacheLoad) -> None:
        self._figures.sketch(("load", load.dataset)).add(load.seconds)

    def _leased(self, lease: PoolLease) -> None:
        self._figures.sketch(("wait", lease.pool)).add(lease.seconds)

    def _followed(self, lag: LiveLag) -> None:
        self._figures.sketch(("live_lag",)).add(lag.seconds, lag.subscribers)

    def _repeated(self, found: RequestsRepeated) -> None:
        key = (found.dataset, found.pattern, found.column)
        self._figures.add(("repeats", *key), found.requests)
        self._figures.add(("repeat_seconds", *key), found.seconds)
        self._figures.add(("repeat_runs", *key), found.begins)

    def _lives(self, vitals: ProcessStats) -> None:
        at = int(vitals.at // MINUTE) * MINUTE
        if self._at is None:
            self._at, self._seen = at, vitals.at
        elif at != self._at:  # also where the clock was set back
            minute = self.so_far()
            self._begin(at)
            if minute is not None:
                self._closed(minute)
        self.vitals = vitals
        self._note(vitals)

    def _note(self, vitals: ProcessStats) -> None:
        figures = self._figures
        passed = min(max(vitals.at - self._seen, 0.0), MINUTE)
        self._seen = vitals.at
        figures.add(("seconds",), passed)
        figures.add(("cpu",), vitals.cpu_seconds - self._cpu)
        self._cpu = vitals.cpu_seconds
        if lost := vitals.audit.dropped - self._dropped:
            figures.add(("audit_dropped",), lost)
            self._dropped = vitals.audit.dropped
        states = (vitals.database_answers, vitals.redis_answers, vitals.log_reads)
        for name, well in zip(_AWAY, states, strict=True):
            if well is False:
                figures.add(("away", name), passed)
        lags = figures.sketch(("lag",))
        for lag in vitals.lags:
            lags.add(lag)
        for key, value in peaks(vitals).items():
            figures.peak(key, value)


def peaks(vitals: ProcessStats) -> dict[tuple[str, ...], float]:
    """The figures kept at their highest; shares are of what there is."""
    found: dict[tuple[str, ...], float] = {
        ("memory",): vitals.memory,
        ("cpu_share",): vitals.cpu_share,
        ("machine_cpu",): vitals.machine_cpu_share,
        ("machine_memory",): 1 - vitals.machine_memory_free / vitals.machine_memory,
        ("running",): vitals.running,
        ("cached_bytes",): vitals.cached_bytes,
        ("subscribers",): vitals.live.subscribers,
    }
    if vitals.open_files is not None:
        found["open_files",] = vitals.open_files
        if vitals.most_open_files:
            found["open_files_share",] = vitals.open_files / vitals.most_open_files
    if vitals.disk and vitals.disk_free is not None:
        found["disk",] = 1 - vitals.disk_free / vitals.disk
    for name, state in vitals.pools.items():
        found["busy", name] = state.busy
        found["waiting", name] = state.waiting
    return found
