"""An alert's way from `ok` over `pending` to `firing` and back, a step with each look."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from feedsvc.operations.alerts.rules import Rule

Phase: TypeAlias = Literal["ok", "pending", "firing"]


@dataclass(frozen=True, slots=True)
class AlertState:
    """`since` when it has been in its phase, seconds since 1970; `value` is the latest figure.

    `held`: for how long it has been on the way to its next phase. That is added up and not read
    off a clock, which may be set. `told`: a message that it fires was sent.
    """

    phase: Phase = "ok"
    since: float | None = None
    value: float | None = None
    held: float = 0.0
    told: bool = False

    def plain(self) -> dict[str, Any]:
        """The plain form, for JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> "AlertState":
        """The state from its plain form. Raises TypeError."""
        return cls(**plain)


def step(
    rule: Rule, state: AlertState, value: float | None, passed: float, now: float
) -> AlertState:
    """The state after a look that found this value, so many seconds after the one before it."""
    if state.phase == "firing":
        return _firing(rule, state, value, passed, now)
    if not rule.holds(value):
        return AlertState(since=state.since if state.phase == "ok" else now, value=value)
    # What was found the first time may have been so for no longer than this moment.
    held = state.held + passed if state.phase == "pending" else 0.0
    if held >= rule.hold:
        return AlertState("firing", now, value)
    since = state.since if state.phase == "pending" else now
    return AlertState("pending", since, value, held)


def _firing(
    rule: Rule, state: AlertState, value: float | None, passed: float, now: float
) -> AlertState:
    if not rule.is_clear(value):
        return replace(state, value=value, held=0.0)
    held = state.held + passed
    if held >= rule.clear_for:
        return AlertState("ok", now, value)
    return replace(state, value=value, held=held)
