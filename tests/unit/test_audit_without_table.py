"""An audit log whose table there is not: said once, until there is one."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from feedsvc.core.problems import NotSetUp, Unavailable
from feedsvc.operations import audit
from feedsvc.settings import Audit


class Writer:
    """A connection that takes what it is given."""

    async def execute(self, *_given: object) -> None:
        """As a connection's."""


async def test_that_entries_wait_without_the_table_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every other lack is said now and then, for it may end by itself."""
    fault: list[Exception | None] = [None]

    @asynccontextmanager
    async def writing(_pool: object) -> AsyncIterator[Writer]:
        if fault[0] is not None:
            raise fault[0]
        yield Writer()

    monkeypatch.setattr(audit, "write_transaction", writing)
    monkeypatch.setattr(audit, "_SAY_EVERY", 0.0)
    log = audit.AuditLog(cast("Any", None), Audit())
    missing, away = NotSetUp("The tables are not set up.", 60), Unavailable("It is away.", 1)
    said = []
    with caplog.at_level(logging.WARNING, "feedsvc.operations.audit"):
        for each in (missing, missing, missing, away, away, missing, None, missing, missing):
            fault[0] = each
            log._waiting.append({"id": "1", "role": None})
            log._unnamed += 1
            await log._write_all()
            said.append(len([line for line in caplog.messages if "entries wait" in line]))
    assert said == [1, 1, 1, 2, 3, 3, 3, 4, 4]
