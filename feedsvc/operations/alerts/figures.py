"""The figures that an alert can be about: of this service's workers, over the last minute or two.

None is a figure that can't be known just now, such as the error rate while there are no requests.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from feedsvc.core.process_stats import PoolState, ProcessStats
from feedsvc.operations.performance.figures import Figures
from feedsvc.operations.performance.report import FAILURES, Span
from feedsvc.operations.performance.sketch import Sketch


class Selector(NamedTuple):
    """The scope of a figure; None is everything. With fewer requests than `least` it is None."""

    dataset: str | None = None
    route: str | None = None
    pool: str | None = None
    least: int = 1
    check: str | None = None


class AlertInput(NamedTuple):
    """The input: the last minute or two, and every worker at this moment."""

    recent: Span
    present: Sequence[ProcessStats]
    workers: int
    """The number of workers of the settings."""


class Figure(NamedTuple):
    """A figure: its reader, its description, and the selectors that it takes."""

    read: Callable[[AlertInput, Selector], float | None]
    what: str
    selectors: frozenset[str] = frozenset()


def _routes(figures: Figures, selector: Selector) -> Collection[str | None]:
    """The route that is picked, any route of a dataset, else those of feeds.

    Probes and scrapes are quick and never fail: among them the requests that matter would drown.
    """
    if selector.route is not None or selector.dataset is not None:
        return {selector.route}
    return {key[2] for key in figures.counts if key[0] == "requests" and key[2].startswith(_FEEDS)}


def _count(figures: Figures, selector: Selector, *outcome: str) -> float:
    routes = _routes(figures, selector)
    return sum(figures.total("requests", None, r, selector.dataset, *outcome) for r in routes)


def _requests(seen: AlertInput, selector: Selector) -> float | None:
    count = _count(seen.recent.figures, selector)
    return count if count >= selector.least else None


def _error_rate(seen: AlertInput, selector: Selector) -> float | None:
    requests = _requests(seen, selector)
    if not requests:
        return None
    return sum(_count(seen.recent.figures, selector, how) for how in FAILURES) / requests


def _rate(seen: AlertInput, selector: Selector) -> float | None:
    requests = _count(seen.recent.figures, selector)
    return requests / seen.recent.seconds if seen.recent.seconds else None


def _percentile(name: str, rank: float) -> Callable[[AlertInput, Selector], float | None]:
    def read(seen: AlertInput, selector: Selector) -> float | None:
        if _requests(seen, selector) is None:
            return None
        figures, made = seen.recent.figures, Sketch()
        for route in _routes(figures, selector):
            made.merge(figures.merged(name, None, route, selector.dataset))
        found = made.quantiles((rank,))
        return found[0] if found else None

    return read


def _quantile(name: str, rank: float) -> Callable[[AlertInput, Selector], float | None]:
    def read(seen: AlertInput, selector: Selector) -> float | None:
        of = selector.pool if name == "wait" else None
        found = seen.recent.figures.merged(name, of).quantiles((rank,))
        return found[0] if found else None

    return read


def _per_minute(count: Callable[[Figures, Selector], float]) -> Callable[..., float | None]:
    def read(seen: AlertInput, selector: Selector) -> float | None:
        if not seen.recent.seconds:
            return None
        # Of a single minute that has just begun, what there was so far, and not sixty times that.
        return count(seen.recent.figures, selector) * 60 / max(seen.recent.seconds, 60.0)

    return read


def _hit_ratio(seen: AlertInput, selector: Selector) -> float | None:
    figures, of = seen.recent.figures, selector.dataset
    shown = sum(figures.total("cache", of, how) for how in ("memory", "redis", "stale"))
    looked = shown + figures.total("cache", of, "miss")
    return shown / looked if looked >= selector.least else None


def _pools(seen: AlertInput, selector: Selector) -> list[PoolState]:
    return [
        state
        for each in seen.present
        for name, state in each.pools.items()
        if selector.pool in (None, name)
    ]


def _away(
    answers: Callable[[ProcessStats], bool | None],
) -> Callable[[AlertInput, Selector], float | None]:
    """The share of workers for which it holds, among those that it concerns."""

    def read(seen: AlertInput, _: Selector) -> float | None:
        found = [answer for each in seen.present if (answer := answers(each)) is not None]
        return found.count(False) / len(found) if found else None

    return read


def _highest(
    value: Callable[[ProcessStats], float | None],
) -> Callable[[AlertInput, Selector], float | None]:
    def read(seen: AlertInput, _: Selector) -> float | None:
        return max((v for each in seen.present if (v := value(each)) is not None), default=None)

    return read


def _busy_share(seen: AlertInput, selector: Selector) -> float | None:
    return max((s.busy / s.limit for s in _pools(seen, selector)), default=None)


def _files_share(vitals: ProcessStats) -> float | None:
    if vitals.open_files is None or not vitals.most_open_files:
        return None
    return vitals.open_files / vitals.most_open_files


def _subscribers_share(vitals: ProcessStats) -> float | None:
    return vitals.live.subscribers / vitals.live.most if vitals.live.most else None


def _disk_share(vitals: ProcessStats) -> float | None:
    if not vitals.disk or vitals.disk_free is None:
        return None
    return 1 - vitals.disk_free / vitals.disk


def _health(seen: AlertInput, selector: Selector) -> float | None:
    """The worst state, of one component or of all."""
    states = [
        float(_STATES.index(state))
        for each in seen.present
        for name, state in each.health.items()
        if selector.check in (None, name)
    ]
    return max(states, default=None)


_FEEDS: Final = "/v1/"
_STATES: Final = ("ok", "degraded", "down")
_CHECK: Final = frozenset({"check"})
_ENDPOINT: Final = frozenset({"dataset", "route"})
_DATASET: Final = frozenset({"dataset"})
_POOL: Final = frozenset({"pool"})

FIGURES: Final[Mapping[str, Figure]] = {
    "error_rate": Figure(_error_rate, "part of requests that failed or broke off", _ENDPOINT),
    "requests_per_second": Figure(_rate, "requests that ended", _ENDPOINT),
    "p50": Figure(_percentile("seconds", 0.5), "seconds to the body's end", _ENDPOINT),
    "p95": Figure(_percentile("seconds", 0.95), "seconds to the body's end", _ENDPOINT),
    "p99": Figure(_percentile("seconds", 0.99), "seconds to the body's end", _ENDPOINT),
    "first_byte_p50": Figure(_percentile("first_byte", 0.5), "seconds to the head", _ENDPOINT),
    "first_byte_p95": Figure(_percentile("first_byte", 0.95), "seconds to the head", _ENDPOINT),
    "first_byte_p99": Figure(_percentile("first_byte", 0.99), "seconds to the head", _ENDPOINT),
    "broken_per_minute": Figure(
        _per_minute(lambda f, s: _count(f, s, "broken")),
        "bodies that broke off behind their head",
        _ENDPOINT,
    ),
    "rate_limited_per_minute": Figure(
        _per_minute(lambda f, _: f.total("problems", "rate-limited")), "answers of 429"
    ),
    "locked_per_minute": Figure(
        _per_minute(lambda f, _: f.total("problems", "dataset-locked")),
        "requests that met another session's lock",
    ),
    "query_p95": Figure(_quantile("query", 0.95), "seconds until PostgreSQL gave the first rows"),
    "slow_queries_per_minute": Figure(
        _per_minute(lambda f, s: f.total("slow", s.dataset)),
        "queries that took longer than `queries.slow`",
        _DATASET,
    ),
    "repeated_per_minute": Figure(
        _per_minute(lambda f, s: f.total("repeats", s.dataset)),
        "requests of one principal that one could replace",
        _DATASET,
    ),
    "database_away": Figure(
        _away(lambda v: v.database_answers), "part of the workers that PostgreSQL does not answer"
    ),
    "database_faults_per_minute": Figure(
        _per_minute(lambda f, _: f.total("faults")), "pieces of work that PostgreSQL failed"
    ),
    "pool_wait_p95": Figure(_quantile("wait", 0.95), "seconds of waiting for a connection", _POOL),
    "pool_waiting": Figure(
        lambda seen, of: float(sum(s.waiting for s in _pools(seen, of))),
        "requests that wait for a connection now",
        _POOL,
    ),
    "pool_busy_share": Figure(_busy_share, "part of a pool in use, of the fullest worker", _POOL),
    "pool_busy_per_minute": Figure(
        _per_minute(lambda f, s: f.total("leases", s.pool, "busy")),
        "requests that got no connection in time",
        _POOL,
    ),
    "cache_hit_ratio": Figure(_hit_ratio, "part of the looks that found a page", _DATASET),
    "redis_away": Figure(
        _away(lambda v: v.redis_answers), "part of the workers that Redis does not answer"
    ),
    "log_reader_away": Figure(
        _away(lambda v: v.log_reads), "part of the workers that can't read the change log"
    ),
    "live_lag_p99": Figure(
        _quantile("live_lag", 0.99), "seconds from a commit until its events were written"
    ),
    "live_failing": Figure(
        _highest(lambda v: v.live.failing),
        "seconds for which the change log can't be read for live feeds, of the worst worker",
    ),
    "live_looked": Figure(
        _highest(lambda v: None if v.live.failing else v.live.looked),
        "seconds since the change log was last read for live feeds, where that has not failed",
    ),
    "live_subscribers": Figure(
        lambda seen, _: float(sum(v.live.subscribers for v in seen.present)),
        "connections that follow feeds or figures",
    ),
    "live_subscribers_share": Figure(
        _highest(_subscribers_share), "part of `streams.subscribers`, of the fullest worker"
    ),
    "live_catching_up": Figure(
        lambda seen, _: float(sum(v.live.catching_up for v in seen.present)),
        "subscribers that lack events which are not kept any more",
    ),
    "live_behind_per_minute": Figure(
        _per_minute(lambda f, _: f.total("live_behind")),
        "subscribers that fell behind the events that are kept",
    ),
    "live_stalled_per_minute": Figure(
        _per_minute(lambda f, _: f.total("live_ends", "stalled")),
        "subscribers that were cut, for they took nothing",
    ),
    "resets_per_minute": Figure(
        _per_minute(lambda f, _: f.total("resets")), "cursors that could not be continued"
    ),
    "loop_lag_p99": Figure(_quantile("lag", 0.99), "seconds by which the event loop is late"),
    "workers_missing": Figure(
        lambda seen, _: float(max(0, seen.workers - sum(not v.leaving for v in seen.present))),
        "workers that don't run",
    ),
    "health": Figure(_health, "a component's state: 0 ok, 1 degraded, 2 down", _CHECK),
    "audit_waiting_share": Figure(
        _highest(lambda v: v.audit.waiting / v.audit.most),
        "part of `audit.most_waiting` that waits for PostgreSQL, of the worst worker",
    ),
    "audit_dropped_per_minute": Figure(
        _per_minute(lambda f, _: f.total("audit_dropped")), "audit entries that were lost"
    ),
    "keys_age": Figure(
        _highest(lambda v: v.keys_age), "seconds since an issuer's keys were fetched"
    ),
    "log_bytes": Figure(
        _highest(lambda v: v.log and v.log.bytes), "of the change log, indexes included"
    ),
    "log_trim_blocked": Figure(
        _highest(lambda v: v.log and v.log.blocked),
        "seconds for which a transaction has kept the change log from being trimmed",
    ),
    "view_age": Figure(
        _highest(lambda v: max((view.age for view in v.views.values()), default=None)),
        "seconds since the state that the oldest materialized view shows",
    ),
    "view_refresh_failures": Figure(
        _highest(lambda v: max((view.failures for view in v.views.values()), default=None)),
        "refreshes of a materialized view begun since the last that succeeded",
    ),
    "cpu_share": Figure(_highest(lambda v: v.cpu_share), "of one CPU, of the busiest worker"),
    "memory_bytes": Figure(_highest(lambda v: v.memory), "of the largest worker"),
    "open_files_share": Figure(_highest(_files_share), "of the limit, of the fullest worker"),
    "machine_cpu_share": Figure(_highest(lambda v: v.machine_cpu_share), "CPU in use"),
    "machine_memory_share": Figure(
        _highest(lambda v: 1 - v.machine_memory_free / v.machine_memory), "memory in use"
    ),
    "disk_share": Figure(_highest(_disk_share), "of the disk for temporary files in use"),
}
