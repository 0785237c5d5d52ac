"""Reports of the alerts by any worker, and silences."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from feedsvc.core import identifiers
from feedsvc.core.json_object import Json
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Problem
from feedsvc.operations.alerts.board import AlertBoard, AlertStore
from feedsvc.operations.alerts.delivery import AlertDelivery
from feedsvc.operations.alerts.history import AlertHistory
from feedsvc.operations.alerts.rules import Rule
from feedsvc.operations.alerts.states import AlertState

_LATEST: Final = 100
_PATIENCE: Final = 2.0  # seconds: what fires can be shown without PostgreSQL


class AlertService:
    """A reader of the board and the history."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        boards: AlertStore,
        history: AlertHistory,
        errands: AlertDelivery,
        instance: str,
    ) -> None:
        self.rules = rules
        self._boards = boards
        self._history = history
        self._errands = errands
        self._instance = instance

    def states(self) -> Json:
        """Every alert as plain values; times are seconds since 1970."""
        board, now = self._boards.read(), time.time()
        return {
            "instance": self._instance,
            "evaluated_at": round(board.at, 3) if board.at else None,
            "undelivered": len(board.undelivered),
            "alerts": [_shown(name, rule, board, now) for name, rule in self.rules.items()],
        }

    async def report(self) -> Json:
        """The states, and the latest events; `lacking` is the reason where those are missing."""
        history: list[Json] = []
        lacking: str | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                history = await self._history.latest(_LATEST)
        except Problem as problem:
            lacking = problem.detail
        except TimeoutError:
            lacking = "The database did not give the history in time."
        return {**self.states(), "history": history, "lacking": lacking}

    async def silence(self, alert: str, seconds: float, reason: str, principal: Principal) -> Json:
        """Send no message of this alert for so many seconds; 0 ends a silence. Raises Problem."""
        now = time.time()
        silence = {"until": round(now + seconds, 3), "reason": reason, "at": round(now, 3)}
        event: Json = {
            **silence,
            "id": identifiers.new_uuid(),
            "alert": alert,
            "event": "silenced",
            "tenant": principal.tenant,
            "subject": principal.subject,
        }
        await self._history.add([event])
        await self._errands.change(lambda board: board.keep(alert, silence))
        return {"alert": alert, "until": silence["until"], "reason": reason}


def _shown(name: str, rule: Rule, board: AlertBoard, now: float) -> Json:
    state = board.states.get(name, AlertState())
    silence = board.silence(name, now)
    return {
        "name": name,
        "state": state.phase,
        "since": state.since,
        "value": state.value,
        "severity": rule.severity,
        "figure": rule.figure,
        "comparison": rule.comparison,
        "threshold": rule.threshold,
        "for_s": rule.hold,
        "clear": rule.threshold if rule.clear is None else rule.clear,
        "clear_for_s": rule.clear_for,
        "dataset": rule.dataset,
        "route": rule.route,
        "pool": rule.pool,
        "check": rule.check,
        "todo": rule.todo,
        "silenced_until": silence["until"] if silence else None,
        "silenced_for": silence["reason"] if silence else None,
    }
