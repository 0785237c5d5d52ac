"""Under overload observation gives way by itself: stages are sampled, counts stay exact."""

from typing import Any

import pytest

from feedsvc.core.events import (
    CacheChange,
    CacheLookup,
    DatabaseFault,
    LiveBehind,
    LiveEnded,
    LiveLag,
    LogMaintained,
    LogTurned,
    Observers,
    PoolLease,
    RequestEnded,
    StreamParked,
)
from feedsvc.core.process_stats import (
    AuditState,
    ChangeLogState,
    ProcessStats,
    StandbyState,
)
from feedsvc.operations.metrics import declarations as d
from feedsvc.operations.metrics.cells import Cells
from feedsvc.operations.metrics.observer import Domain, MetricsObserver
from feedsvc.operations.sampling import Sampling, Turns

ROUTE = "/v1/feeds/{dataset}"


def ended(**changes: Any) -> RequestEnded:
    plain: dict[str, Any] = {
        "at": 0.0, "request_id": "x", "method": "GET", "route": ROUTE, "guarded": True,
        "status": 200, "result": "complete", "why": None, "seconds": 0.2, "first_byte": 0.1,
        "stages": {"auth": 0.001, "db": 0.05}, "address": None, "principal": None,
        "dataset": "clients", "format": "csv", "query": None, "rows": 10, "size": 1_000,
    }  # fmt: skip
    return RequestEnded(**{**plain, **changes})


class Watched:
    """Metrics, and what they have come to."""

    def __init__(self, sampling: Sampling | None = None, domain: Domain | None = None) -> None:
        self.cells = Cells()
        domain = domain or Domain([ROUTE, "/live"], ["clients"], ["csv", "json"], ["read"])
        self.metrics = MetricsObserver(self.cells, domain, sampling or Sampling(0.1, 16))
        self.series = list(self.cells.series())
        observers = Observers()
        self.metrics.observe(observers)
        self.publish = observers.publish

    def count(self, metric: d.Metric, *labels: str) -> float:
        wanted = Cells().count(metric, *labels).key
        (found,) = [count.value for count in self.cells._counts if count.key == wanted]
        return found

    def histogram(self, metric: d.Metric, *labels: str) -> tuple[float, float]:
        """Count and sum."""
        wanted = Cells().buckets(metric, *labels).sum_key
        (found,) = [h for h in self.cells._histograms if h.sum_key == wanted]
        return sum(found.counts), found.total


def test_it_sheds_when_the_loop_is_late_and_only_then() -> None:
    sampling = Sampling(0.1, 16)
    sampling.woke_late(0.09, now=1)
    assert sampling.weight == 1
    sampling.woke_late(0.11, now=2)
    assert sampling.weight == 16
    one, other = Turns(sampling), Turns(sampling)
    taken = [(one.next(), other.next()) for _ in range(32)]
    assert taken.count((16, 16)) == 2
    assert taken.count((0, 0)) == 30
    sampling.woke_late(0.0, now=6.9)
    assert sampling.weight == 16, "a moment of calm is not the end of it"
    sampling.woke_late(0.2, now=7)
    sampling.woke_late(0.0, now=11.9)
    assert sampling.weight == 16
    sampling.woke_late(0.0, now=12.1)
    assert sampling.weight == 1


@pytest.mark.parametrize(("above", "to"), [(0.0, 16), (0.1, 1)])
def test_shedding_can_be_turned_off(above: float, to: int) -> None:
    sampling = Sampling(above, to)
    sampling.woke_late(60.0, now=1)
    assert sampling.weight == 1


def test_counts_stay_exact_and_stages_right_on_average_while_it_sheds() -> None:
    sampling = Sampling(0.1, 10)
    watched = Watched(sampling)
    sampling.woke_late(1.0, now=1)
    for _ in range(100):
        watched.publish(ended())
    assert watched.count(d.REQUESTS, ROUTE, "clients", "csv", "complete") == 100
    assert watched.count(d.ROWS, "clients", "csv") == 1_000
    assert watched.count(d.BYTES, "clients", "csv") == 100_000
    assert watched.histogram(d.REQUEST_SECONDS, ROUTE, "clients") == pytest.approx((100, 20.0))
    assert watched.histogram(d.FIRST_BYTE_SECONDS, ROUTE, "clients") == pytest.approx((100, 10.0))
    assert watched.histogram(d.STAGE_SECONDS, "clients", "db") == pytest.approx((100, 5.0))


@pytest.mark.parametrize(
    ("result", "status", "outcome"),
    [
        ("complete", 200, "complete"), ("refused", 429, "refused"), ("failed", 503, "failed"),
        ("failed", 200, "broken"), ("cancelled", 499, "cancelled"),
    ],
)  # fmt: skip
def test_how_a_request_ended(result: str, status: int, outcome: str) -> None:
    watched = Watched()
    watched.publish(ended(result=result, status=status, why="internal" if status > 400 else None))
    counted = {o: watched.count(d.REQUESTS, ROUTE, "clients", "csv", o) for o in d.OUTCOMES}
    assert counted == {o: float(o == outcome) for o in d.OUTCOMES}
    assert watched.count(d.PROBLEMS, "internal") == (status > 400)


def test_unforeseen_values_make_no_series_and_break_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched()
    watched.publish(ended(route="/secret/7", dataset="clients"))
    watched.publish(ended(dataset="secret", stages={"unheard of": 1.0}))
    assert watched.count(d.REQUESTS, "unknown", "", "", "complete") == 2
    assert list(watched.cells.series()) == watched.series
    assert not caplog.records


def test_each_observation_is_counted_where_it_belongs(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    for observation in (
        CacheLookup("clients", "hit", "redis", None),
        CacheLookup("clients", "miss", None, "expired"),
        CacheChange("clients", 1),
        PoolLease("read", "busy", 2.0),
        DatabaseFault("timeout"),
        StreamParked("clients"),
        StreamParked(None),
        LogTurned(reads=False),
        LogTurned(reads=True),
    ):
        watched.publish(observation)
    assert watched.count(d.CACHE_LOOKUPS, "clients", "hit", "redis") == 1
    assert watched.count(d.CACHE_LOOKUPS, "clients", "miss", "none") == 1
    assert watched.count(d.CACHE_MISSES, "expired") == 1
    assert watched.count(d.CACHE_INVALIDATIONS, "clients") == 1
    assert watched.count(d.POOL_LEASES, "read", "busy") == 1
    assert watched.histogram(d.POOL_SECONDS, "read") == (1, 2.0)
    assert watched.count(d.DATABASE_FAULTS, "timeout") == 1
    assert watched.count(d.PARKED, "clients") == watched.count(d.PARKED, "") == 1
    assert watched.count(d.LOG_READER_LOSSES) == 1
    assert not caplog.records


def vitals(**changes: Any) -> ProcessStats:
    plain: dict[str, Any] = {
        "at": 0.0, "lags": [], "sampled": 1, "cpu_seconds": 0.0, "cpu_share": 0.5,
        "memory": 100, "open_files": 50, "most_open_files": 100, "machine_cpu_share": 0.2,
        "machine_memory": 8, "machine_memory_free": 6, "disk": 100, "disk_free": 40,
        "pools": {}, "running": 3, "leaving": False, "cached_pages": 7, "cached_bytes": 7_000,
        "evicted_pages": 0, "database_answers": True, "redis_answers": None,
        "log_reads": True, "health": {}, "kept_out": {}, "standbys": {},
        "audit": AuditState(0, 100, 0), "keys_age": None,
    }  # fmt: skip
    return ProcessStats(**{**plain, **changes})


def test_what_health_knows_is_exposed() -> None:
    domain = Domain(
        [ROUTE], ["clients", "budgets"], ["csv"], [], checks=["primary", "redis"],
        standbys=["db2:5432"], publishes=True,
    )  # fmt: skip
    seen = Watched(domain=domain)
    seen.publish(
        vitals(
            health={"primary": "down", "redis": "degraded", "http.billing": "ok"},
            kept_out={"clients": "triggers"},
            standbys={"db2:5432": StandbyState(serves=False, lag=7.5)},
            audit=AuditState(12, 100, 5),
            keys_age=4_000.0,
        )
    )
    seen.publish(
        vitals(audit=AuditState(12, 100, 8), keys_age=1.0, kept_out={"budgets": "unsuitable"})
    )
    assert seen.count(d.HEALTH, "primary") == 2
    assert seen.count(d.HEALTH, "redis") == 1
    assert seen.count(d.KEPT_OUT, "clients", "triggers") == 0
    assert seen.count(d.KEPT_OUT, "budgets", "unsuitable") == 1
    assert seen.count(d.STANDBY_UP, "db2:5432") == 0
    assert seen.count(d.STANDBY_LAG, "db2:5432") == 7.5
    assert seen.count(d.AUDIT_WAITING) == 12
    assert seen.count(d.AUDIT_DROPPED) == 8
    assert seen.count(d.KEYS_AGE) == 1.0
    (build,) = [key for key in seen.series if "feedsvc_build_info" in key]
    assert all(label in build for label in ("version", "python", "encoder"))


def test_the_change_log_is_exposed_and_without_one_it_is_empty() -> None:
    watched = Watched()
    gauges = (d.CHANGES_BYTES, d.CHANGES_OLDEST, d.CHANGES_UNSEALED, d.CHANGES_BLOCKED)
    watched.publish(vitals(log=ChangeLogState(5_000, 60.0, 2, 9.5)))
    assert [watched.count(gauge) for gauge in gauges] == [5_000, 60, 2, 9.5]
    watched.publish(vitals())
    assert [watched.count(gauge) for gauge in gauges] == [0, 0, 0, 0]
    for trimmed, is_new_epoch in ((1, False), (3, True), (0, False)):
        watched.publish(LogMaintained(trimmed, is_new_epoch))
    assert (watched.count(d.CHANGES_TRIMS), watched.count(d.CHANGES_EPOCHS)) == (4, 1)


def test_an_issuer_that_there_is_not_has_no_age() -> None:
    assert not [key for key in Watched().series if "jwks_age" in key]


def test_subscribers_are_counted_by_their_ends_and_lags() -> None:
    watched = Watched(Sampling(0.1, 10))
    for reason in ("rotation", "stalled", "stalled"):
        watched.publish(LiveEnded(reason))
    watched.publish(LiveBehind())
    watched.publish(LiveLag(0.02, 250))
    watched.publish(LiveLag(2.0, 6))
    assert watched.count(d.LIVE_ENDS, "rotation") == 1
    assert watched.count(d.LIVE_ENDS, "stalled") == 2
    assert watched.count(d.LIVE_BEHIND) == 1
    assert watched.histogram(d.LIVE_LAG) == pytest.approx((256, 17.0))


def test_a_followed_answer_is_as_quick_as_its_beginning() -> None:
    watched = Watched(Sampling(0.1, 1))
    watched.publish(ended()._replace(seconds=600.2, followed=600.0))
    assert watched.histogram(d.REQUEST_SECONDS, ROUTE, "clients") == pytest.approx((1, 0.2))
