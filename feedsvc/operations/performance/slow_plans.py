"""Plans of statements that were slow, read behind the requests and kept for a while."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.core.events import Observers, QuerySlow, SlowPlanRead
from feedsvc.core.problems import Problem
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds.statement_names import sql_of
from feedsvc.operations.performance.plan_reader import SETTINGS, PlanReader, judgement

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 16
_MOST_KEPT: Final = 50
_MOST_BYTES: Final = 64 << 10
_FRESH: Final = 600.0  # seconds for which a kept plan is not read again
_PAUSE: Final = 5.0  # seconds between two plans, at least
_SHARE: Final = 0.005  # of the time, which plans may take in the long run
_AHEAD: Final = 1.0  # seconds of plans that may come before their time
_LOST: Final = (Problem, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class PlanningTime:
    """The time that plans take, held to 0.5 % of all time, and a second in advance."""

    def __init__(self) -> None:
        self._owed, self._at = 0.0, 0.0

    def pause(self, took: float, now: float) -> float:
        """Seconds to pause behind a plan that took so long, and is made `now` (monotonic)."""
        self._owed = max(0.0, self._owed - (now - self._at) * _SHARE) + took
        self._at = now
        return max(_PAUSE, (self._owed - _AHEAD) / _SHARE)


class SlowPlans:
    """This worker's plans of slow statements, at most 50 of at most 64 KiB each.

    Without values: a statement is known by its name, and planned from its declaration. All workers
    of a service share them by files in `folder`, where there is one.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        reader: PlanReader,
        shared: tuple[Path | None, int],
        observers: Observers,
    ) -> None:
        """`shared` is the workers' folder, and this worker's slot."""
        self._datasets = datasets
        self._reader = reader
        self._observers = observers
        folder, slot = shared
        self._folder = folder
        self._file = None if folder is None else folder / f"slow_{slot}.plans"
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._kept: dict[str, dict[str, Any]] = {}

    def observe(self, slow: QuerySlow) -> None:
        """Note a slow statement, whose plan is read later."""
        if not slow.statement:
            return
        kept = self._kept.get(slow.statement)
        if kept is not None:
            kept["count"] += 1
            kept["last_at"] = round(slow.at, 3)
            kept["longest_ms"] = max(kept["longest_ms"], round(slow.seconds * 1e3, 3))
            if time.time() - kept["read_at"] < _FRESH:
                return
        elif slow.statement in self._waiting:
            return
        elif len(self._waiting) >= _MOST_WAITING:
            return  # shed: it comes again if it goes on being slow
        else:
            self._kept[slow.statement] = {
                "name": slow.statement, "count": 1, "last_at": round(slow.at, 3),
                "longest_ms": round(slow.seconds * 1e3, 3), "read_at": 0.0, **judgement(None),
            }  # fmt: skip
        self._waiting[slow.statement] = None
        self._wake.set()

    async def run(self) -> None:
        """Read plans of slow statements, one after the other, until cancelled."""
        time_taken = PlanningTime()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                name, began = next(iter(self._waiting)), time.monotonic()
                await self._read(name)
                self._waiting.pop(name, None)
                if self._file is not None:
                    plain = orjson.dumps(list(self._kept.values()))
                    await asyncio.to_thread(_write, self._file, plain)
                now = time.monotonic()
                await asyncio.sleep(time_taken.pause(now - began, now))

    async def all_workers(self) -> list[dict[str, Any]]:
        """Slow statements with their plans, those of the longest run first; JSON's values."""
        found = [] if self._folder is None else await asyncio.to_thread(_of_others, self._folder)
        own = [dict(each) for each in self._kept.values()]
        mine = None if self._file is None else self._file.name
        listed = [each for name, entries in found if name != mine for each in entries]
        return _merged([*own, *listed])[:_MOST_KEPT]

    async def _read(self, name: str) -> None:
        statement = WorkloadStatement(
            name, sql_of(name, self._datasets) or "", "feedsvc", 0, 0.0, 0.0, None, None, SETTINGS
        )
        made = judgement(None)
        try:
            if statement.sql:
                made = judgement(await self._reader.read(statement))
        except _LOST:
            made["unplanned"] = "Its plan could not be read."
            self._observers.publish(SlowPlanRead("failed"))
        else:
            self._observers.publish(SlowPlanRead("kept" if made["plan"] else "unplanned"))
        if len(orjson.dumps(made)) > _MOST_BYTES:
            made |= {"plan": None, "findings": [], "unplanned": "Its plan is too long to be kept."}
        self._kept[name] |= {**made, "read_at": round(time.time(), 3)}
        while len(self._kept) > _MOST_KEPT:
            others = (each for each in self._kept.values() if each["name"] not in self._waiting)
            del self._kept[min(others, key=lambda each: each["last_at"])["name"]]


def _write(file: Path, plain: bytes) -> None:
    """Write a worker's file anew; a reader finds the old one or the new one."""
    unfinished = file.with_suffix(".new")
    try:
        unfinished.write_bytes(plain)
        unfinished.replace(file)
    except OSError as error:
        logger.warning("plans of slow statements can't be shared: %s", error.strerror)


def _of_others(folder: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    found = []
    for file in folder.glob("slow_*.plans"):
        try:
            found.append((file.name, orjson.loads(file.read_bytes())))
        except (OSError, ValueError):
            logger.warning("plans of another worker can't be read: %s", file.name)
    return found


def _merged(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry for each name, with the latest plan."""
    made: dict[str, dict[str, Any]] = {}
    for each in entries:
        other = made.get(each["name"])
        if other is None:
            made[each["name"]] = each
            continue
        newer = max(each, other, key=lambda one: one["read_at"])
        made[each["name"]] = {
            **newer,
            "count": each["count"] + other["count"],
            "last_at": max(each["last_at"], other["last_at"]),
            "longest_ms": max(each["longest_ms"], other["longest_ms"]),
        }
    return sorted(made.values(), key=lambda each: -each["longest_ms"])
