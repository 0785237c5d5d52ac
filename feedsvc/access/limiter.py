"""Limits of requests, streams, rows and bytes for each principal.

Far from its limit a caller is admitted by this process alone, which reports to Redis afterwards;
near it, Redis is asked first. So most requests cost no trip, and all workers together still hold
to one limit: what they don't know of each other is at most half a burst. While Redis is away each
worker admits its own share.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias

from feedsvc.access.bucket import Bucket, Policy
from feedsvc.backends.redis.link import RedisAwayError, RedisLink
from feedsvc.backends.redis.transport import Command
from feedsvc.core import identifiers
from feedsvc.core.bounded_mapping import RecentMapping
from feedsvc.core.principal import Principal
from feedsvc.core.problems import RateLimited
from feedsvc.settings import CallerLimits, Limits

RouteClass: TypeAlias = Literal["requests", "tickets"]
RateLimitHeaders: TypeAlias = Mapping[str, str]
"""The headers RateLimit and RateLimit-Policy."""
_LimitKey: TypeAlias = tuple[str, str]  # a caller, and the policy's name

_SCRIPT: Final = (files("feedsvc.access") / "limiter.lua").read_text()
_REPORT_EVERY: Final = 0.05  # seconds
_LEASE: Final = 30.0  # seconds after which the streams of a worker that is gone count no more
_RENEW_EVERY: Final = 10.0
_MOST_CALLERS: Final = 50_000
_MOST_REPORTED: Final = 500  # at a time: Redis's answer to all of them has one deadline
_STREAM_RETRY: Final = 5  # seconds; the end of a stream is unknown
_HOUR: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """The policies of one kind of principal."""

    requests: Policy
    tickets: Policy
    quotas: tuple[Policy, ...]
    streams: int | None

    def policy(self, route: RouteClass) -> Policy:
        """The policy of requests for this kind of route."""
        return self.tickets if route == "tickets" else self.requests

    @classmethod
    def of(cls, given: CallerLimits) -> "Allowance":
        """The policies that the settings come to."""
        quotas = (("rows", given.rows_per_hour), ("content-bytes", given.bytes_per_hour))
        return cls(
            requests=Policy("requests", given.burst, given.requests_per_second),
            tickets=Policy("tickets", given.tickets_burst, given.tickets_per_second),
            quotas=tuple(Policy(unit, n, n / _HOUR, unit) for unit, n in quotas if n is not None),
            streams=given.streams,
        )


class Limiter:
    """Every caller's use of its limits, by this worker and, through Redis, by all workers."""

    def __init__(
        self,
        settings: Limits,
        link: RedisLink | None,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._link = link
        self._workers = workers
        self._allowances = {
            "client": Allowance.of(settings.client),
            "member": Allowance.of(settings.member),
            "admin": Allowance.of(settings.admin),
        }
        self._buckets: RecentMapping[_LimitKey, Bucket] = RecentMapping(_MOST_CALLERS)
        self._unreported: dict[_LimitKey, Bucket] = {}
        self._leases: dict[str, set[str]] = {}
        self._reports: set[asyncio.Task[None]] = set()

    async def admit(self, principal: Principal, route: RouteClass) -> RateLimitHeaders:
        """Count a request; the headers with what is left of the caller's limits.

        Raises RateLimited.
        """
        standing = self.admit_at_once(principal, route)
        if standing is not None:
            return standing
        allowance, caller = self._allowance(principal), principal.identity
        for quota in allowance.quotas:
            bucket = self._bucket((caller, quota.name))
            await self._ask(caller, quota, bucket, 0.0)
            self._refuse_above(bucket, quota, quota.seconds(1))
        policy = allowance.policy(route)
        key, cost = (caller, policy.name), policy.seconds(1)
        bucket, weight = self._bucket(key), self._weight()
        self._refuse_above(bucket, policy, cost * weight)
        near = self._is_near(bucket.debt(self._clock()), policy, cost)
        if not (near and await self._ask(caller, policy, bucket, cost)):
            self._owe(key, bucket, cost * weight, self._clock())
        return policy.standing(bucket.debt(self._clock()))

    def admit_at_once(self, principal: Principal, route: RouteClass) -> RateLimitHeaders | None:
        """As `admit` without asking Redis; None, and nothing is counted, where that is needed."""
        if not self._settings.enabled:
            return {}
        allowance = self._allowance(principal)
        if allowance.quotas:
            return None
        policy = allowance.policy(route)
        key, cost, now = (principal.identity, policy.name), policy.seconds(1), self._clock()
        bucket = self._bucket(key)
        if self._is_near(bucket.debt(now), policy, cost):
            return None
        self._owe(key, bucket, cost * self._weight(), now)
        return policy.standing(bucket.debt(now))

    def charge(self, principal: Principal, rows: int, size: int) -> None:
        """Count what was sent. Raises RateLimited where the hour's quota is used up."""
        if not self._settings.enabled:
            return
        caller = principal.identity
        for quota in self._allowance(principal).quotas:
            bucket = self._bucket((caller, quota.name))
            spent = quota.seconds(rows if quota.unit == "rows" else size)
            self._owe((caller, quota.name), bucket, spent, self._clock())
            self._refuse_above(bucket, quota, 0.0)

    @asynccontextmanager
    async def stream(self, principal: Principal) -> AsyncIterator[None]:
        """Count a stream for as long as the block runs. Raises RateLimited."""
        most = self._allowance(principal).streams
        if most is None or not self._settings.enabled:
            yield
            return
        caller, name = principal.identity, identifiers.new_hex()
        leases = self._leases.setdefault(caller, set())
        if len(leases) >= most:
            raise self._too_many_streams(most)
        leases.add(name)  # before the await, so that no other stream takes the same place
        try:
            await self._lease(caller, most, name)
            yield
        finally:
            self._end(caller, name)

    def hold(self, principal: Principal) -> Callable[[], None]:
        """Count a stream that goes on where the block that counted it ends; what ends it.

        Nothing is refused: it is the same stream.
        """
        if self._allowance(principal).streams is None or not self._settings.enabled:
            return _end_nothing
        caller, name = principal.identity, identifiers.new_hex()
        self._leases.setdefault(caller, set()).add(name)
        self._begin(self._hold(caller, name))
        return partial(self._end, caller, name)

    async def run(self) -> None:
        """Report to Redis what was used and which streams run, until cancelled."""
        renewed = self._clock()
        while True:
            await asyncio.sleep(_REPORT_EVERY)
            if self._link is None or not self._link.keeps:
                continue
            await self._report_all()
            if self._clock() - renewed >= _RENEW_EVERY:
                renewed = self._clock()
                await self._renew()

    async def close(self) -> None:
        """Report to Redis what is left."""
        if self._reports:
            await asyncio.wait(self._reports)
        await self._report_all()

    def _is_near(self, debt: float, policy: Policy, cost: float) -> bool:
        """Return whether all workers together might be at the limit, as far as this one knows."""
        return debt + cost > policy.most / 2 / self._workers

    def _weight(self) -> int:
        """Without Redis each worker has its share: a request weighs as much as there are."""
        return 1 if self._link is not None and self._link.keeps else self._workers

    def _allowance(self, principal: Principal) -> Allowance:
        return self._allowances["client" if principal.client is not None else principal.role]

    def _bucket(self, key: _LimitKey) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = Bucket()
            self._buckets.put(key, bucket, 1)
        return bucket

    def _owe(self, key: _LimitKey, bucket: Bucket, seconds: float, now: float) -> None:
        bucket.add(seconds, now)
        if self._link is not None and len(self._unreported) < _MOST_CALLERS:
            self._unreported[key] = bucket

    def _refuse_above(self, bucket: Bucket, policy: Policy, seconds: float) -> None:
        """Raises RateLimited where a further debt of so many seconds would be too much."""
        if bucket.excess(seconds, policy, self._clock()) > 0:
            raise _refusal(bucket, policy, seconds, self._clock())

    async def _ask(self, caller: str, policy: Policy, bucket: Bucket, cost: float) -> bool:
        """Let Redis decide and remember; False where it can't. Raises RateLimited."""
        owed = bucket.begin_report(self._clock())
        key = self._key(caller, policy.name)
        question: list[str | int] = ["owe", _micro(owed), _micro(cost), _micro(policy.most)]
        try:
            granted, debt = await self._call(key, question)
        except BaseException as error:  # a cancelled request has reported nothing, either
            bucket.retract_report(owed)
            if isinstance(error, RedisAwayError):
                return False
            raise
        bucket.confirm_report(owed, debt / 1e6, self._clock())
        if not granted:
            raise _refusal(bucket, policy, cost, self._clock())
        return True

    async def _report_all(self) -> None:
        """Report every debt that Redis does not know of, and take over what it knows."""
        unreported, self._unreported = self._unreported, {}
        if self._link is None or not unreported:
            return
        left = list(unreported.items())
        while left:
            some, left = left[:_MOST_REPORTED], left[_MOST_REPORTED:]
            if not await self._report(self._link, some):
                self._unreported = dict(left) | self._unreported
                return

    async def _report(self, link: RedisLink, debts: Sequence[tuple[_LimitKey, Bucket]]) -> bool:
        """Report some debts; whether Redis took them."""
        now = self._clock()
        owed = [bucket.begin_report(now) for _, bucket in debts]
        commands: list[Command] = [
            ("EVAL", _SCRIPT, 1, self._key(*key), "owe", _micro(seconds), 0, 0)
            for (key, _), seconds in zip(debts, owed, strict=True)
        ]
        answers: Sequence[Any]
        try:
            answers = await link.write_all(commands)
        except RedisAwayError as away:
            answers = [away] * len(debts)
        now, arrived = self._clock(), True
        for (key, bucket), seconds, answer in zip(debts, owed, answers, strict=True):
            try:
                _, debt = _numbers(answer)
            except RedisAwayError:
                bucket.retract_report(seconds)
                self._unreported.setdefault(key, bucket)
                arrived = False
            else:
                bucket.confirm_report(seconds, debt / 1e6, now)
        return arrived

    async def _lease(self, caller: str, most: int, name: str) -> None:
        share = math.ceil(most / self._workers)
        if self._link is not None:
            try:
                granted, _ = await self._call(
                    self._key(caller, "streams"), ["lease", most, _micro(_LEASE), name]
                )
            except RedisAwayError:
                pass
            else:
                if not granted:
                    raise self._too_many_streams(most)
                return
        if len(self._leases[caller]) > share:
            raise self._too_many_streams(most)

    def _end(self, caller: str, name: str) -> None:
        """Count the stream no more."""
        leases = self._leases.get(caller, set())
        leases.discard(name)
        if not leases:
            self._leases.pop(caller, None)
        self._begin(self._release(caller, name))

    def _begin(self, report: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(report)
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _renew(self) -> None:
        for caller, names in list(self._leases.items()):
            try:
                await self._keep(caller, names)
            except RedisAwayError:
                return

    async def _hold(self, caller: str, name: str) -> None:
        with suppress(RedisAwayError):  # it is renewed with the others
            await self._keep(caller, [name])

    async def _keep(self, caller: str, names: Iterable[str]) -> None:
        # No more than what runs already: no stream is refused here.
        most = 10**9
        await self._call(self._key(caller, "streams"), ["lease", most, _micro(_LEASE), *names])

    async def _release(self, caller: str, name: str) -> None:
        if self._link is None:
            return
        try:
            await self._link.ask("ZREM", self._key(caller, "streams"), name)
        except RedisAwayError:
            return  # it lapses by itself

    async def _call(self, key: str, arguments: Sequence[str | int]) -> tuple[int, int]:
        if self._link is None:
            raise RedisAwayError
        return _numbers(await self._link.write("EVAL", _SCRIPT, 1, key, *arguments))

    def _key(self, caller: str, name: str) -> str:
        # The braces keep one caller's keys together on a cluster.
        return f"{self._link.prefix if self._link else ''}:limit:{{{caller}}}:{name}"

    @staticmethod
    def _too_many_streams(most: int) -> RateLimited:
        return RateLimited(
            f"This token has {most} concurrent streams already.",
            retry_after=_STREAM_RETRY,
            standing={
                "RateLimit": f'"streams";r=0;t={_STREAM_RETRY}',
                "RateLimit-Policy": f'"streams";q={most};qu="streams"',
            },
        )


def _end_nothing() -> None:
    """End a stream that was not counted."""


def _refusal(bucket: Bucket, policy: Policy, seconds: float, now: float) -> RateLimited:
    return RateLimited(
        f"This token's limit of {policy.name} is used up.",
        retry_after=math.ceil(max(0.0, bucket.excess(seconds, policy, now))),
        standing=policy.refusal(bucket.debt(now)),
    )


def _numbers(answer: object) -> tuple[int, int]:
    """The script's two numbers. Raises RedisAwayError for any other answer."""
    match answer:
        case [int(granted), int(number)]:
            return granted, number
        case RedisAwayError():
            raise answer
        case _:
            raise RedisAwayError


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
