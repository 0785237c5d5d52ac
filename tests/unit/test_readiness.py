"""Readiness: what another instance would do better, and PostgreSQL only where settings say so."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from feedsvc.core.drain import Drain
from feedsvc.operations.health.readiness import Readiness
from feedsvc.settings import Health

AWAY = "the database does not answer (OSError)"


@dataclass
class Parts:
    """The parts that readiness looks at; `lag` is the event loop's worst."""

    fault: str | None = None
    lag: float = 0.0

    def worst(self) -> float:
        return self.lag


def readiness(drain: Drain | None = None, keys: str | None = None, lag: float = 0.0,
              database: str | None = None, **settings: Any) -> Readiness:  # fmt: skip
    given = (Parts(keys), Parts(None, lag), Parts(database))
    tokens, loop, probe = (cast("Any", part) for part in given)
    return Readiness(Health(**settings), drain or Drain(), tokens, loop, probe)


def test_an_instance_that_lacks_nothing_is_ready() -> None:
    assert readiness().fault() is None


def test_postgresql_counts_only_where_the_settings_say_so() -> None:
    assert readiness(database=AWAY).fault() is None
    assert readiness(database=AWAY, ready_needs=("database",)).fault() == AWAY
    assert readiness(ready_needs=("database",)).fault() is None


def test_keys_that_were_never_fetched() -> None:
    assert readiness(keys="no key").fault() == "no key"


@pytest.mark.parametrize(("lag", "late"), [(2.0, False), (2.1, True)])
def test_an_event_loop_that_is_far_too_late(lag: float, late: bool) -> None:
    """Eight times `health.loop_lag`, where health calls it down."""
    fault = readiness(lag=lag, loop_lag=0.25).fault()
    assert (fault is not None) == late
    assert fault is None or "2.1 s" in fault


def test_a_drain_comes_before_everything_else() -> None:
    drain = Drain()
    drain.announce()
    found = readiness(drain, "no key", 60.0, AWAY, ready_needs=("database",)).fault()
    assert found == "the process is stopping"
