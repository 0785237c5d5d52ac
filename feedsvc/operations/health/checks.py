"""The list of checks. A new one is a function and a line here, and a section of the runbook."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from feedsvc.operations.health import (
    check_database,
    check_links,
    check_log,
    check_process,
    check_upkeep,
    check_workers,
)
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import CheckResult
from feedsvc.settings import Health

_OFTEN: Final = 0.75  # seconds
_SELDOM: Final = 300.0  # seconds
_READ_LATELY: Final = 10.0  # seconds


def _is_log_idle(parts: HealthContext) -> bool:
    """Return whether no request needed the change log lately, nor a live feed does."""
    return parts.changes.read_ago > _READ_LATELY and not parts.tail.cohorts


def _is_never_idle(_: HealthContext) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Check:
    """A check of one component: run `every` seconds, and on request once it is `fresh` seconds old.

    `section` is the runbook's. The service is down where a vital one is, and degraded where another
    is. `of_others`: the component is no part of this worker. While `is_idle` holds, the check runs
    each `resting` seconds, so that a service without requests asks PostgreSQL for next to nothing.
    """

    name: str
    look: Callable[[HealthContext], Awaitable[CheckResult]]
    section: str
    every: float = _OFTEN
    fresh: float = 1.0
    vital: bool = False
    of_others: bool = False
    is_idle: Callable[[HealthContext], bool] = _is_never_idle
    resting: float = 60.0

    def is_due(self, parts: HealthContext, ago: float) -> bool:
        """Return whether to run it, so many seconds after its last run began."""
        return ago >= self.every and (ago >= self.resting or not self.is_idle(parts))


CHECKS: Final = (
    Check("primary", check_database.primary, "primary", vital=True),
    Check("connections", check_database.connections, "connections"),
    Check("transactions", check_database.transactions, "transactions"),
    Check("locks", check_database.locks, "locks", every=1.0),
    Check("replicas", check_database.replicas, "replicas"),
    Check("indexes", check_database.indexes, "indexes", every=15.0),
    Check("statistics", check_database.statistics, "statistics", every=60.0),
    Check("pools", check_process.pools, "pools"),
    Check("redis", check_links.redis, "redis"),
    Check("log_reader", check_links.log_reader, "log_reader", every=15.0, is_idle=_is_log_idle),
    Check("triggers", check_links.triggers, "triggers"),
    Check("changes", check_log.changes, "changes", every=15.0, is_idle=_is_log_idle),
    Check("refreshes", check_upkeep.refreshes, "refreshes", every=15.0),
    Check("upkeep", check_upkeep.upkeep, "upkeep", every=_SELDOM, fresh=_SELDOM),
    Check("live", check_log.live, "live"),
    Check("keys", check_links.keys, "keys", vital=True),
    Check("loop", check_process.loop, "loop"),
    Check("clock", check_database.clock, "clock"),
    Check("disk", check_process.disk, "disk"),
    Check("files", check_process.files, "files"),
    Check("workers", check_workers.workers, "workers", every=5.0, of_others=True),
)


def checks_of(settings: Health) -> tuple[Check, ...]:
    """The checks above, and one for each address of the settings."""
    extra = (
        Check(
            f"http.{name}",
            partial(check_links.http, given),
            "http",
            every=given.every,
            fresh=given.every,
        )
        for name, given in settings.http.items()
    )
    return (*CHECKS, *extra)
