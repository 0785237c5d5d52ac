"""The greatest age of a standby's rows, from the primary's positions over time."""

from typing import Any, cast

import asyncpg
import pytest

from feedsvc.backends.postgres.replicas import DatabaseIdentity, LogPosition, Replica
from feedsvc.settings import Settings

HERE = DatabaseIdentity(7, 5, 1)
SETTINGS = Settings.model_validate(
    {"database": {"url": "postgresql://ann@db/app", "replica_lag": 5}}
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def standby(clock: Clock) -> Replica:
    return Replica("postgresql://ann@standby/app", SETTINGS, clock=clock)


def row(position: int, **other: Any) -> asyncpg.Record:
    cluster, database, timeline = HERE
    plain = {"standby": True, "position": position, "cluster": cluster, "database": database}
    return cast("asyncpg.Record", {**plain, "timeline_id": timeline, **other})


PAST = [
    LogPosition(90.0, 1_000),
    LogPosition(95.0, 2_000),
    LogPosition(99.5, 3_000),
    LogPosition(100.0, 3_000),
]


@pytest.mark.parametrize(
    ("position", "state", "lag"),
    [
        (3_000, "serves", 0.0),
        (5_000, "serves", 0.0),
        (2_999, "serves", 5.0),
        (1_999, "lags", 10.0),
        (999, "lags", None),
    ],
)
async def test_it_has_all_that_the_primary_had_when_it_was_where_it_is_now(
    position: int, state: str, lag: float | None
) -> None:
    replica = standby(Clock())
    replica._judge(row(position), HERE, PAST)
    assert (replica.state, replica.lag) == (state, lag)
    assert replica.is_usable == (state == "serves")
    assert replica.figures()["fault"] == replica.fault


async def test_it_ages_between_looks() -> None:
    clock = Clock()
    replica = standby(clock)
    replica._judge(row(3_000), HERE, PAST)
    clock.now += 5
    assert replica.is_usable
    clock.now += 0.1
    assert not replica.is_usable
    assert replica.figures()["state"] == "lags"


@pytest.mark.parametrize(
    ("primary", "given", "state"),
    [
        (None, {}, "away"),
        (HERE, {"standby": False}, "unfit"),
        (HERE, {"cluster": 8}, "unfit"),
        (HERE, {"database": 6}, "unfit"),
        (HERE, {"timeline_id": 2}, "away"),
    ],
)
async def test_what_is_no_standby_of_this_database_is_not_read(
    primary: DatabaseIdentity | None, given: dict[str, Any], state: str
) -> None:
    replica = standby(Clock())
    replica._judge(row(3_000), HERE, PAST)
    replica._judge(row(3_000, **given), primary, PAST)
    assert (replica.state, replica.is_usable, replica.lag) == (state, False, None)
    assert replica.fault


async def test_a_failed_read_leaves_it_until_it_has_answered_again() -> None:
    replica = standby(Clock())
    replica._judge(row(3_000), HERE, PAST)
    replica.pools["bulk"].failed()
    assert not replica.is_usable
    replica._judge(row(3_000), HERE, PAST)
    assert replica.is_usable
