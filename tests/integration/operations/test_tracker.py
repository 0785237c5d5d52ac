"""The past of all workers: merged, rolled up, trimmed, kept while PostgreSQL is away."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.core.events import Observers, RequestEnded
from feedsvc.core.problems import NotSetUp
from feedsvc.core.process_stats import (
    AuditState,
    ChangeLogState,
    PoolState,
    ProcessStats,
    StandbyState,
)
from feedsvc.operations.metrics.cells import Cells
from feedsvc.operations.metrics.observer import Domain, MetricsObserver
from feedsvc.operations.performance import live
from feedsvc.operations.performance.past import PastRange
from feedsvc.operations.performance.store import HOUR, KEPT_HOURS, MOST_WAITING, Store
from feedsvc.operations.performance.tracker import Tracker
from feedsvc.operations.sampling import Sampling
from feedsvc.server.shared_folder import worker_folder
from feedsvc.settings import Database, Settings
from tests.integration.conftest import NewDatabase
from tests.support.proxy import Fault, proxied
from tests.support.recorded import RANKS, SECONDS, exact
from tests.support.servers import as_login, with_database, world_of_its_own

ROUTE = "/v1/feeds/{dataset}"
DOMAIN = Domain(
    [ROUTE], ["clients", "budgets"], ["csv"], ["read"], checks=["primary"], standbys=["db2:5432"]
)


def ended(seconds: float, **changes: Any) -> RequestEnded:
    plain: dict[str, Any] = {
        "at": 0.0, "request_id": "x", "method": "GET", "route": ROUTE, "guarded": True,
        "status": 200, "result": "complete", "why": None, "seconds": seconds,
        "first_byte": seconds / 2, "stages": {"db": seconds / 4}, "address": None,
        "principal": None, "dataset": "clients", "format": "csv", "query": None, "rows": 10,
        "size": 1_000,
    }  # fmt: skip
    return RequestEnded(**{**plain, **changes})


def vitals(at: float, **changes: Any) -> ProcessStats:
    plain: dict[str, Any] = {
        "at": at, "lags": [0.001], "sampled": 1, "cpu_seconds": 0.0, "cpu_share": 0.5,
        "memory": 100 << 20, "open_files": 50, "most_open_files": 1_000, "machine_cpu_share": 0.2,
        "machine_memory": 8 << 30, "machine_memory_free": 6 << 30, "disk": 100, "disk_free": 40,
        "pools": {"read": PoolState(8, 4, 2, 1)}, "running": 3, "leaving": False, "cached_pages": 7,
        "cached_bytes": 7_000, "evicted_pages": 0, "database_answers": True,
        "redis_answers": None, "log_reads": True,
        "health": {"primary": "ok"}, "kept_out": {},
        "standbys": {"db2:5432": StandbyState(True, 0.5)},
        "audit": AuditState(50, 100, 0), "keys_age": 90.0, "log": ChangeLogState(9, 50.0, 1, 7.0),
    }  # fmt: skip
    return ProcessStats(**{**plain, **changes})


class Worker:
    """A worker's tracker, whose time is the test's."""

    def __init__(self, store: Store, folder: Path | None = None, slot: int = 0) -> None:
        self.store = store
        observers = Observers()
        metrics = MetricsObserver(Cells(), DOMAIN, Sampling(0, 1))
        metrics.observe(observers)
        self.tracker = Tracker(store, Sampling(0, 1), metrics.tracked(), folder, slot)
        self.tracker.observe(observers)
        self.publish = observers.publish

    def lives(self, at: float, **changes: Any) -> None:
        self.publish(vitals(at, **changes))


@asynccontextmanager
async def store_on(url: str) -> AsyncIterator[Store]:
    pools = PoolSet(Settings(database=Database.model_validate({"url": url})))
    await pools.open()
    try:
        yield Store(pools["write"])
    finally:
        await pools.close(1.0)


@pytest.fixture
async def database(admin_url: str) -> AsyncIterator[str]:
    """A database that no service writes to."""
    async with world_of_its_own(admin_url) as url:
        yield url


@pytest.fixture
async def admin(database: str, admin_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(with_database(admin_url, database.rpartition("/")[2]))
    yield connection
    await connection.close()


def parted(values: Sequence[float], parts: int) -> list[Sequence[float]]:
    chance = random.Random(5)
    mixed = chance.sample(values, len(values))
    return [mixed[number::parts] for number in range(parts)]


async def test_percentiles_over_minutes_and_workers_are_near_the_exact_ones(database: str) -> None:
    now = time.time()
    async with store_on(database) as store:
        for part in parted(SECONDS, 3):
            worker = Worker(store)
            for minute, durations in enumerate(parted(part, 10)):
                worker.lives(now - 3_000 + minute * 60)
                for seconds in durations:
                    worker.publish(ended(seconds))
            await worker.tracker.close()
        report = await Worker(store).tracker.report("1h")
    assert report["lacking"] is None
    (clients,) = report["endpoints"]
    assert (clients["method"], clients["route"], clients["dataset"]) == ("GET", ROUTE, "clients")
    assert clients["count"] == len(SECONDS) == report["totals"]["count"]
    assert clients["rows"] == 10 * len(SECONDS)
    for name, rank in zip(("p50_ms", "p95_ms", "p99_ms"), RANKS, strict=True):
        right = exact(SECONDS, rank) * 1e3
        assert clients[name] == pytest.approx(right, rel=0.02)
        assert clients["first_byte"][name] == pytest.approx(right / 2, rel=0.02)
        assert report["database"]["query"][name] == pytest.approx(right / 4, rel=0.02)
    assert clients["mean_ms"] == pytest.approx(sum(SECONDS) / len(SECONDS) * 1e3, rel=0.001)


async def test_minutes_become_hours_without_a_change_in_what_is_reported(
    database: str, admin: asyncpg.Connection
) -> None:
    hour = time.time() // HOUR * HOUR
    async with store_on(database) as store:
        for part in parted(SECONDS, 2):
            worker = Worker(store)
            for number, durations in enumerate(parted(part, 12)):
                worker.lives(hour - 10 * HOUR + number * 900)
                for seconds in durations:
                    worker.publish(ended(seconds))
            await worker.tracker.close()
        before = await Worker(store).tracker.report("24h")
        assert await admin.fetchval("SELECT count(*) FROM feedsvc.performance") == 24
        async with store_on(database) as another:
            together = 0
            while done := sum(await asyncio.gather(store.tidy(), another.tidy())):
                together += done
        assert together == 24, "none is put together twice"
        kept = await admin.fetch("SELECT at, seconds FROM feedsvc.performance ORDER BY at")
        assert [(row["at"].timestamp(), row["seconds"]) for row in kept] == [
            (hour - n * HOUR, HOUR) for n in (10, 9, 8)
        ]
        after = await Worker(store).tracker.report("24h")
    for each in (before, after):
        del each["to"], each["now"], each["totals"]["rate"], each["endpoints"][0]["rate"]
    assert after == before


async def test_what_is_kept_of_the_past_is_what_reading_it_anew_would_give(database: str) -> None:
    """While time goes on, and minutes come, late ones as well, and become hours."""
    chance, now = random.Random(3), time.time()
    async with store_on(database) as store:
        kept = {seconds: PastRange(store, seconds) for seconds in (HOUR, 24 * HOUR)}
        for _ in range(12):
            worker = Worker(store)
            for _ in range(chance.randrange(6)):
                worker.lives(now - chance.choice((60, 7_000, 20_000, 150_000)) * chance.random())
                for _ in range(chance.randrange(1, 4)):
                    worker.publish(ended(chance.random()))
            await worker.tracker.close()
            if chance.random() < 0.4:
                await store.tidy()
            for seconds, past in kept.items():
                begins = (now - seconds) // 60 * 60
                found, anew = await past.read(begins), await PastRange(store, seconds).read(begins)
                assert found.ids == anew.ids
                for one, other in ((found.figures, anew.figures), (found.before, anew.before)):
                    assert one.counts == pytest.approx(other.counts)
                    assert one.peaks == other.peaks
                    assert {key: sketch.bins for key, sketch in one.sketches.items()} == {
                        key: sketch.bins for key, sketch in other.sketches.items()
                    }
            now += chance.choice((1, 60, 600))


async def test_a_minute_that_comes_late_joins_its_hour(
    database: str, admin: asyncpg.Connection
) -> None:
    hour = time.time() // HOUR * HOUR
    async with store_on(database) as store:
        for seconds in (0.1, 0.2):
            worker = Worker(store)
            worker.lives(hour - 10 * HOUR)
            worker.publish(ended(seconds))
            await worker.tracker.close()
            assert await store.tidy() == 1
        assert (await Worker(store).tracker.report("24h"))["totals"]["count"] == 2


async def test_minutes_past_every_report_are_trimmed(
    database: str, admin: asyncpg.Connection
) -> None:
    async with store_on(database) as store:
        for age in (KEPT_HOURS.total_seconds() + 60, KEPT_HOURS.total_seconds() - HOUR):
            worker = Worker(store)
            worker.lives(time.time() - age)
            worker.publish(ended(0.1))
            await worker.tracker.close()
        while await store.tidy():
            pass
    assert await admin.fetchval("SELECT count(*) FROM feedsvc.performance") == 1


async def test_the_trend_is_against_the_range_before(database: str) -> None:
    now = time.time()
    async with store_on(database) as store:
        worker = Worker(store)
        worker.lives(now - 5_400)
        for _ in range(100):
            worker.publish(ended(0.1))
        worker.lives(now - 1_800)
        for number in range(150):
            failed = number < 30
            worker.publish(
                ended(0.2, result="failed", status=200 if number % 2 else 503)
                if failed
                else ended(0.2)
            )
        worker.publish(ended(0.1, dataset="budgets"))
        await worker.tracker.close()
        report = await Worker(store).tracker.report("1h")
    clients, budgets = report["endpoints"]
    assert clients["outcomes"]["failed"] == clients["outcomes"]["broken"] == 15
    assert (clients["errors"], clients["error_rate"]) == (30, 0.2)
    assert clients["trend"]["rate"] == pytest.approx(0.5, abs=0.03)
    assert clients["trend"]["p95"] == pytest.approx(1.0, abs=0.03)
    assert clients["trend"]["error_rate"] == 0.2
    assert budgets["trend"] is None
    assert [each["dataset"] for each in report["slowest"]] == ["clients"]


async def test_the_minute_under_way_of_every_worker_is_counted_once(
    database: str, admin: asyncpg.Connection
) -> None:
    """At each step of its way from a worker's memory over its file into PostgreSQL."""
    minute = time.time() // 60 * 60
    with worker_folder() as folder:
        assert folder is not None
        async with store_on(database) as one_store, store_on(database) as other_store:
            one, other = Worker(one_store, folder, 0), Worker(other_store, folder, 1)

            async def counted() -> int:
                assert folder is not None
                fresh = Tracker(one_store, Sampling(0, 1), {}, folder, 0)
                return int((await fresh.report("1h"))["totals"]["count"])

            for worker in (one, other):
                worker.lives(minute - 60)
                for _ in range(5):
                    worker.publish(ended(0.1))
                worker.lives(minute - 0.5)
            assert await counted() == 10, "from the files"
            for worker in (one, other):
                worker.lives(minute + 0.5)
            assert await counted() == 10, "closed, which the files tell at once"
            for worker in (one, other):
                worker.publish(ended(0.1))
                worker.lives(minute + 3)
            assert await counted() == 12, "closed, and not written"
            await one_store.outbox.write()
            assert await counted() == 12, "one is written"
            await other_store.outbox.write()
            assert await counted() == 12, "both are"
            assert await admin.fetchval("SELECT count(*) FROM feedsvc.performance") == 2
            present = (await one.tracker.report("1h"))["now"]
            assert (present["workers"], present["running"]) == (2, 6)
            assert present["pools"]["read"] == {"limit": 16, "open": 8, "busy": 4, "waiting": 2}
            (folder / "live_1.now").write_text("{")
            assert len(live.present(folder)) == 1, "what can't be read is nobody's present"


async def test_minutes_wait_for_postgresql_and_not_without_end(
    database: str, admin: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time() // 60 * 60
    port = urlsplit(database).port
    assert port is not None
    async with (
        proxied(port, Fault(cut_after=0)) as proxy,
        store_on(database.replace(f":{port}/", f":{proxy.port}/")) as store,
    ):
        worker = Worker(store)
        for minute in range(MOST_WAITING + 21):
            worker.lives(now - 60 * (MOST_WAITING + 20 - minute))
            worker.publish(ended(0.1))
        assert not await store.outbox.write()
        assert len(store.outbox.waiting) == MOST_WAITING
        report = await worker.tracker.report("1h")
        assert report["lacking"] is not None
        passed = round((report["from"] - (now - 3_600)) / 60)  # minutes since `now` was taken
        assert report["totals"]["count"] == 61 - passed, "what it still has is reported"
        proxy.fault = Fault()
        assert await store.outbox.write()
    assert not store.outbox.waiting
    assert await admin.fetchval("SELECT count(*) FROM feedsvc.performance") == MOST_WAITING
    assert f"{MOST_WAITING} minutes wait and 20 were dropped" in caplog.text


async def test_a_minute_that_is_sent_twice_is_written_once(
    database: str, admin: asyncpg.Connection
) -> None:
    async with store_on(database) as store:
        worker = Worker(store)
        worker.lives(time.time() - 60)
        worker.lives(time.time())
        kept = list(store.outbox.waiting)
        assert await store.outbox.write()
        store.outbox.waiting.extend(kept)
        assert await store.outbox.write()
    assert await admin.fetchval("SELECT count(*) FROM feedsvc.performance") == 1


async def test_the_login_may_add_read_and_delete_and_change_nothing(database: str) -> None:
    login = await asyncpg.connect(database)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await login.execute("UPDATE feedsvc.performance SET seconds = 1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await login.execute("TRUNCATE feedsvc.performance")
    await login.close()


async def test_a_row_that_can_not_be_read_is_passed_over(
    database: str, admin: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await admin.execute(
        "INSERT INTO feedsvc.performance VALUES"
        " (gen_random_uuid(), now(), 60, 'junk'),"
        " (gen_random_uuid(), now() - interval '9 hours', 60, 'junk')"
    )
    async with store_on(database) as store:
        worker = Worker(store)
        worker.lives(time.time())
        worker.publish(ended(0.1))
        assert (await worker.tracker.report("24h"))["totals"]["count"] == 1
        assert await store.tidy() == 1
    assert "can't be read" in caplog.text


async def test_a_database_that_was_never_migrated(new_database: NewDatabase) -> None:
    async with new_database() as url, store_on(as_login(url)) as store:
        worker = Worker(store)
        worker.lives(time.time())
        worker.lives(time.time() + 60)
        assert not await store.outbox.write()
        with pytest.raises(NotSetUp):
            await worker.tracker.report("1h")
        await worker.tracker.close()
