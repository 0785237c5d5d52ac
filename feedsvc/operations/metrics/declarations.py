"""The declaration of every metric. The dashboard and the alert rules under `config/` name no other.

No label is ever a path, a tenant or an id: each has a fixed set of values, so the number of series
is fixed as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

MetricKind: TypeAlias = Literal["counter", "gauge", "histogram"]
Across: TypeAlias = Literal["livesum", "livemax", "livemin"]

_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0
)  # fmt: skip
_SHORT_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0
)  # fmt: skip

STAGES: Final = ("auth", "limits", "cache", "pool", "db", "encode", "write")
OUTCOMES: Final = ("complete", "refused", "failed", "broken", "cancelled")
"""Outcomes of a request; `broken` is a body that broke off behind its head."""
LOOKUPS: Final = ("hit", "miss", "stale", "bypass")
TIERS: Final = ("memory", "redis", "none")
PREFETCHES: Final = ("read", "used", "wasted")
DELIVERIES: Final = ("delivered", "refused", "failed")
LEASES: Final = ("leased", "busy", "failed", "left")
KEPT_OUT_REASONS: Final = ("triggers", "unsuitable")
STATES: Final = ("ok", "degraded", "down")
"""Of a component; its gauge has the place in this list."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `across` merges the workers' gauges, `bounds` are a histogram's upper edges."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    across: Across = "livesum"
    bounds: tuple[float, ...] = ()

    def samples(self) -> Iterator[str]:
        """The names of its series."""
        match self.kind:
            case "counter":
                yield f"{self.name}_total"
            case "gauge":
                yield self.name
            case "histogram":
                yield from (f"{self.name}_{part}" for part in ("bucket", "sum", "count"))


def _counter(name: str, help: str, *labels: str) -> Metric:  # noqa: A002 - as Prometheus has it
    return Metric(f"feedsvc_{name}", "counter", help, labels)


def _gauge(name: str, help: str, *labels: str, across: Across = "livesum") -> Metric:  # noqa: A002
    return Metric(f"feedsvc_{name}", "gauge", help, labels, across)


def _histogram(name: str, help: str, *labels: str, bounds: tuple[float, ...] = _SECONDS) -> Metric:  # noqa: A002
    return Metric(f"feedsvc_{name}", "histogram", help, labels, bounds=bounds)


REQUESTS: Final = _counter(
    "requests", "Requests that ended.", "route", "dataset", "format", "outcome"
)
REQUEST_SECONDS: Final = _histogram(
    "request_seconds", "From a request's beginning to its body's end.", "route", "dataset"
)
FIRST_BYTE_SECONDS: Final = _histogram(
    "first_byte_seconds", "From a request's beginning until its head left.", "route", "dataset"
)
STAGE_SECONDS: Final = _histogram(
    "stage_seconds", "Where requests spend their time.", "dataset", "stage", bounds=_SHORT_SECONDS
)
ROWS: Final = _counter("rows", "Rows that were sent.", "dataset", "format")
BYTES: Final = _counter("bytes", "Bytes of rows before compression.", "dataset", "format")
PROBLEMS: Final = _counter("problems", "Requests that a problem ended, by its name.", "problem")
PARKED: Final = _counter(
    "parked_streams", "Cursors given up because their client fell behind.", "dataset"
)
RUNNING: Final = _gauge("requests_running", "Requests for feeds under way.")

CACHE_LOOKUPS: Final = _counter(
    "cache_lookups", "Looks for a page in the cache.", "dataset", "outcome", "tier"
)
CACHE_MISSES: Final = _counter("cache_misses", "Why the cache had nothing to show.", "why")
CACHE_LOAD_SECONDS: Final = _histogram(
    "cache_load_seconds", "Reading a page for the cache.", "dataset", bounds=_SHORT_SECONDS
)
CACHE_PUT_BYTES: Final = _counter(
    "cache_put_bytes", "Bytes of pages put into Redis, plain and as packed.", "dataset", "form"
)
CACHE_INVALIDATIONS: Final = _counter(
    "cache_invalidations", "Changes that PostgreSQL told of.", "dataset"
)
CACHE_PREFETCHES: Final = _counter(
    "cache_prefetches", "Pages read ahead, and what became of them.", "dataset", "outcome"
)
CACHE_PAGES: Final = _gauge("cache_pages", "Pages in memory.")
CACHE_BYTES: Final = _gauge("cache_memory_bytes", "Bytes of pages in memory.")
CACHE_EVICTIONS: Final = _counter("cache_evictions", "Pages that memory had no room for.")

POOL_SECONDS: Final = _histogram(
    "pool_wait_seconds", "Waiting for a connection.", "pool", bounds=_SHORT_SECONDS
)
POOL_LEASES: Final = _counter("pool_leases", "Connections asked for.", "pool", "outcome")
POOL_LIMIT: Final = _gauge("pool_limit", "Connections that a pool may open.", "pool")
POOL_OPEN: Final = _gauge("pool_open", "Connections that are open.", "pool")
POOL_BUSY: Final = _gauge("pool_busy", "Connections in use.", "pool")
POOL_WAITING: Final = _gauge("pool_waiting", "Requests that wait for a connection.", "pool")
DATABASE_FAULTS: Final = _counter(
    "database_faults", "Work that the database failed, by the problem it became.", "problem"
)
DATABASE_UP: Final = _gauge(
    "database_up", "1 while PostgreSQL answers every worker.", across="livemin"
)
REDIS_UP: Final = _gauge(
    "redis_up", "1 while Redis answers every worker, or there is none.", across="livemin"
)
LISTENER_UP: Final = _gauge(
    "listener_up", "1 while every worker hears of changes, or need not.", across="livemin"
)
REDIS_LOSSES: Final = _counter("redis_losses", "Times that Redis stopped answering.")
REDIS_REFUSALS: Final = _counter(
    "redis_refusals", "Questions that Redis refused, such as writes while it is full."
)
LISTENER_LOSSES: Final = _counter("listener_losses", "Times that changes were heard no more.")

ALERT_FIRING: Final = _gauge(
    "alert_firing", "1 while an alert of alerts.toml fires.", "alert", "severity", across="livemax"
)
WEBHOOK: Final = _counter("webhook_messages", "Messages to the alerts' webhook.", "outcome")

HEALTH: Final = _gauge(
    "health_state", "A component: 0 ok, 1 degraded, 2 down, of the worst worker.", "check",
    across="livemax",
)  # fmt: skip
KEPT_OUT: Final = _gauge(
    "dataset_kept_out", "1 while a dataset is not cached, by the reason.", "dataset", "reason",
    across="livemax",
)  # fmt: skip
STANDBY_UP: Final = _gauge(
    "replica_up", "1 while a standby is read from by every worker.", "replica", across="livemin"
)
STANDBY_LAG: Final = _gauge(
    "replica_lag_seconds", "By how much a standby was behind.", "replica", across="livemax"
)
AUDIT_WAITING: Final = _gauge("audit_waiting", "Audit entries that wait for PostgreSQL.")
AUDIT_DROPPED: Final = _counter("audit_dropped", "Audit entries that were dropped.")
KEYS_AGE: Final = _gauge(
    "jwks_age_seconds", "Since the issuer's keys were last fetched.", across="livemax"
)
BUILD: Final = _gauge(
    "build_info", "1; the release, its Python, and its encoder.", "version", "python", "encoder",
    across="livemax",
)  # fmt: skip

LOOP_LAG: Final = _histogram(
    "loop_lag_seconds", "By how much the event loop woke up late.", bounds=_SHORT_SECONDS
)
SAMPLED: Final = _gauge(
    "stages_sampled", "Of so many requests one has its stages timed.", across="livemax"
)
WORKERS: Final = _gauge("workers", "Workers that run.")
CPU: Final = _counter("cpu_seconds", "CPU time of the workers.")
MEMORY: Final = _gauge("memory_bytes", "Resident memory of the workers.")
OPEN_FILES: Final = _gauge("open_files", "Open files and sockets, of the fullest worker.",
                           across="livemax")  # fmt: skip
MOST_OPEN_FILES: Final = _gauge("open_files_limit", "Files and sockets that a worker may open.",
                                across="livemin")  # fmt: skip
MACHINE_CPU: Final = _gauge("machine_cpu_ratio", "CPU in use on this machine.", across="livemax")
MACHINE_MEMORY: Final = _gauge(
    "machine_memory_free_bytes", "Memory that is free on this machine.", across="livemin"
)
DISK_FREE: Final = _gauge(
    "disk_free_ratio", "What is free of the disk for temporary files.", across="livemin"
)

METRICS: Final = tuple(found for found in list(globals().values()) if isinstance(found, Metric))
