"""Settings of pools of connections."""

from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from feedsvc.settings.values import PositiveCount, Seconds, Section

PoolName: TypeAlias = Literal["read", "bulk", "analytics"]
"""A pool that datasets may name."""


class PoolSettings(Section):
    """One pool of connections, in each process."""

    size: PositiveCount = 4
    """Connections of each process."""
    reserve: int | None = Field(None, ge=0)
    """Connections of these that exports leave to small requests; a quarter, and at least one, if
    left out.
    """
    most_waiting: int = Field(500, ge=0, le=1_000_000)
    """Requests that may wait for a connection; more get 503 at once."""
    share: float = Field(0.75, gt=0, le=1)
    """The part of the connections, rounded up, that one principal or one dataset may have at a
    time, and of the waiting requests the part of one principal. 1 for no such bound.
    """
    acquire_timeout: Seconds = 2.0
    """Seconds that a request may wait for a connection; then the answer is 503."""
    query_timeout: Seconds = 15.0
    """Seconds for the next rows of PostgreSQL; then the answer is 504."""
    lock_timeout: Seconds | None = None
    """Seconds that another session's lock is waited for; then the answer is 503. If left out: a
    third of `query_timeout`, and at most 5 s.
    """
    idle_timeout: Seconds = 300.0
    """Seconds that an unused connection is kept."""
    application_name: str | None = Field(None, pattern=r"^[ -~]{1,63}$")
    """The name of the sessions in `pg_stat_activity`; `feedsvc ` and the pool's name if left out.
    """

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
        """The seconds that a lock is waited for."""
        return self.lock_timeout or min(5.0, self.query_timeout / 3)

    def session(self) -> dict[str, str]:
        """PostgreSQL's settings for its sessions, beside those of every session."""
        return {"lock_timeout": f"{max(1, round(self.longest_lock() * 1e3))}ms"}

    def kept_for_small(self) -> int:
        """The number of connections for small requests alone."""
        if self.reserve is not None:
            return self.reserve
        return min(self.size - 1, max(1, self.size // 4))

    def slow_after(self) -> float | None:
        """The seconds beyond which a query is slow, where that is the pool's to say."""
        return None


class FeedPool(PoolSettings):
    """One that feeds are read by."""

    slow: float | None = Field(None, gt=0, le=3_600)
    """Seconds beyond which a query of this pool is logged, and its plan is kept; `queries.slow` if
    left out.
    """

    def slow_after(self) -> float | None:
        """The pool's own bound."""
        return self.slow


class LogPool(FeedPool):
    """One that reads the change log, again and again, and a few rows of it each time."""

    def session(self) -> dict[str, str]:
        """The same, without parallel workers: they take longer to begin than these rows do."""
        return super().session() | {"max_parallel_workers_per_gather": "0"}


class ReadPool(FeedPool):
    """Pages and single rows."""

    size: PositiveCount = 8


class BulkPool(FeedPool):
    """Exports, whose clients would rather wait than be refused."""

    size: PositiveCount = 5
    acquire_timeout: Seconds = 20.0
    query_timeout: Seconds = 60.0


class AnalyticsPool(BulkPool):
    """Heavy reading that must not take the exports' connections."""

    size: PositiveCount = 3


class WritePool(PoolSettings):
    """The service's own tables: tickets, figures. Requests without a token reach no other pool."""

    size: PositiveCount = 3
    # Nothing here is an export.
    reserve: int | None = Field(0, ge=0)


class Pools(Section):
    """Pools by operation, so that exports never starve small requests."""

    read: ReadPool = ReadPool()
    bulk: BulkPool = BulkPool()
    analytics: AnalyticsPool = AnalyticsPool()
    write: WritePool = WritePool()
