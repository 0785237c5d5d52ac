"""The times at which health runs its checks."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedsvc.operations.health.checks import CHECKS
from feedsvc.operations.health.context import HealthContext


def parts(read_ago: float, cohorts: Any = ()) -> HealthContext:
    return cast(
        "HealthContext",
        SimpleNamespace(
            changes=SimpleNamespace(read_ago=read_ago), tail=SimpleNamespace(cohorts=cohorts)
        ),
    )


@pytest.mark.parametrize("name", ["log_reader", "changes"])
@pytest.mark.parametrize(
    ("context", "seconds"),
    [(parts(0.1), 15.0), (parts(14.9), 60.0), (parts(float("inf"), ["one"]), 15.0)],
    ids=["a page was asked for", "idle", "a live feed"],
)
def test_an_idle_service_asks_for_the_log_once_a_minute(
    name: str, context: HealthContext, seconds: float
) -> None:
    (check,) = (check for check in CHECKS if check.name == name)
    assert not check.is_due(context, seconds - 0.1)
    assert check.is_due(context, seconds)


def test_others_are_run_as_often_as_ever() -> None:
    idle = parts(float("inf"))
    often = [check for check in CHECKS if check.name not in ("log_reader", "changes")]
    assert len(often) > 10
    assert all(check.is_due(idle, check.every) for check in often)
