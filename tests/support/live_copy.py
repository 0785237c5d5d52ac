"""A copy of feeds, kept by a live answer alone: what any client does that knows the events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.support import sse

DEADLINE: Final = 60.0
Rows = dict[str, dict[str, Any]]
"""Rows by their keys as JSON."""
_MOST_TRIES: Final = 200


class StreamEndedError(Exception):
    """The answer was over; `is_whole` tells whether it ended properly.

    `status` is not 200 where there was none: 503 of the service, 502 of a proxy before it.
    """

    def __init__(self, *, is_whole: bool, status: int = 200) -> None:
        super().__init__(f"the answer is over ({status})")
        self.is_whole = is_whole
        self.status = status


def pause_behind(ended: Exception) -> float:
    """Seconds until a client comes back: EventSource waits for `retry`, a test only a moment.

    A service that is too busy refuses for a while.
    """
    return 0.5 if isinstance(ended, StreamEndedError) and ended.status == 503 else 0.02


@dataclass
class LiveCopy:
    """Rows of some feeds, by the feed's name, "" in a stream of one feed alone.

    `keys` names the columns of each feed's key. A new snapshot takes the place of the rows at its
    first `sync`, so that the copy is never empty in between.
    """

    http: aiohttp.ClientSession
    path: str
    who: Mapping[str, str]
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"": ("id",)})
    given: Mapping[str, str] = field(default_factory=dict)
    feeds: dict[str, Rows] = field(default_factory=dict)
    last_id: str = ""
    is_synced: bool = False
    events: list[sse.Event] = field(default_factory=list)
    reset_reasons: list[str] = field(default_factory=list)
    end_reasons: list[str] = field(default_factory=list)
    snapshots: int = 0
    connections: int = 0
    told: set[tuple[str, str]] = field(default_factory=set)
    """Feed and key of all that was ever named."""
    on_state: Callable[[LiveCopy], None] | None = None
    """Called whenever what is held is the state of the last id."""
    _staged: dict[str, Rows] | None = None
    _body: Any = None
    _rest: bytes = b""

    @property
    def rows(self) -> Rows:
        """The rows of the only feed."""
        return self.feeds.get("", {})

    @property
    def cursor(self) -> str:
        """The cursor of the last id."""
        return self.last_id.partition(":")[0]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[LiveCopy]:
        """One answer, from the last id on."""
        sent = {"Last-Event-ID": self.last_id} if self.last_id else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=DEADLINE)
        self.connections += 1
        async with self.http.get(
            self.path, params=self.given, headers={**self.who, **sent}, timeout=timeout
        ) as response:
            if response.status in (502, 503):
                raise StreamEndedError(is_whole=True, status=response.status)
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"] == "text/event-stream"
            assert response.headers["Cache-Control"] == "no-store"
            self._body, self._rest = response.content, b""
            yield self

    async def next(self) -> sse.Event:
        """The next event, applied. Raises StreamEndedError."""
        while b"\n\n" not in self._rest:
            try:
                more = await self._body.readany()
            except aiohttp.ClientError as error:
                raise StreamEndedError(is_whole=False) from error
            if not more:
                raise StreamEndedError(is_whole=True)
            self._rest += more
        block, _, self._rest = self._rest.partition(b"\n\n")
        found = sse.parse(block + b"\n\n").events
        if not found:
            return await self.next()
        (event,) = found
        self.events.append(event)
        self._apply(event)
        is_state = event.type in {"sync", "change"} and ":" not in self.last_id
        if is_state and self.is_synced and self.on_state is not None:
            self.on_state(self)
        return event

    async def until(self, condition: Callable[[], bool]) -> None:
        """Follow until this holds, through as many answers as that takes."""
        async with asyncio.timeout(DEADLINE):
            for _ in range(_MOST_TRIES):
                try:
                    async with self.connected():
                        while not condition():
                            await self.next()
                        return
                except (StreamEndedError, aiohttp.ClientError) as ended:
                    await asyncio.sleep(pause_behind(ended))
            raise AssertionError("too many answers")

    async def until_in(self, condition: Callable[[], bool]) -> None:
        """The same within the present answer."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await self.next()

    def _apply(self, event: sse.Event) -> None:
        data = json.loads(event.data)
        if event.last_id:
            self.last_id = event.last_id
        match event.type:
            case "open":
                self._open(data)
            case "rows" | "change":
                named = data if isinstance(data, dict) else {"feed": "", event.type: data}
                for row in named.get("rows", ()):
                    self._held(named["feed"])[self._key(named["feed"], row)] = row
                for change in named.get("changes") or named.get("change", ()):
                    self._change(named["feed"], change)
            case "sync":
                assert data["cursor"] == event.last_id
                if self._staged is not None:
                    self.feeds, self._staged = self._staged, None
                self.is_synced = True
            case "reset":
                self.reset_reasons.append(data["reason"])
                self._staged, self.is_synced = None, False
            case "end":
                self.end_reasons.append(data["reason"])

    def _open(self, data: dict[str, Any]) -> None:
        place = self.last_id.partition(":")[2]
        if place == "0":
            self._staged, self.is_synced = {}, False
            self.snapshots += 1
        self._held(data.get("feed", ""))

    def _held(self, feed: str) -> Rows:
        return (self.feeds if self._staged is None else self._staged).setdefault(feed, {})

    def _change(self, feed: str, change: dict[str, Any]) -> None:
        held = self._held(feed)
        if change["op"] == "upsert":
            held[self._key(feed, change["row"])] = change["row"]
        else:
            held.pop(self._key(feed, change["key"]), None)
        self.told.add((feed, self._key(feed, change.get("row") or change["key"])))

    def _key(self, feed: str, row: Mapping[str, Any]) -> str:
        return json.dumps([row[name] for name in self.keys[feed]])
