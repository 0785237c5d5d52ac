"""Settings of pools of connections."""

from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from feedsvc.settings.values import PositiveCount, Seconds, Section

PoolName: TypeAlias = Literal["read", "bulk", "analytics"]
"""A pool that datasets may name."""


class PoolSettings(Section):
    """One pool of connections, in each process."""

    size: PositiveCount = 4
    # How many of them exports leave to small requests; a quarter, and at least one, if left out.
    reserve: int | None = Field(None, ge=0)
    # How many may wait for a connection; whoever comes then gets 503 at once.
    most_waiting: int = Field(500, ge=0, le=1_000_000)
    # The part of the connections, rounded up, that one principal or one dataset may have at a time,
    # and of those that may wait the part that may be one principal's. 1 for no such bound.
    share: float = Field(0.75, gt=0, le=1)
    # How long a request may wait for a connection before it gets 503.
    acquire_timeout: Seconds = 2.0
    # How long PostgreSQL may take for the next rows before the request gets 504.
    query_timeout: Seconds = 15.0
    # How long it may wait for another session's lock before the request gets 503: a third of
    # query_timeout, and at most 5 s, if left out.
    lock_timeout: Seconds | None = None
    # How long a connection is kept that nobody needs.
    idle_timeout: Seconds = 300.0
    # What PostgreSQL shows of the sessions; "feedsvc " and the pool's name if left out.
    application_name: str | None = Field(None, pattern=r"^[ -~]{1,63}$")

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.reserve is not None and self.reserve >= self.size:
            raise ValueError("reserve must be less than size, for nothing would be left to exports")
        return self

    @model_validator(mode="after")
    def _gives_up_locks_first(self) -> Self:
        if self.lock_timeout is not None and self.lock_timeout >= self.query_timeout:
            raise ValueError("lock_timeout must be less than query_timeout, or it says nothing")
        return self

    def longest_lock(self) -> float:
        """How many seconds a lock is waited for."""
        return self.lock_timeout or min(5.0, self.query_timeout / 3)

    def kept_for_small(self) -> int:
        """How many connections are for small requests alone."""
        if self.reserve is not None:
            return self.reserve
        return min(self.size - 1, max(1, self.size // 4))


class ReadPool(PoolSettings):
    """One page, one row."""

    size: PositiveCount = 8


class BulkPool(PoolSettings):
    """Exports, whose clients would rather wait than be sent away."""

    size: PositiveCount = 5
    acquire_timeout: Seconds = 20.0
    query_timeout: Seconds = 60.0


class AnalyticsPool(BulkPool):
    """Heavy reading that must not take the exports' connections."""

    size: PositiveCount = 3


class WritePool(PoolSettings):
    """The service's own tables: tickets, the audit log. Whoever has no token can reach no other."""

    size: PositiveCount = 3
    # Nothing here is an export.
    reserve: int | None = Field(0, ge=0)


class Pools(Section):
    """Pools by operation, so that exports never starve small requests."""

    read: ReadPool = ReadPool()
    bulk: BulkPool = BulkPool()
    analytics: AnalyticsPool = AnalyticsPool()
    write: WritePool = WritePool()
