"""The observer that counts for Prometheus. All label values are known beforehand.

Values that were not declared, such as another route, are counted without those labels.
"""

import platform
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from feedsvc.core.events import (
    AlertStates,
    CacheChange,
    CacheLoad,
    CacheLookup,
    CachePrefetch,
    CachePut,
    DatabaseFault,
    ListenerTurned,
    Observers,
    PoolLease,
    ProcessStats,
    RedisRefused,
    RedisTurned,
    RequestEnded,
    StreamParked,
    WebhookTried,
)
from feedsvc.core.problems import problem_types
from feedsvc.datasets.tags import all_under, exactly
from feedsvc.operations.metrics import declarations as d
from feedsvc.operations.metrics.cells import Buckets, Cells, Count
from feedsvc.operations.metrics.release import release
from feedsvc.operations.sampling import Sampling, Turns
from streams.encoder import MISSING

T = TypeVar("T")

_NO: Final = ""  # the value of a label that does not apply
_WHY: Final = (
    "absent", "expired", "invalidated", "mismatch", "deaf", "untracked", "off", "request", "large",
)  # fmt: skip
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
            name: _each(cells.buckets, d.STAGE_SECONDS, (name,), d.STAGES) for name in datasets
        }
        self._endpoints = dict(self._foreseen(domain))
        self._unforeseen = self._endpoints["unknown", None, None]
        self._problems = _each(cells.count, d.PROBLEMS, (), problem_types())
        self._parked = _each(cells.count, d.PARKED, (), datasets)
        self._running = cells.count(d.RUNNING)
        self._cache = _CacheCells(cells, datasets)
        self._pools = {name: _PoolCells(cells, name) for name in pools}
        faults = [name for name, kind in problem_types().items() if kind.status >= 500]
        self._faults = _each(cells.count, d.DATABASE_FAULTS, (), faults)
        self._listener_losses = cells.count(d.LISTENER_LOSSES)
        self._redis_losses = cells.count(d.REDIS_LOSSES)
        self._alerts = {
            name: cells.count(d.ALERT_FIRING, name, severity)
            for name, severity in domain.alerts.items()
        }
        self._deliveries = _each(cells.count, d.WEBHOOK, (), d.DELIVERIES)
        self._redis_refusals = cells.count(d.REDIS_REFUSALS)
        self._lags = cells.buckets(d.LOOP_LAG)
        self._evictions, self._cpu = cells.count(d.CACHE_EVICTIONS), cells.count(d.CPU)
        self._evicted, self._cpu_seconds = 0, 0.0
        self._gauges = {metric: cells.count(metric) for metric in _GAUGES}
        self._state = _StateCells(cells, domain)

    def observe(self, observers: Observers) -> None:
        """Count from now on."""
        observers.add(RequestEnded, self._ended)
        observers.add(CacheLookup, self._cache.looked_up)
        observers.add(CacheLoad, self._cache.loaded)
        observers.add(CachePut, self._cache.put)
        observers.add(CacheChange, self._cache.changed)
        observers.add(CachePrefetch, self._cache.prefetched)
        observers.add(PoolLease, self._leased)
        observers.add(DatabaseFault, self._failed)
        observers.add(StreamParked, self._was_parked)
        observers.add(ListenerTurned, self._listener_turned)
        observers.add(RedisTurned, self._redis_turned)
        observers.add(AlertStates, self._evaluated)
        observers.add(WebhookTried, self._tried)
        observers.add(RedisRefused, self._redis_refused)
        observers.add(ProcessStats, self._lives)

    def tracked(self) -> dict[tuple[str, ...], Sequence[Count]]:
        """The counters that the tracker reports by minute, by its keys; several make a sum."""
        found: dict[tuple[str, ...], Sequence[Count]] = {
            ("losses", "listener"): [self._listener_losses],
            ("losses", "redis"): [self._redis_losses],
            **{("problems", name): [count] for name, count in self._problems.items()},
            **{("faults", name): [count] for name, count in self._faults.items()},
            **{("parked", name): [count] for name, count in self._parked.items()},
            **self._cache.tracked(),
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
                            _each(cells.count, d.REQUESTS, labels, d.OUTCOMES),
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
        buckets, seconds = found.seconds, ended.seconds
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
        _add(pool.seconds, lease.seconds)

    def _failed(self, fault: DatabaseFault) -> None:
        self._faults[fault.problem].value += 1

    def _was_parked(self, parked: StreamParked) -> None:
        self._parked[parked.dataset or _NO].value += 1

    def _listener_turned(self, turned: ListenerTurned) -> None:
        self._listener_losses.value += not turned.hears

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
            _add(self._lags, lag)
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


class _CacheCells:
    """The cache's figures."""

    def __init__(self, cells: Cells, datasets: Sequence[str]) -> None:
        self._lookups = {
            (dataset, outcome, tier): cells.count(d.CACHE_LOOKUPS, dataset, outcome, tier)
            for dataset in datasets
            for outcome in d.LOOKUPS
            for tier in d.TIERS
        }
        self._misses = _each(cells.count, d.CACHE_MISSES, (), _WHY)
        self._loads = _each(cells.buckets, d.CACHE_LOAD_SECONDS, (), datasets)
        self._plain = {name: cells.count(d.CACHE_PUT_BYTES, name, "plain") for name in datasets}
        self._packed = {name: cells.count(d.CACHE_PUT_BYTES, name, "packed") for name in datasets}
        self._changes = _each(cells.count, d.CACHE_INVALIDATIONS, (), datasets)
        self._prefetches = {
            name: _each(cells.count, d.CACHE_PREFETCHES, (name,), d.PREFETCHES) for name in datasets
        }
        self._names = {item(name): name for name in datasets if name for item in _TELLING}

    def tracked(self) -> dict[tuple[str, ...], Sequence[Count]]:
        found: dict[tuple[str, ...], list[Count]] = {}
        for (dataset, outcome, tier), count in self._lookups.items():
            of_hits = "redis" if tier == "redis" else "memory"
            key = ("cache", dataset, of_hits if outcome == "hit" else outcome)
            found.setdefault(key, []).append(count)
        return {**found}

    def looked_up(self, lookup: CacheLookup) -> None:
        dataset, outcome, tier, why, _ = lookup
        self._lookups[dataset, outcome, tier or "none"].value += 1
        if why is not None and why in self._misses:
            self._misses[why].value += 1

    def loaded(self, load: CacheLoad) -> None:
        _add(self._loads[load.dataset], load.seconds)

    def put(self, put: CachePut) -> None:
        self._plain[put.dataset].value += put.size
        self._packed[put.dataset].value += put.packed

    def changed(self, change: CacheChange) -> None:
        for name in {self._names[item] for item in change.items if item in self._names}:
            self._changes[name].value += 1

    def prefetched(self, prefetch: CachePrefetch) -> None:
        self._prefetches[prefetch.dataset][prefetch.outcome].value += 1


class _PoolCells:
    """One pool's figures."""

    def __init__(self, cells: Cells, name: str) -> None:
        self.seconds = cells.buckets(d.POOL_SECONDS, name)
        self.outcomes = _each(cells.count, d.POOL_LEASES, (name,), d.LEASES)
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
        self._checks = _each(cells.count, d.HEALTH, (), domain.checks)
        self._kept_out = {
            (dataset, reason): cells.count(d.KEPT_OUT, dataset, reason)
            for dataset in domain.datasets
            for reason in d.KEPT_OUT_REASONS
        }
        self._standby_up = _each(cells.count, d.STANDBY_UP, (), domain.standbys)
        self._standby_lag = _each(cells.count, d.STANDBY_LAG, (), domain.standbys)
        self._waiting, self._dropped = cells.count(d.AUDIT_WAITING), cells.count(d.AUDIT_DROPPED)
        self._dropped_before = 0
        self._keys_age = cells.count(d.KEYS_AGE) if domain.publishes else None
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
        self._waiting.value = vitals.audit.waiting
        # Counted elsewhere from this process's beginning.
        self._dropped.value += vitals.audit.dropped - self._dropped_before
        self._dropped_before = vitals.audit.dropped
        if self._keys_age is not None and vitals.keys_age is not None:
            self._keys_age.value = vitals.keys_age


_TELLING: Final = (exactly, all_under)
_GAUGES: Final[Mapping[d.Metric, Callable[[ProcessStats], float]]] = {
    d.WORKERS: lambda _: 1,
    d.SAMPLED: lambda v: v.sampled,
    d.MEMORY: lambda v: v.memory,
    d.OPEN_FILES: lambda v: v.open_files or 0,
    d.MOST_OPEN_FILES: lambda v: v.most_open_files or sys.maxsize,
    d.MACHINE_CPU: lambda v: v.machine_cpu_share,
    d.MACHINE_MEMORY: lambda v: v.machine_memory_free,
    d.DISK_FREE: lambda v: v.disk_free / v.disk if v.disk and v.disk_free is not None else 1,
    d.CACHE_PAGES: lambda v: v.cached_pages,
    d.CACHE_BYTES: lambda v: v.cached_bytes,
    d.DATABASE_UP: lambda v: v.database_answers,
    d.REDIS_UP: lambda v: v.redis_answers is not False,
    d.LISTENER_UP: lambda v: v.listener_hears is not False,
}


def _add(buckets: Buckets, value: float) -> None:
    buckets.counts[bisect_left(buckets.bounds, value)] += 1
    buckets.total += value


def _each(
    make: Callable[..., T], metric: d.Metric, labels: Sequence[str], values: Iterable[str]
) -> dict[str, T]:
    return {value: make(metric, *labels, value) for value in values}
