"""The health monitor: runs every check in the background, and answers from the last results."""

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from feedsvc.core.logs import redacted
from feedsvc.operations.health.checks import Check
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import CheckResult, HealthState, worst

logger = logging.getLogger(__name__)

_TICK: Final = 0.25  # seconds
_PATIENCE: Final = 0.03  # seconds that a request waits for checks under way
DEADLINE: Final = 0.8
"""Seconds that one check may take."""

_UNSEEN: Final = CheckResult("degraded", "Not checked yet.")


@dataclass(slots=True)
class _Watched:
    """One check, its last result, and the run under way."""

    check: Check
    finding: CheckResult = _UNSEEN
    took: float = 0.0
    at: float | None = None
    looking: asyncio.Task[None] | None = None
    began: float = -float("inf")

    def age(self, now: float) -> float:
        """Seconds since the last run ended."""
        return float("inf") if self.at is None else now - self.at


class HealthMonitor:
    """The state of one worker and of its dependencies. Times are monotonic."""

    def __init__(self, parts: HealthContext, checks: Sequence[Check]) -> None:
        self.parts = parts
        self._runbook = parts.settings.health.runbook
        self._watched = [_Watched(check) for check in checks]

    async def run(self) -> NoReturn:
        """Run due checks until cancelled."""
        on_time = asyncio.create_task(self.parts.loop.run())
        try:
            while True:
                await asyncio.sleep(_TICK)
                now = time.monotonic()
                self._look_at(w for w in self._watched if w.check.is_due(self.parts, now - w.began))
        finally:
            looking = [watched.looking for watched in self._watched if watched.looking is not None]
            for task in (on_time, *looking):
                task.cancel()
            await asyncio.gather(on_time, *looking, return_exceptions=True)

    async def freshen(self) -> None:
        """Re-run the checks whose result is stale, and wait for them 30 ms at most."""
        now = time.monotonic()
        looking = self._look_at(w for w in self._watched if w.age(now) > w.check.fresh)
        if looking:
            await asyncio.wait(looking, timeout=_PATIENCE)

    @property
    def state(self) -> HealthState:
        """The state of the whole."""
        return worst(map(_weight, self._watched))

    def own_state(self) -> HealthState:
        """The state of this worker alone.

        A check that has not run yet, since the worker has just started, does not count.
        """
        return worst(map(_weight, self._own()))

    def states(self) -> dict[str, HealthState]:
        """The state of each component that was checked."""
        return {w.check.name: w.finding.state for w in self._watched if w.at is not None}

    def faults(self) -> dict[str, str]:
        """The sentences of components that are not ok, of this worker alone."""
        return {w.check.name: w.finding.what for w in self._own() if w.finding.state != "ok"}

    def report(self) -> dict[str, Any]:
        """All last results as plain values."""
        now = time.monotonic()
        return {
            "state": self.state,
            "worker": os.getpid(),
            "checks": [self._described(watched, now) for watched in self._watched],
        }

    def _own(self) -> Iterator[_Watched]:
        return (w for w in self._watched if w.at is not None and not w.check.of_others)

    def _described(self, watched: _Watched, now: float) -> dict[str, Any]:
        state, what, figures, repairs = watched.finding
        return {
            "name": watched.check.name,
            "state": state,
            "what": what,
            "latency_ms": round(watched.took * 1e3, 2),
            "age_ms": None if watched.at is None else round((now - watched.at) * 1e3),
            "figures": figures,
            "repairs": repairs,
            "runbook": f"{self._runbook}#health-{watched.check.section}",
        }

    def _look_at(self, wanted: Iterable[_Watched]) -> list[asyncio.Task[None]]:
        """Start those that are not running. The tasks of all of them."""
        looking = []
        for watched in wanted:
            if watched.looking is None or watched.looking.done():
                watched.began = time.monotonic()
                watched.looking = asyncio.create_task(self._look(watched))
            looking.append(watched.looking)
        return looking

    async def _look(self, watched: _Watched) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE):
                found = await watched.check.look(self.parts)
        except TimeoutError:
            found = CheckResult("down", f"No answer within {DEADLINE} s.")
        except Exception as error:
            logger.exception("the check %s failed", watched.check.name)
            found = CheckResult("down", f"The check failed ({redacted(error)}).")
        before = "ok" if watched.at is None else watched.finding.state
        watched.at = time.monotonic()
        watched.took = watched.at - began
        watched.finding = found
        if found.state != before:
            log = logger.info if found.state == "ok" else logger.warning
            log("health: %s is %s: %s", watched.check.name, found.state, found.what)


def _weight(watched: _Watched) -> HealthState:
    """The check's state as the whole counts it."""
    state = watched.finding.state
    return "degraded" if state == "down" and not watched.check.vital else state
