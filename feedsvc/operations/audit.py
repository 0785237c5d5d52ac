"""The audit log: who read what, when, from where, how much of it, and what was refused.

Entries are written in the background, in batches, into a table that the service can add to and
neither read nor change. While PostgreSQL is slow or away they wait, up to a number; what is dropped
beyond it is counted, and said in the log and in the table.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import deque
from contextlib import suppress
from importlib.resources import files
from typing import Final

import orjson

from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Pool
from feedsvc.core import identifiers
from feedsvc.core.events import AuditState, RequestEnded
from feedsvc.core.logs import redacted
from feedsvc.core.problems import NotSetUp, Problem, Timeout, Unavailable
from feedsvc.operations.audit_refusals import Entry, Refusals
from feedsvc.settings import Audit

logger = logging.getLogger(__name__)

_WRITE: Final = (files("feedsvc.operations") / "audit.sql").read_text()
_BATCH: Final = 500
_EVERY: Final = 0.5  # seconds
_LONGEST_PAUSE: Final = 5.0
_SAY_EVERY: Final = 60.0  # seconds between lines about one and the same lack
_LAST_CHANCE: Final = 5.0  # seconds that the last entries get on an orderly stop


class AuditLog:
    """Observes requests and writes them down."""

    def __init__(self, pool: Pool, settings: Audit) -> None:
        self._pool = pool
        self._settings = settings
        self._waiting: deque[RequestEnded | Entry] = deque()
        self._unnamed = 0
        self._dropped = 0
        self._dropped_ever = 0
        self._said_at = -_SAY_EVERY
        self._set_up = True
        self._said_not_set_up = False
        self._refusals = Refusals()

    def observe(self, ended: RequestEnded) -> None:
        """Notes a request to a guarded route, or drops it where too many wait already."""
        if not ended.guarded or not self._settings.enabled:
            return
        if not self._refusals.is_counted(ended):
            self._add(ended, unnamed=ended.principal is None)

    def _add(self, entry: RequestEnded | Entry, *, unnamed: bool) -> None:
        """Adds an entry. Callers without a token are endless: they push out none who have one."""
        full = len(self._waiting) >= self._settings.most_waiting
        if full or (unnamed and self._unnamed >= self._settings.most_waiting // 4):
            self._dropped += 1
            self._dropped_ever += 1
            return
        self._unnamed += unnamed
        self._waiting.append(entry)

    def state(self) -> AuditState:
        """How much waits, and what was lost."""
        return AuditState(len(self._waiting), self._settings.most_waiting, self._dropped_ever)

    async def run(self) -> None:
        """Writes until it is cancelled."""
        pause = _EVERY
        while True:
            await asyncio.sleep(pause)
            self._add_refusals(time.time())
            well = await self._write_all()
            pause = _EVERY if well else min(pause * 2, _LONGEST_PAUSE)

    async def close(self) -> None:
        """Writes what is left, for an orderly stop loses nothing that PostgreSQL will take."""
        self._add_refusals(math.inf)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CHANCE):
                await self._write_until_empty()
        if lost := len(self._waiting) + self._dropped:
            logger.error("audit: %d entries are lost, for PostgreSQL did not take them", lost)

    def _add_refusals(self, now: float) -> None:
        for entry in self._refusals.over(now):
            self._add(entry, unnamed=True)

    async def _write_until_empty(self) -> None:
        for pause in itertools.repeat(_EVERY):
            if await self._write_all() or not self._set_up:
                return
            await asyncio.sleep(pause)

    async def _write_all(self) -> bool:
        """Writes what waits now; False where PostgreSQL does not take it."""
        while True:
            self._note_what_was_dropped()
            if not self._waiting:
                return True
            batch = self._next_batch()
            try:
                async with write_transaction(self._pool) as connection:
                    await connection.execute(_WRITE, orjson.dumps(batch).decode())
                self._set_up, self._said_not_set_up = True, False
            except (Unavailable, Timeout) as problem:
                self._set_up = not isinstance(problem, NotSetUp)
                self._say(problem)
                return False
            except Problem as problem:
                # It would be refused for ever, and hold up all that comes behind it.
                cause = redacted(problem.__cause__ or problem)
                logger.error("audit: %d entries were refused: %s", len(batch), cause)  # noqa: TRY400
            for entry in batch:
                self._waiting.popleft()
                self._unnamed -= entry["role"] is None

    def _next_batch(self) -> list[Entry]:
        """The entries that waited longest. They keep their ids, should they be written again."""
        batch = []
        for position in range(min(_BATCH, len(self._waiting))):
            waiting = self._waiting[position]
            if isinstance(waiting, RequestEnded):
                waiting = self._waiting[position] = _entry(waiting)
            batch.append(waiting)
        return batch

    def _note_what_was_dropped(self) -> None:
        """Says so in the table, as soon as there is room for saying it."""
        if self._dropped and len(self._waiting) < self._settings.most_waiting:
            entry = {"id": identifiers.new_uuid(), "at": time.time(), "role": None}
            entry |= {"result": "dropped", "rows": self._dropped}
            logger.warning("audit: %d entries were dropped", self._dropped)
            self._dropped = 0
            self._unnamed += 1
            self._waiting.append(entry)

    def _say(self, problem: Problem) -> None:
        """Says what is lacking now and then; a table that there is not once, for it stays so."""
        if isinstance(problem, NotSetUp):
            is_due, self._said_not_set_up = not self._said_not_set_up, True
        else:
            is_due = time.monotonic() - self._said_at >= _SAY_EVERY
        if is_due:
            self._said_at = time.monotonic()
            what = "audit: %d entries wait and %d were dropped: %s"
            logger.warning(what, len(self._waiting), self._dropped, problem.detail)


def _entry(ended: RequestEnded) -> Entry:
    who = ended.principal
    return {
        "id": identifiers.new_uuid(),
        "at": ended.at,
        "request_id": ended.request_id,
        "method": ended.method,
        "route": ended.route,
        "status": ended.status,
        "result": ended.result,
        "why": ended.why,
        "elapsed_ms": ended.elapsed_ms,
        "address": ended.address,
        "tenant": who.tenant if who else None,
        "role": who.role if who else None,
        "client": who.client if who else None,
        "subject": who.subject if who else None,
        "dataset": ended.dataset,
        "format": ended.format,
        "query": None if ended.query is None else _storable(ended.query),
        "rows": ended.rows,
        "bytes": ended.size,
    }


def _storable(text: str) -> str:
    """The text as PostgreSQL can hold it."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
