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

_MANY: Final = (0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0)

REPEATS: Final = ("row-by-key", "page-by-filter", "small-pages")
"""Patterns of requests that one could replace."""
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
RESETS: Final = _counter("resets", "Cursors that could not be continued, by the reason.", "reason")
DELTA_CHANGES: Final = _histogram(
    "delta_changes", "Upserts and deletes of a delta.", "dataset", bounds=_MANY
)
RUNNING: Final = _gauge("requests_running", "Requests for feeds under way.")

SUBSCRIBERS: Final = _gauge("live_subscribers", "Connections that follow feeds or figures.")
SUBSCRIBERS_LIMIT: Final = _gauge(
    "live_subscribers_limit", "Connections that may follow (streams.subscribers)."
)
CATCHING_UP: Final = _gauge(
    "live_catching_up", "Subscribers that lack events which are not kept any more."
)
LIVE_COHORTS: Final = _gauge("live_cohorts", "Groups of subscribers that see the same.")
LIVE_KEPT: Final = _gauge("live_kept_bytes", "Bytes of the events that are kept for them.")
LIVE_FAILING: Final = _gauge(
    "live_failing_seconds", "For how long the change log can't be read for live feeds.",
    across="livemax",
)  # fmt: skip
LIVE_LOOKED: Final = _gauge(
    "live_looked_seconds", "Since the change log was last read for live feeds.", across="livemax"
)
LIVE_ENDS: Final = _counter("live_ends", "Live answers that ended, by the reason.", "reason")
LIVE_BEHIND: Final = _counter(
    "live_behind", "Subscribers that fell behind the events that are kept."
)
LIVE_LAG: Final = _histogram(
    "live_lag_seconds", "From a commit until its event was written, of each subscriber.",
    bounds=_SHORT_SECONDS,
)  # fmt: skip

SLOW_QUERIES: Final = _counter(
    "queries_slow", "Queries that took longer than queries.slow, one of a request.", "dataset"
)
SLOW_PLANS: Final = _counter(
    "queries_slow_plans", "Plans of slow statements: kept, not made, or not read.", "outcome"
)
REPEATED: Final = _counter(
    "repeated_requests", "Requests of one principal that one could replace.", "dataset", "pattern"
)
REPEATED_SECONDS: Final = _counter(
    "repeated_request_seconds", "Time of requests that one could replace.", "dataset", "pattern"
)

LIVE_TICKS: Final = _histogram(
    "live_read_seconds", "Reading what has changed for all that follow, in one transaction.",
    bounds=_SHORT_SECONDS,
)  # fmt: skip
LIVE_READS: Final = _counter("live_reads", "Cohorts of subscribers that changes were read for.")
LIVE_CHANGES: Final = _counter("live_changes", "Upserts and deletes in events of live feeds.")

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
    "cache_invalidations", "Changes that PostgreSQL reported.", "dataset"
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
LOG_READER_UP: Final = _gauge(
    "log_reader_up", "1 while every worker reads the change log, or need not.", across="livemin"
)
REDIS_LOSSES: Final = _counter("redis_losses", "Times that Redis stopped answering.")
REDIS_REFUSALS: Final = _counter(
    "redis_refusals", "Questions that Redis refused, such as writes while it is full."
)
LOG_READER_LOSSES: Final = _counter(
    "log_reader_losses", "Times that the change log could be read no more."
)
LOG_LOOKS: Final = _histogram(
    "log_look_seconds", "A look at the change log for the cache.", bounds=_SHORT_SECONDS
)
LOG_ROWS: Final = _counter("log_rows_read", "Rows of the change log read for the cache.")

CHANGES_BYTES: Final = _gauge(
    "changes_log_bytes", "Bytes of the change log, indexes included.", across="livemax"
)
CHANGES_OLDEST: Final = _gauge(
    "changes_log_oldest_seconds", "Since the change log's oldest window began.", across="livemax"
)
CHANGES_UNSEALED: Final = _gauge(
    "changes_unsealed_windows", "Windows of the change log that are over and not yet sealed.",
    across="livemax",
)  # fmt: skip
CHANGES_BLOCKED: Final = _gauge(
    "changes_trim_blocked_seconds",
    "The age of the oldest transaction that keeps a window of the change log from being trimmed.",
    across="livemax",
)
CHANGES_TRIMS: Final = _counter("changes_trims", "Windows of the change log that were trimmed.")
CHANGES_EPOCHS: Final = _counter(
    "changes_epochs", "Times that a crash, a promotion or a restore gave the log a new epoch."
)

VIEW_AGE: Final = _gauge(
    "view_age_seconds", "Since the state that a materialized view shows.", "view", across="livemax"
)
VIEW_SECONDS: Final = _gauge(
    "view_refresh_seconds", "Duration of a materialized view's last refresh.", "view",
    across="livemax",
)  # fmt: skip
VIEW_FAILURES: Final = _gauge(
    "view_refresh_failures", "Refreshes begun since the last that succeeded.", "view",
    across="livemax",
)  # fmt: skip

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

OF_CHANGE_LOG: Final = (CHANGES_BYTES, CHANGES_OLDEST, CHANGES_UNSEALED, CHANGES_BLOCKED)
"""As `events.ChangeLogState` has them."""
METRICS: Final = tuple(found for found in list(globals().values()) if isinstance(found, Metric))
