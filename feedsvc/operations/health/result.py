"""Results of checks and repairs."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

HealthState: TypeAlias = Literal["ok", "degraded", "down"]
RepairName: TypeAlias = Literal[
    "connections", "log_reader", "breakers", "indexes", "statistics", "sessions"
]

_ORDER: Final[tuple[HealthState, ...]] = ("ok", "degraded", "down")


class CheckResult(NamedTuple):
    """A component's state, a sentence about it, its figures, and which repairs could help."""

    state: HealthState
    what: str
    figures: Mapping[str, Any] = {}
    repairs: tuple[RepairName, ...] = ()


def worst(states: Iterable[HealthState]) -> HealthState:
    """The worst of them, `ok` of none."""
    return max(states, key=_ORDER.index, default="ok")


RepairOutcome: TypeAlias = Literal["done", "nothing", "started", "would", "refused", "failed"]


class RepairResult(NamedTuple):
    """An outcome and a sentence about it.

    `nothing`: there was nothing to do; `would`: a dry run; `refused`: it needs something else
    first; `started`: it goes on, and its end is in the log.
    """

    outcome: RepairOutcome
    what: str
