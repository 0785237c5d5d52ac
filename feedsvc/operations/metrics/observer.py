"""The observer that counts for Prometheus. All label values are known beforehand.

Values that were not declared, such as another route, are counted without those labels.
"""

import platform
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, get_args

from feedsvc.core.events import (
    AlertStates,
    CacheChange,
    CacheLoad,
    CacheLookup,
    CachePrefetch,
    CachePut,
    DatabaseFault,
    DeltaSent,
    FeedReset,
    LogMaintained,
    LogRead,
    LogTurned,
    Observers,
    PoolLease,
    QuerySlow,
    RedisRefused,
    RedisTurned,
    RequestEnded,
    RequestsRepeated,
    SlowPlanOutcome,
    SlowPlanRead,
    StreamParked,
    WebhookTried,
)
from feedsvc.core.problems import ResetReason, problem_types
from feedsvc.core.process_stats import ChangeLogState, ProcessStats
from feedsvc.operations.metrics import declarations as d
from feedsvc.operations.metrics.cache_cells import CacheCells
from feedsvc.operations.metrics.cells import Buckets, Cells, Count, add_to, each
from feedsvc.operations.metrics.live_cells import LiveCells
from feedsvc.operations.metrics.release import release
from feedsvc.operations.sampling import Sampling, Turns
from streams.encoder import MISSING

T = TypeVar("T")

_NO: Final = ""  # the value of a label that does not apply
_BROKE_OFF: Final = 200  # the status of an answer that failed behind its head


@dataclass(frozen=True, slots=True)
class Domain:
    """The values of labels: routes' patterns, names of datasets, formats and pools.

    And the severities of alerts by name. `publishes`: an issuer's keys are fetched.
    """

    routes: Iterable[str]
    datasets: Iterable[str]
    formats: Iterable[str]
    pools: Iterable[str]
    alerts: Mapping[str, str] = field(default_factory=dict)
    checks: Iterable[str] = ()
    standbys: Iterable[str] = ()
    views: Iterable[str] = ()
    publishes: bool = False


class _EndpointCells:
    """The cells of requests for one route, dataset and format."""

    __slots__ = ("first_byte", "outcomes", "rows", "seconds", "size", "stages")

    def __init__(
        self,
        outcomes: Mapping[str, Count],
        seconds: tuple[Buckets, Buckets],
        stages: Mapping[str, Buckets],
        amounts: tuple[Count, Count],
    ) -> None:
        self.outcomes = outcomes
        self.seconds, self.first_byte = seconds
        self.stages = stages
        self.rows, self.size = amounts


class MetricsObserver:
    """Counters in cells, which are written with each sample of the process."""

    def __init__(self, cells: Cells, domain: Domain, sampling: Sampling) -> None:
        self._cells = cells
        self._turns = Turns(sampling)
        datasets, pools = (*domain.datasets, _NO), tuple(domain.pools)
        self._stages = {
            name: each(cells.buckets, d.STAGE_SECONDS, (name,), d.STAGES) for name in datasets
        }
        self._endpoints = dict(self._foreseen(domain))
        self._unforeseen = self._endpoints["unknown", None, None]
        self._problems = each(cells.count, d.PROBLEMS, (), problem_types())
        self._repeats, self._repeat_seconds = (
            {name: each(cells.count, metric, (name,), d.REPEATS) for name in datasets if name}
            for metric in (d.REPEATED, d.REPEATED_SECONDS)
        )
        self._slow = each(cells.count, d.SLOW_QUERIES, (), filter(None, datasets))
        self._slow_plans = each(cells.count, d.SLOW_PLANS, (), get_args(SlowPlanOutcome))
        self._parked = each(cells.count, d.PARKED, (), datasets)
        self._resets = each(cells.count, d.RESETS, (), get_args(ResetReason))
        self._delta_changes = each(cells.buckets, d.DELTA_CHANGES, (), datasets)
        self._running = cells.count(d.RUNNING)
        self._cache = CacheCells(cells, datasets)
        self._live = LiveCells(cells)
        self._pools = {name: _PoolCells(cells, name) for name in pools}
        faults = [name for name, kind in problem_types().items() if kind.status >= 500]
        self._faults = each(cells.count, d.DATABASE_FAULTS, (), faults)
        self._log_reader_losses = cells.count(d.LOG_READER_LOSSES)
        self._log_looks, self._log_rows = cells.buckets(d.LOG_LOOKS), cells.count(d.LOG_ROWS)
        self._trims, self._epochs = cells.count(d.CHANGES_TRIMS), cells.count(d.CHANGES_EPOCHS)
        self._redis_losses = cells.count(d.REDIS_LOSSES)
        self._alerts = {
            name: cells.count(d.ALERT_FIRING, name, severity)
            for name, severity in domain.alerts.items()
        }
        self._deliveries = each(cells.count, d.WEBHOOK, (), d.DELIVERIES)
        self._redis_refusals = cells.count(d.REDIS_REFUSALS)
        self._lags = cells.buckets(d.LOOP_LAG)
        self._evictions, self._cpu = cells.count(d.CACHE_EVICTIONS), cells.count(d.CPU)
        self._evicted, self._cpu_seconds = 0, 0.0
        self._gauges = {metric: cells.count(metric) for metric in _GAUGES}
        self._state = _StateCells(cells, domain)

    def observe(self, observers: Observers) -> None:
        """Count from now on."""
        observers.add(RequestEnded, self._ended)
        self._live.observe(observers)
        observers.add(CacheLookup, self._cache.looked_up)
        observers.add(CacheLoad, self._cache.loaded)
        observers.add(CachePut, self._cache.put)
        observers.add(CacheChange, self._cache.changed)
        observers.add(CachePrefetch, self._cache.prefetched)
        observers.add(PoolLease, self._leased)
        observers.add(DatabaseFault, self._failed)
        observers.add(StreamParked, self._was_parked)
        observers.add(QuerySlow, self._was_slow)
        observers.add(SlowPlanRead, self._read_slow_plan)
        observers.add(RequestsRepeated, self._repeated)
        observers.add(FeedReset, self._was_reset)
        observers.add(DeltaSent, self._was_followed)
        observers.add(LogTurned, self._log_turned)
        observers.add(LogRead, self._log_read)
        observers.add(LogMaintained, self._log_maintained)
        observers.add(RedisTurned, self._redis_turned)
        observers.add(AlertStates, self._evaluated)
        observers.add(WebhookTried, self._tried)
        observers.add(RedisRefused, self._redis_refused)
        observers.add(ProcessStats, self._lives)

    def tracked(self) -> dict[tuple[str, ...], Sequence[Count]]:
        """The counters that the tracker reports by minute, by its keys; several make a sum."""
        found: dict[tuple[str, ...], Sequence[Count]] = {
            ("losses", "log_reader"): [self._log_reader_losses],
            ("losses", "redis"): [self._redis_losses],
            **{("problems", name): [count] for name, count in self._problems.items()},
            **{("faults", name): [count] for name, count in self._faults.items()},
            **{("parked", name): [count] for name, count in self._parked.items()},
            **{("slow", name): [count] for name, count in self._slow.items()},
            **{("resets", reason): [count] for reason, count in self._resets.items()},
            **self._cache.tracked(),
            **self._live.tracked(),
        }
        for pool, cells in self._pools.items():
            found |= {("leases", pool, how): [count] for how, count in cells.outcomes.items()}
        return found

    def _foreseen(
        self, domain: Domain
    ) -> Iterable[tuple[tuple[str, str | None, str | None], _EndpointCells]]:
        cells, formats = self._cells, (*domain.formats, _NO)
        amounts = {
            (dataset, form): (
                cells.count(d.ROWS, dataset, form),
                cells.count(d.BYTES, dataset, form),
            )
            for dataset in self._stages
            for form in (formats if dataset else (_NO,))
        }
        for route in (*domain.routes, "unknown"):
            for dataset in self._stages if "{dataset}" in route else (_NO,):
                times = (
                    cells.buckets(d.REQUEST_SECONDS, route, dataset),
                    cells.buckets(d.FIRST_BYTE_SECONDS, route, dataset),
                )
                # A feed has formats; a row of it is JSON.
                for form in formats if dataset and route.endswith("{dataset}") else (_NO,):
                    labels = (route, dataset, form)
                    yield (
                        (route, dataset or None, form or None),
                        _EndpointCells(
                            each(cells.count, d.REQUESTS, labels, d.OUTCOMES),
                            times,
                            self._stages[dataset],
                            amounts[dataset, form],
                        ),
                    )

    def _ended(self, ended: RequestEnded) -> None:
        found = self._endpoints.get((ended.route, ended.dataset, ended.format), self._unforeseen)
        outcome: str = ended.result
        if outcome == "failed" and ended.status == _BROKE_OFF:
            outcome = "broken"
        found.outcomes[outcome].value += 1
        # Here and below, a call of _add would cost as much as what it does.
        buckets, seconds = found.seconds, ended.seconds - ended.followed
        buckets.counts[bisect_left(buckets.bounds, seconds)] += 1
        buckets.total += seconds
        first_byte = ended.first_byte
        if first_byte is not None:
            buckets = found.first_byte
            buckets.counts[bisect_left(buckets.bounds, first_byte)] += 1
            buckets.total += first_byte
        if rows := ended.rows:
            found.rows.value += rows
            found.size.value += ended.size
        if ended.why is not None:
            self._problems[ended.why].value += 1
        weight = self._turns.next()
        if not weight:
            return
        stages = found.stages
        for stage, seconds in ended.stages.items():
            if stage in stages:
                buckets = stages[stage]
                buckets.counts[bisect_left(buckets.bounds, seconds)] += weight
                buckets.total += seconds * weight

    def _leased(self, lease: PoolLease) -> None:
        pool = self._pools[lease.pool]
        pool.outcomes[lease.outcome].value += 1
        add_to(pool.seconds, lease.seconds)

    def _failed(self, fault: DatabaseFault) -> None:
        self._faults[fault.problem].value += 1

    def _repeated(self, found: RequestsRepeated) -> None:
        self._repeats[found.dataset][found.pattern].value += found.requests
        self._repeat_seconds[found.dataset][found.pattern].value += found.seconds

    def _was_slow(self, slow: QuerySlow) -> None:
        self._slow[slow.dataset].value += 1

    def _read_slow_plan(self, read: SlowPlanRead) -> None:
        self._slow_plans[read.outcome].value += 1

    def _was_parked(self, parked: StreamParked) -> None:
        self._parked[parked.dataset or _NO].value += 1

    def _was_reset(self, reset: FeedReset) -> None:
        self._resets[reset.reason].value += 1

    def _was_followed(self, sent: DeltaSent) -> None:
        add_to(self._delta_changes[sent.dataset], sent.changes)

    def _log_read(self, read: LogRead) -> None:
        add_to(self._log_looks, read.seconds)
        self._log_rows.value += read.rows

    def _log_turned(self, turned: LogTurned) -> None:
        self._log_reader_losses.value += not turned.reads

    def _log_maintained(self, done: LogMaintained) -> None:
        self._trims.value += done.trimmed
        self._epochs.value += done.is_new_epoch

    def _redis_turned(self, turned: RedisTurned) -> None:
        self._redis_losses.value += not turned.answers

    def _evaluated(self, states: AlertStates) -> None:
        for name, fires in states.firing.items():
            self._alerts[name].value = fires

    def _tried(self, tried: WebhookTried) -> None:
        self._deliveries[tried.outcome].value += 1

    def _redis_refused(self, refused: RedisRefused) -> None:
        self._redis_refusals.value += refused.questions

    def _lives(self, vitals: ProcessStats) -> None:
        for lag in vitals.lags:
            add_to(self._lags, lag)
        for metric, read in _GAUGES.items():
            self._gauges[metric].value = read(vitals)
        for name, state in vitals.pools.items():
            self._pools[name].set(state)
        self._running.value = vitals.running
        self._state.set(vitals)
        # Both are counted elsewhere from this process's beginning.
        self._evictions.value += vitals.evicted_pages - self._evicted
        self._cpu.value += vitals.cpu_seconds - self._cpu_seconds
        self._evicted, self._cpu_seconds = vitals.evicted_pages, vitals.cpu_seconds
        self._cells.write()


class _PoolCells:
    """One pool's figures."""

    def __init__(self, cells: Cells, name: str) -> None:
        self.seconds = cells.buckets(d.POOL_SECONDS, name)
        self.outcomes = each(cells.count, d.POOL_LEASES, (name,), d.LEASES)
        self._state = [
            cells.count(metric, name)
            for metric in (d.POOL_LIMIT, d.POOL_OPEN, d.POOL_BUSY, d.POOL_WAITING)
        ]

    def set(self, state: Iterable[int]) -> None:
        for count, value in zip(self._state, state, strict=True):
            count.value = value


class _StateCells:
    """The cells of health's states."""

    def __init__(self, cells: Cells, domain: Domain) -> None:
        self._checks = each(cells.count, d.HEALTH, (), domain.checks)
        self._kept_out = {
            (dataset, reason): cells.count(d.KEPT_OUT, dataset, reason)
            for dataset in domain.datasets
            for reason in d.KEPT_OUT_REASONS
        }
        self._standby_up = each(cells.count, d.STANDBY_UP, (), domain.standbys)
        self._standby_lag = each(cells.count, d.STANDBY_LAG, (), domain.standbys)
        self._views = {
            name: [cells.count(m, name) for m in (d.VIEW_AGE, d.VIEW_SECONDS, d.VIEW_FAILURES)]
            for name in domain.views
        }
        self._waiting, self._dropped = cells.count(d.AUDIT_WAITING), cells.count(d.AUDIT_DROPPED)
        self._dropped_before = 0
        self._keys_age = cells.count(d.KEYS_AGE) if domain.publishes else None
        self._log = [cells.count(metric) for metric in d.OF_CHANGE_LOG]
        encoder = "native" if MISSING is None else "postgresql"
        self._build = cells.count(d.BUILD, release(), platform.python_version(), encoder)

    def set(self, vitals: ProcessStats) -> None:
        self._build.value = 1
        for name, state in vitals.health.items():
            if name in self._checks:
                self._checks[name].value = d.STATES.index(state)
        for (dataset, reason), count in self._kept_out.items():
            count.value = vitals.kept_out.get(dataset) == reason
        for name, standby in vitals.standbys.items():
            self._standby_up[name].value = standby.serves
            self._standby_lag[name].value = standby.lag or 0.0
        for name, view in vitals.views.items():
            for count, value in zip(self._views.get(name, ()), view, strict=False):
                count.value = value
        self._waiting.value = vitals.audit.waiting
        # Counted elsewhere from this process's beginning.
        self._dropped.value += vitals.audit.dropped - self._dropped_before
        self._dropped_before = vitals.audit.dropped
        if self._keys_age is not None and vitals.keys_age is not None:
            self._keys_age.value = vitals.keys_age
        for count, value in zip(self._log, vitals.log or _NO_LOG, strict=True):
            count.value = value


_NO_LOG: Final = ChangeLogState(0, 0.0, 0, 0.0)
_GAUGES: Final[Mapping[d.Metric, Callable[[ProcessStats], float]]] = {
    d.WORKERS: lambda _: 1,
    d.SAMPLED: lambda v: v.sampled,
    d.MEMORY: lambda v: v.memory,
    d.OPEN_FILES: lambda v: v.open_files or 0,
    d.MOST_OPEN_FILES: lambda v: v.most_open_files or sys.maxsize,
    d.MACHINE_CPU: lambda v: v.machine_cpu_share,
    d.MACHINE_MEMORY: lambda v: v.machine_memory_free,
    d.DISK_FREE: lambda v: v.disk_free / v.disk if v.disk and v.disk_free is not None else 1,
    d.SUBSCRIBERS: lambda v: v.live.subscribers,
    d.SUBSCRIBERS_LIMIT: lambda v: v.live.most,
    d.CATCHING_UP: lambda v: v.live.catching_up,
    d.LIVE_COHORTS: lambda v: v.live.cohorts,
    d.LIVE_KEPT: lambda v: v.live.kept_bytes,
    d.LIVE_FAILING: lambda v: v.live.failing,
    d.LIVE_LOOKED: lambda v: v.live.looked or 0.0,
    d.CACHE_PAGES: lambda v: v.cached_pages,
    d.CACHE_BYTES: lambda v: v.cached_bytes,
    d.DATABASE_UP: lambda v: v.database_answers,
    d.REDIS_UP: lambda v: v.redis_answers is not False,
    d.LOG_READER_UP: lambda v: v.log_reads is not False,
}
