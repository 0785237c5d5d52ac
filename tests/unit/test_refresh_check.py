"""The health check of views that are refreshed, by their ages and that of the worker."""

from types import SimpleNamespace
from typing import cast

import pytest

from feedsvc.operations.health.check_upkeep import refreshes
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.view_watch import EnteredView
from feedsvc.settings import Changes

HOUR = 3_600.0
FRESH = EnteredView("app.sums", 60.0, 0.1, 60.0, 0, None, HOUR)
OLD = FRESH._replace(age=2 * HOUR)
FAILED = FRESH._replace(failures=2, fault="SQLSTATE 42883")


@pytest.mark.parametrize(
    ("view", "watched_for", "state"),
    [
        (FRESH, HOUR, "ok"),
        (OLD, 1.0, "ok"),  # the service was away, and has just come back
        (OLD, HOUR, "degraded"),
        (FAILED, 1.0, "degraded"),
        (FRESH._replace(relation="app.others"), 1.0, "degraded"),
    ],
    ids=["fresh", "old at the start", "old", "failed", "not entered"],
)
async def test_a_view_is_overdue_once_a_worker_had_the_time_to_refresh_it(
    view: EnteredView, watched_for: float, state: str
) -> None:
    async def look() -> list[EnteredView]:
        return [view]

    views = SimpleNamespace(names=("app.sums",), look=look, watched_for=watched_for)
    parts = SimpleNamespace(views=views, settings=SimpleNamespace(changes=Changes()))
    assert (await refreshes(cast("HealthContext", parts))).state == state
