"""Messages, events and log lines of an alert that begins or is over."""

import logging
from typing import Final, Literal, NamedTuple

from feedsvc.core import identifiers
from feedsvc.core.json_object import Json
from feedsvc.operations.alerts.rules import Rule
from feedsvc.operations.alerts.states import AlertState

logger = logging.getLogger(__name__)

_LEVELS: Final = {
    "critical": logging.CRITICAL,
    "warning": logging.WARNING,
    "info": logging.INFO,
}


class Turn(NamedTuple):
    """An alert has begun to fire or is over, `at` seconds since 1970."""

    instance: str
    alert: str
    rule: Rule
    event: Literal["firing", "resolved"]
    state: AlertState
    at: float


def message(turn: Turn) -> Json:
    """The message for a webhook. `id` stays the same when it is sent again."""
    rule = turn.rule
    return {
        **event(turn),
        "figure": rule.figure,
        "comparison": rule.comparison,
        "threshold": rule.threshold,
        "dataset": rule.dataset,
        "route": rule.route,
        "pool": rule.pool,
        "check": rule.check,
        "todo": rule.todo,
    }


def event(turn: Turn) -> Json:
    """The event for the history."""
    return {
        "id": identifiers.new_uuid(),
        "at": round(turn.at, 3),
        "instance": turn.instance,
        "alert": turn.alert,
        "event": turn.event,
        "severity": turn.rule.severity,
        "value": turn.state.value,
    }


def log(turn: Turn, *, silenced: bool) -> None:
    """Log the turn."""
    rule, value = turn.rule, turn.state.value
    shown = "unknown" if value is None else f"{value:.4g}"
    if turn.event == "resolved":
        logger.info("alert %s is over: %s is %s", turn.alert, rule.figure, shown)
        return
    logger.log(
        logging.INFO if silenced else _LEVELS[rule.severity],
        "alert %s (%s)%s: %s is %s, %s %g: %s",
        turn.alert,
        rule.severity,
        ", silenced" if silenced else "",
        rule.figure,
        shown,
        rule.comparison,
        rule.threshold,
        rule.todo,
    )
