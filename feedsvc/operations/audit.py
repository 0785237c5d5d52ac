"""The audit log: each guarded request with its caller, address, query, rows and outcome.

Entries are written in the background, in batches, into a table that the service can add to and
neither read nor change. While PostgreSQL is slow or away they wait, up to a number; entries beyond
it are dropped and counted, in the log and in the table.
"""

import math
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import orjson

from feedsvc.backends.postgres.outbox import Outbox, OutboxTable
from feedsvc.backends.postgres.pool import Pool
from feedsvc.core import identifiers
from feedsvc.core.events import RequestEnded
from feedsvc.core.process_stats import AuditState
from feedsvc.operations.audit_refusals import Entry, Refusals
from feedsvc.settings import Audit

_WRITE: Final = (files("feedsvc.operations") / "audit.sql").read_text()
_BATCH: Final = 500
_LAST_CHANCE: Final = 5.0  # seconds for the last entries on an orderly stop


class AuditLog:
    """An observer of requests that writes them down."""

    def __init__(self, pool: Pool, settings: Audit) -> None:
        self.outbox: Outbox[RequestEnded | Entry] = Outbox(
            pool,
            OutboxTable(
                "audit", "entries", _WRITE, _packed, settings.most_waiting, _BATCH,
                on_dropped=self._dropped, on_taken=self._taken,
            ),
        )  # fmt: skip
        self._settings = settings
        self._without_token = 0
        self._refusals = Refusals()

    def observe(self, ended: RequestEnded) -> None:
        """Add the entry of a request to a guarded route, or drop it where too many wait."""
        if not ended.guarded or not self._settings.enabled:
            return
        if not self._refusals.is_counted(ended):
            self._add(ended)

    def state(self) -> AuditState:
        """Entries that wait, how many may, and how many were dropped since the start."""
        return AuditState(
            len(self.outbox.waiting), self._settings.most_waiting, self.outbox.dropped_ever
        )

    async def run(self) -> None:
        """Write until cancelled."""
        await self.outbox.run(lambda: self._add_refusals(time.time()))

    async def close(self) -> None:
        """Write what is left: an orderly stop loses nothing that PostgreSQL takes."""
        self._add_refusals(math.inf)
        await self.outbox.close(_LAST_CHANCE)

    def _add(self, entry: RequestEnded | Entry) -> None:
        """Add an entry. Those without a token may be endless: they get a quarter of the room."""
        without_token = _is_without_token(entry)
        if without_token and self._without_token >= self._settings.most_waiting // 4:
            self.outbox.drop()
        elif self.outbox.add(entry):
            self._without_token += without_token

    def _add_refusals(self, now: float) -> None:
        for entry in self._refusals.over(now):
            self._add(entry)

    def _dropped(self, count: int) -> Entry:
        self._without_token += 1
        return {
            "id": identifiers.new_uuid(),
            "at": time.time(),
            "role": None,
            "result": "dropped",
            "rows": count,
        }

    def _taken(self, batch: Sequence[RequestEnded | Entry]) -> None:
        self._without_token -= sum(map(_is_without_token, batch))


def _is_without_token(entry: RequestEnded | Entry) -> bool:
    """Return whether no caller is known; entries that are counts have none."""
    return not isinstance(entry, RequestEnded) or entry.principal is None


def _packed(batch: Sequence[RequestEnded | Entry]) -> tuple[str]:
    plain = [_entry(each) if isinstance(each, RequestEnded) else each for each in batch]
    return (orjson.dumps(plain).decode(),)


def _entry(ended: RequestEnded) -> Entry:
    caller = ended.principal
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
        "tenant": caller.tenant if caller else None,
        "role": caller.role if caller else None,
        "client": caller.client if caller else None,
        "subject": caller.subject if caller else None,
        "dataset": ended.dataset,
        "format": ended.format,
        "query": None if ended.query is None else _storable(ended.query),
        "rows": ended.rows,
        "bytes": ended.size,
    }


def _storable(text: str) -> str:
    """The text without what PostgreSQL's `text` cannot hold: NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
