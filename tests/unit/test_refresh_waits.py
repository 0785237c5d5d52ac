"""The wait for another session's refresh, by a clock that jumps."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from pydantic import SecretStr

from feedsvc.backends.postgres.servers import Servers
from feedsvc.changes import view_refresh
from feedsvc.changes.view_refresh import ViewRefresh
from feedsvc.settings import Changes, Database
from tests.support.jumping_clock import run_by_jumps

TIMEOUT = 600.0


class BusySession:
    """A session beside another one that refreshes until `over`."""

    def __init__(self, over: float) -> None:
        self._over = over
        self.failed: list[tuple[object, ...]] = []

    async def row(self, sql: str, *values: object) -> dict[str, bool]:
        if sql == view_refresh._FAILED:
            self.failed.append(values)
        return {"is_done": asyncio.get_running_loop().time() >= self._over}


def refreshed_beside(session: BusySession) -> tuple[str | None, float]:
    """The fault, and the seconds that it took."""

    async def scene() -> tuple[str | None, float]:
        servers = Servers(Database(url=SecretStr("postgresql://u@127.0.0.1/d")))
        refresh = ViewRefresh(servers, [], Changes(refresh_timeout=TIMEOUT), None)
        fault = await refresh._failure(cast("Any", session), "shop.sums")
        return fault, asyncio.get_running_loop().time()

    return run_by_jumps(scene())


def test_another_refresh_is_waited_for_as_long_as_one_may_take() -> None:
    session = BusySession(over=TIMEOUT)
    fault, seconds = refreshed_beside(session)
    assert fault is None
    assert session.failed == []
    assert TIMEOUT <= seconds <= TIMEOUT + 10


def test_one_that_does_not_end_is_a_failure_on_record() -> None:
    session = BusySession(over=float("inf"))
    fault, seconds = refreshed_beside(session)
    why = "another session was refreshing views all the time"
    assert fault == f"shop.sums could not be refreshed: {why}"
    assert session.failed == [("shop.sums", why)]
    assert TIMEOUT < seconds < TIMEOUT + 20
