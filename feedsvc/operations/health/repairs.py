"""The list of repairs, and their rate limit. A new one is a function and a line here."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from feedsvc.access.bucket import Bucket, Policy
from feedsvc.core.logs import redacted
from feedsvc.core.problems import Problem, RateLimited
from feedsvc.operations.health import repair_as_owner, repair_worker
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import RepairName, RepairResult

logger = logging.getLogger(__name__)

DEADLINE: Final = 6.0
"""Seconds for one repair; they are made one after the other."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair, or its dry run. Raises Problem and asyncpg's errors.

    `once`: it concerns the database, so one worker makes it for all.
    """

    name: RepairName
    mend: Callable[[HealthContext, bool], Awaitable[RepairResult]]
    once: bool = False


REPAIRS: Final = (
    Repair("connections", repair_worker.connections),
    Repair("log_reader", repair_worker.log_reader),
    Repair("breakers", repair_worker.breakers),
    Repair("sessions", repair_worker.sessions, once=True),
    Repair("indexes", repair_as_owner.indexes, once=True),
    Repair("statistics", repair_as_owner.statistics, once=True),
)
NAMES: Final[tuple[str, ...]] = tuple(repair.name for repair in REPAIRS)


class Repairs:
    """The repairs of one worker."""

    def __init__(self, parts: HealthContext) -> None:
        self._parts = parts
        often = parts.settings.health.repairs_per_minute
        self._policy = Policy("repairs", often, often / 60)
        self._bucket = Bucket()

    def admit(self) -> None:
        """Count a request for repairs. Raises RateLimited."""
        now, cost = time.monotonic(), self._policy.seconds(1)
        excess = self._bucket.excess(cost, self._policy, now)
        if excess > 0:
            raise RateLimited(
                "Repairs are asked for too often; look at the health before the next one.",
                retry_after=math.ceil(excess),
                standing=self._policy.refusal(self._bucket.debt(now)),
            )
        self._bucket.add(cost, now)

    async def run(self, names: Collection[str], *, dry: bool) -> list[dict[str, Any]]:
        """Make these repairs one after the other. The outcome of each, as plain values."""
        return [await self._made(repair, dry=dry) for repair in REPAIRS if repair.name in names]

    async def _made(self, repair: Repair, *, dry: bool) -> dict[str, Any]:
        try:
            async with asyncio.timeout(DEADLINE):
                outcome, what = await repair.mend(self._parts, dry)
        except TimeoutError:
            outcome, what = "failed", "No answer in time."
        except (Problem, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            outcome, what = "failed", f"It failed ({redacted(error)})."
        if not dry:
            logger.warning("repair %s: %s: %s", repair.name, outcome, what)
        return {"name": repair.name, "outcome": outcome, "what": what, "worker": os.getpid()}
