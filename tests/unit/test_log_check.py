"""The sentences of the health check `changes`: each names what to do."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedsvc.changes.log_state import LogHolder, LogState
from feedsvc.changes.log_upkeep import NO_RIGHT
from feedsvc.operations.health.check_log import changes
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import CheckResult
from feedsvc.settings import Changes

SETTINGS = Changes(retention=259_200, max_bytes=1 << 30)
WELL = LogState(12 << 20, 6, 1, 7_560.0, -5_000.0, None, None)
BACKUP = LogHolder(77, "pg_dump", None, 4_000.0)
FORGOTTEN = LogHolder(None, "", "it's old", 90_000.0)


def found(state: LogState | str | Exception) -> CheckResult:
    async def look() -> LogState | str:
        if isinstance(state, Exception):
            raise state
        return state

    parts: Any = SimpleNamespace(
        log=SimpleNamespace(look=look), settings=SimpleNamespace(changes=SETTINGS)
    )
    return asyncio.run(changes(cast(HealthContext, parts)))


def state(**different: Any) -> LogState:
    plain = {name: getattr(WELL, name) for name in WELL.__dataclass_fields__}
    return LogState(**{**plain, **different})


def test_a_log_that_is_well_has_its_size_and_age() -> None:
    assert found(WELL)[:3] == (
        "ok",
        "The change log has 12 MB, the last 2.1 h.",
        {"bytes": 12 << 20, "oldest_s": 7_560.0, "windows": 6, "unsealed": 1, "overdue_s": 0.0,
         "blocked_s": 0.0},
    )  # fmt: skip
    quiet = state(overdue=181.0, blocker=BACKUP)
    assert found(quiet).state == "ok", "three turns may be missed"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            state(overdue=7_200.0, blocker=BACKUP),
            "The change log keeps 2.0 h more than changes.retention, for a transaction of 4000 s "
            "of session 77 (pg_dump) holds it up. End it: SELECT pg_terminate_backend(77).",
        ),
        (
            state(bytes=2 << 30, blocker=FORGOTTEN),
            "The change log has 2.0 GB, of 1.0 GB (changes.max_bytes), for the prepared "
            "transaction 'it''s old' of 90000 s holds it up. End it: COMMIT PREPARED or "
            "ROLLBACK PREPARED 'it''s old'.",
        ),
        (
            state(overdue=7_200.0),
            "The change log keeps 2.0 h more than changes.retention, for no worker looks after it: "
            "the service's log has the reason.",
        ),
        (
            state(bytes=2 << 30),
            "The change log has 2.0 GB, of 1.0 GB (changes.max_bytes): writers are quicker than it "
            "is trimmed. Raise changes.max_bytes.",
        ),
        (
            state(bytes=None, locker=LogHolder(5, "psql", None, None, "AccessExclusiveLock")),
            "Writers of the served tables wait: a transaction of session 5 (psql) holds a lock on "
            "the change log (AccessExclusiveLock). End it: SELECT pg_terminate_backend(5).",
        ),
        (NO_RIGHT, f"T{NO_RIGHT[1:]}."),
        (TimeoutError(), "Unknown: PostgreSQL does not answer."),
    ],
)
def test_a_log_that_is_not_says_what_to_do(
    wrong: LogState | str | Exception, sentence: str
) -> None:
    assert found(wrong)[:2] == ("degraded", sentence)


def test_a_lock_that_is_held_for_a_moment_is_no_fault() -> None:
    held = LogHolder(5, "psql", None, 0.3, "ShareLock")
    assert found(state(locker=held)).state == "ok"
