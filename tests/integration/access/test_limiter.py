"""Limits over a real Redis, Valkey and cluster: several workers, frozen, flushed, away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from feedsvc.access import limiter as module
from feedsvc.access.limiter import Limiter
from feedsvc.backends.redis.link import RedisLink
from feedsvc.core.principal import Principal
from feedsvc.core.problems import RateLimited
from feedsvc.settings import CallerLimits, Limits, Redis
from tests.support.redis_server import RunningRedis, redis_running

BURST = 100


@pytest.fixture(scope="module", params=["redis", "valkey", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningRedis]:
    with redis_running(request.param) as server:
        yield server


@pytest.fixture
def caller(request: pytest.FixtureRequest) -> Principal:
    """A caller of this test alone."""
    return Principal(request.node.name, "member", None, 0.0)


def limits(**member: Any) -> Limits:
    given = {"requests_per_second": 10, "burst": BURST, "streams": None, **member}
    return Limits(member=CallerLimits(**given))


PATIENCE = 5.0
"""Seconds: a Redis that a busy machine holds up counts as late, and each request for several."""


@asynccontextmanager
async def workers(
    url: str | None,
    count: int,
    settings: Limits,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[list[Limiter]]:
    """The limiters of so many workers that share a Redis, running as the service runs them."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            link = None if url is None else RedisLink(url, Redis(timeout=PATIENCE))
            if link is not None:
                await link.open()
            limiter = Limiter(settings, link, count, clock)
            running = asyncio.create_task(limiter.run())
            stack.callback(running.cancel)
            if link is not None:
                stack.push_async_callback(link.close)
            stack.push_async_callback(limiter.close)
            made.append(limiter)
        yield made


async def admitted(limiters: list[Limiter], caller: Principal, asked: int) -> int:
    """The number of so many requests, spread over the workers, that are let in."""

    async def ask(number: int) -> bool:
        try:
            await limiters[number % len(limiters)].admit(caller, "requests")
        except RateLimited:
            return False
        return True

    return sum([await ask(number) for number in range(asked)])


async def all_reported(limiters: list[Limiter]) -> None:
    """Wait until Redis has all their reports."""
    async with asyncio.timeout(60):
        for limiter in limiters:
            buckets = [limiter._bucket(key) for key in list(limiter._buckets)]
            while limiter._reports or any(b._unreported + b._reporting > 1e-9 for b in buckets):
                await asyncio.sleep(0.01)


async def test_one_worker_admits_exactly_the_burst(server: RunningRedis, caller: Principal) -> None:
    async with workers(server.url, 1, limits(requests_per_second=0.1)) as made:
        assert await admitted(made, caller, 3 * BURST) == BURST
        with pytest.raises(RateLimited) as refused:
            await made[0].admit(caller, "requests")
        headers = refused.value.headers
        assert headers["RateLimit"].startswith('"requests";r=0;t=')
        assert headers["RateLimit-Policy"] == '"requests";q=100;w=1000'
        assert 1 <= int(headers["Retry-After"]) <= 10
        other = Principal("another tenant", "member", None, 0.0)
        assert (await made[0].admit(other, "requests"))["RateLimit"] == '"requests";r=99;t=10'
        assert await made[0].admit(caller, "tickets"), "tickets are counted apart"


@pytest.mark.parametrize("together", [True, False])
async def test_all_workers_hold_to_one_limit(
    server: RunningRedis, caller: Principal, together: bool
) -> None:
    async with workers(server.url, 4, limits(requests_per_second=0.1)) as made:
        if together:
            batches = await asyncio.gather(*(admitted([w], caller, 2 * BURST) for w in made))
            total = sum(batches)
        else:
            total = await admitted(made, caller, 8 * BURST)
        assert BURST - 5 <= total <= BURST * 1.5
        await all_reported(made)
        assert await admitted(made, caller, 40) == 0, "the workers did not hear of each other"


async def test_a_limit_that_another_worker_used_up_is_known_within_a_moment(
    server: RunningRedis, caller: Principal
) -> None:
    async with workers(server.url, 2, limits(requests_per_second=0.1)) as (first, second):
        assert await admitted([first], caller, BURST) == BURST
        await all_reported([first])
        assert await admitted([second], caller, 100) <= BURST / 4 + 1


async def test_the_rate_lets_more_in_as_time_goes_by(
    server: RunningRedis, caller: Principal
) -> None:
    began, let_in = time.monotonic(), 0
    async with workers(server.url, 2, limits(requests_per_second=100, burst=10)) as made:
        async with asyncio.timeout(60):
            while let_in < 60:
                let_in += await admitted(made, caller, 4)
                await asyncio.sleep(0.005)
        assert let_in <= 1.5 * 10 + 100 * (time.monotonic() - began) + 4


async def test_a_worker_alone_lets_in_what_its_clock_says(caller: Principal) -> None:
    now = 1_000.0
    given = limits(requests_per_second=100, burst=10)
    async with workers(None, 1, given, lambda: now) as made:
        assert await admitted(made, caller, 30) == 10
        for seconds, more in ((0.009, 0), (0.001, 1), (0.03, 3), (0.05, 5), (60.0, 10)):
            now += seconds
            assert await admitted(made, caller, 30) == more


async def test_a_frozen_redis_costs_a_moment_once_and_limits_still_bind(
    server: RunningRedis, caller: Principal
) -> None:
    async with workers(server.url, 2, limits(requests_per_second=0.1)) as made:
        await admitted(made, caller, 10)
        with server.frozen():
            waited, let_in = 0, 0
            for number in range(300):
                link = made[number % 2]._link
                assert link is not None
                was_away = link.away
                let_in += await admitted([made[number % 2]], caller, 1)
                waited += link.away and not was_away
            assert waited <= 2, "each worker is late once at most"
            assert BURST * 0.5 <= let_in <= BURST * 1.5
        async with asyncio.timeout(60):
            while any(m._link is None or m._link.away for m in made):
                await asyncio.sleep(0.05)
        assert await admitted(made, caller, 50) == 0, "what was used meanwhile is forgotten"


async def test_while_redis_is_full_limits_bind_by_each_workers_share(
    server: RunningRedis, caller: Principal
) -> None:
    async with workers(server.url, 2, limits(requests_per_second=0.1)) as made:
        with server.full():
            assert BURST * 0.5 <= await admitted(made, caller, 4 * BURST) <= BURST * 1.5
            async with asyncio.timeout(60):  # a late answer makes it away, a refusal never does
                while any(worker._link is None or worker._link.away for worker in made):
                    await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            while worker_refused(made):
                await asyncio.sleep(0.05)
        await all_reported(made)
        assert await admitted(made, caller, 50) == 0, "what was used meanwhile is forgotten"


def worker_refused(made: list[Limiter]) -> bool:
    return any(worker._link is None or not worker._link.keeps for worker in made)


async def test_without_redis_each_worker_admits_its_share(caller: Principal) -> None:
    async with workers(None, 4, limits(requests_per_second=0.1)) as made:
        assert BURST - 4 <= await admitted(made, caller, 4 * BURST) <= BURST


async def test_streams_at_once_are_counted_over_all_workers(
    server: RunningRedis, caller: Principal
) -> None:
    async with workers(server.url, 2, limits(streams=3)) as (first, second):
        async with first.stream(caller), second.stream(caller), second.stream(caller):
            for worker in (first, second):
                with pytest.raises(RateLimited) as refused:
                    async with worker.stream(caller):
                        pass
                assert refused.value.headers["RateLimit-Policy"] == '"streams";q=3;qu="streams"'
        await all_reported([first, second])
        async with first.stream(caller), first.stream(caller), first.stream(caller):
            pass


async def test_streams_of_a_worker_that_died_lapse(
    server: RunningRedis, caller: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RENEW_EVERY", 0.1)
    async with workers(server.url, 1, limits(streams=2)) as (living,), server.client() as redis:
        key = living._key(caller.identity, "streams")
        link = RedisLink(server.url, Redis(timeout=PATIENCE))
        await link.open()
        dead = Limiter(limits(streams=2), link, 1)
        lost = dead.stream(caller)
        await lost.__aenter__()
        async with living.stream(caller):
            with pytest.raises(RateLimited):
                await living.stream(caller).__aenter__()
            (orphan,) = dead._leases[caller.identity]
            await renewed(redis, key, living._leases[caller.identity])
            await redis.zadd(key, {orphan: 1})  # it lapsed in 1970
            async with one_more(living, caller):
                with pytest.raises(RateLimited):
                    await living.stream(caller).__aenter__()
        await lost.__aexit__(None, None, None)
        await dead.close()
        await link.close()


async def renewed(redis: Any, key: str, leases: set[str]) -> None:
    """Wait until each of these leases in Redis was prolonged, and none of the others.

    One that was refused may come and go meanwhile, where Redis answered late.
    """
    before = dict(await redis.zrange(key, 0, -1, withscores=True))
    async with asyncio.timeout(60):
        while True:
            now = dict(await redis.zrange(key, 0, -1, withscores=True))
            longer = {n.decode() for n, until in now.items() if until > before.get(n, until)}
            if longer == leases:
                return
            assert longer < leases
            await asyncio.sleep(0.05)


@asynccontextmanager
async def one_more(limiter: Limiter, caller: Principal) -> AsyncIterator[None]:
    """A stream, as soon as there may be one."""
    async with asyncio.timeout(60):
        while True:
            lease = limiter.stream(caller)
            try:
                await lease.__aenter__()
            except RateLimited:
                await asyncio.sleep(0.05)
            else:
                break
    try:
        yield
    finally:
        await lease.__aexit__(None, None, None)


async def test_streams_that_outlive_their_lease_count_on(
    server: RunningRedis, caller: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RENEW_EVERY", 0.1)
    async with workers(server.url, 2, limits(streams=2)) as (first, second):
        async with first.stream(caller), first.stream(caller), server.client() as redis:
            key = first._key(caller.identity, "streams")
            for _ in range(3):
                await renewed(redis, key, first._leases[caller.identity])
                with pytest.raises(RateLimited):
                    await second.stream(caller).__aenter__()
        async with one_more(second, caller):
            pass


async def test_without_redis_streams_are_counted_by_each_worker(caller: Principal) -> None:
    async with (
        workers(None, 2, limits(streams=4)) as (first, _),
        first.stream(caller),
        first.stream(caller),
    ):
        with pytest.raises(RateLimited):
            await first.stream(caller).__aenter__()


@pytest.mark.parametrize(
    ("setting", "unit"), [("rows_per_hour", "rows"), ("bytes_per_hour", "content-bytes")]
)
async def test_an_hours_rows_and_bytes_are_counted_over_all_workers(
    server: RunningRedis, caller: Principal, setting: str, unit: str
) -> None:
    def used(count: int) -> tuple[int, int]:
        return (count, 1) if unit == "rows" else (1, count)

    async with workers(server.url, 2, limits(**{setting: 1_000})) as (first, second):
        first.charge(caller, *used(600))
        second.charge(caller, *used(400))
        await all_reported([first, second])
        for worker in (first, second):
            with pytest.raises(RateLimited) as refused:
                await worker.admit(caller, "requests")
            policy = f'"{unit}";q=1000;w=3600;qu="{unit}"'
            assert refused.value.headers["RateLimit-Policy"] == policy
            assert 1 <= int(refused.value.headers["Retry-After"]) <= 4
        with pytest.raises(RateLimited):
            first.charge(caller, *used(10))


async def test_tickets_have_a_limit_of_their_own(caller: Principal) -> None:
    now = 1_000.0
    given = limits(tickets_per_second=0.1, tickets_burst=3)
    async with workers(None, 1, given, lambda: now) as (worker,):
        for _ in range(3):
            await worker.admit(caller, "tickets")
        with pytest.raises(RateLimited) as refused:
            await worker.admit(caller, "tickets")
        assert refused.value.headers["RateLimit-Policy"] == '"tickets";q=3;w=30'
        assert refused.value.headers["Retry-After"] == "10"
        await worker.admit(caller, "requests")
        now += 10
        await worker.admit(caller, "tickets")


async def test_nothing_of_a_principal_is_in_redis(server: RunningRedis) -> None:
    caller = Principal("canary-tenant", "member", "canary-client", 0.0, "canary-subject")
    async with workers(server.url, 1, limits()) as (worker,), worker.stream(caller):
        await worker.admit(caller, "requests")
        await all_reported([worker])
        found = server.keys("*")
        assert any(caller.identity.encode() in key for key in found)
        assert not any(b"canary" in key for key in found)


def test_principals_that_differ_anywhere_are_not_the_same() -> None:
    base = Principal("a", "member", None, 0.0)
    others = [
        Principal("b", "member", None, 0.0),
        Principal("a", "admin", None, 0.0),
        Principal("a", "member", "None", 0.0),
        Principal("a", "member", None, 0.0, "s"),
    ]
    assert len({p.identity for p in (base, *others)}) == 5
    assert base.identity == Principal("a", "member", None, 99.0).identity
