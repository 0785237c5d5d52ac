"""Deliveries by the board's owner: messages to the webhook, events to PostgreSQL."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn

from feedsvc.core.events import Observers, WebhookTried
from feedsvc.core.json_object import Json
from feedsvc.core.logs import redacted
from feedsvc.core.problems import NotSetUp, Problem, Timeout, Unavailable
from feedsvc.operations.alerts.board import AlertBoard, AlertStore
from feedsvc.operations.alerts.group import Group, Verdict
from feedsvc.operations.alerts.history import AlertHistory, StandingAlerts
from feedsvc.operations.alerts.rules import Rule
from feedsvc.operations.alerts.webhook import Webhook

logger = logging.getLogger(__name__)

_TICK: Final = 0.5
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_HOLD: Final = 2.0
_JUDGE_PATIENCE: Final = 2.0
_STALE: Final = 3_600.0  # seconds after which a message that can't be delivered is of no use
_TRIM_EVERY: Final = 3_600.0
_LOG_EVERY: Final = 600.0  # seconds between two lines about the same fault
_LOCK_PAUSE: Final = 0.02
_LOCK_PATIENCE: Final = 2.0


class Target(NamedTuple):
    """The webhook, and the instances that send each message once, where there are others."""

    webhook: Webhook
    group: Group | None = None

    def addressed(self, message: Json) -> Json:
        """The message as it is sent; `key` is the same for all messages of one incident."""
        name = message.get("instance") if self.group is None else self.group.name
        group = None if self.group is None else self.group.name
        plain = {key: value for key, value in message.items() if key != "claimed"}
        return {**plain, "group": group, "key": f"{name}/{message.get('alert')}"}


class Timing(NamedTuple):
    """The wall clock that messages are dated by, and the pauses between attempts."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class AlertDelivery:
    """Two loops side by side: neither the webhook nor PostgreSQL may hold up the other."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        boards: AlertStore,
        history: AlertHistory,
        target: Target | None,
        observers: Observers,
    ) -> None:
        self._rules = rules
        self._boards = boards
        self._history = history
        self._target = target
        self._observers = observers
        self.timing = Timing()
        self._logged_at = -_LOG_EVERY
        self._trimmed = time.monotonic()

    async def deliver(self) -> NoReturn:
        """Send messages in their order, each until it is delivered, until cancelled."""
        pause = _TICK
        while True:
            await self.timing.sleep(pause)
            board = self._boards.read()
            if self._target is None or not board.undelivered or not self._is_mine(board):
                pause = _TICK
                continue
            message = await self._next(self._target.group, board)
            if message is None:
                pause = _HOLD
            elif await self._deliver(self._target, message):
                pause = 0.0
            else:
                pause = min(max(pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)

    async def remember(self, interval: float) -> NoReturn:
        """Write events and read silences every `interval` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            if not self._is_mine(self._boards.read()):
                continue
            try:
                await self.write_down()
                await self._renew()
                standing = await self._history.standing()
                if time.monotonic() - self._trimmed >= _TRIM_EVERY:
                    self._trimmed = time.monotonic()
                    await self._history.trim()
            except Problem as problem:
                self._log(problem)
            else:
                await self.change(lambda board: self._learn(board, standing))  # noqa: B023

    async def write_down(self) -> None:
        """Write what is not in PostgreSQL yet. Raises Problem."""
        events = self._boards.read().unwritten
        if not events:
            return
        try:
            await self._history.add(events)
        except (Unavailable, Timeout):
            raise
        except Problem as problem:
            # They would be refused forever, and hold up all events behind them.
            cause = redacted(problem.__cause__ or problem)
            logger.error("alerts: %d events were refused: %s", len(events), cause)  # noqa: TRY400
        written = {each["id"] for each in events}

        def forget(board: AlertBoard) -> None:
            board.unwritten = [each for each in board.unwritten if each["id"] not in written]

        await self.change(forget)

    async def change(self, change: Callable[[AlertBoard], None]) -> None:
        """Change the board, after waiting up to two seconds for another worker's change.

        A change that is dropped, since the lock was lost meanwhile, is made anew.
        """
        deadline = time.monotonic() + _LOCK_PATIENCE
        while time.monotonic() < deadline:
            with self._boards.changing() as board:
                if board is not None:
                    change(board)
            if board is not None and not self._boards.superseded:
                return
            await asyncio.sleep(_LOCK_PAUSE)
        logger.warning("alerts: another worker holds the lock of the board")

    def _is_mine(self, board: AlertBoard) -> bool:
        return board.owner == self._boards.worker

    async def _renew(self) -> None:
        """Renew this instance's firing alerts in the group. Raises Problem."""
        if self._target is not None and self._target.group is not None:
            board = self._boards.read()
            firing = {name for name, state in board.states.items() if state.phase == "firing"}
            await self._target.group.renew(firing.difference(board.alone))

    async def _next(self, group: Group | None, board: AlertBoard) -> Json | None:
        """The oldest message that is ours to send; what another instance sends is forgotten."""
        for place, message in enumerate(board.undelivered):
            if group is None or message.get("claimed"):
                return message
            if any(later["alert"] == message["alert"] for later in board.undelivered[place + 1 :]):
                verdict: Verdict = "drop"  # a later message supersedes it
            else:
                verdict = await self._judged(group, message, board)
            if verdict == "send":
                await self._claim(message)
                return message
            if verdict == "drop" or self.timing.now() - message["at"] >= _STALE:
                await self._forget(message)
        return None

    async def _judged(self, group: Group, message: Json, board: AlertBoard) -> Verdict:
        """The group's verdict. Without PostgreSQL each instance sends: many messages beat none."""
        alert, begins = message["alert"], message["event"] == "firing"
        if not begins and alert in board.alone:
            await self.change(lambda board: _be_alone(board, alert, alone=False))
            return "send"
        try:
            async with asyncio.timeout(_JUDGE_PATIENCE):
                return await group.judge(message)
        except (Problem, TimeoutError):
            if not begins:
                return "hold"
        await self.change(lambda board: _be_alone(board, alert, alone=True))
        return "send"

    async def _claim(self, message: Json) -> None:
        """Mark the message as this instance's, so that the group is not asked again."""
        message["claimed"] = True

        def note(board: AlertBoard) -> None:
            for each in board.undelivered:
                if each["id"] == message["id"]:
                    each["claimed"] = True

        await self.change(note)

    async def _deliver(self, target: Target, message: Json) -> bool:
        """Send the message. True: it is done with, delivered or refused for good."""
        outcome = await target.webhook.deliver(target.addressed(message))
        self._observers.publish(WebhookTried(outcome))
        if outcome == "failed":
            if self.timing.now() - message["at"] < _STALE:
                return False
            logger.error("alerts: a message could not be delivered for an hour, and is lost")
        elif target.group is not None and message["event"] == "firing":
            with suppress(Problem, TimeoutError):
                async with asyncio.timeout(_JUDGE_PATIENCE):
                    await target.group.delivered(message["alert"])
        await self._forget(message)
        return True

    async def _forget(self, message: Json) -> None:
        def forget(board: AlertBoard) -> None:
            board.undelivered = [m for m in board.undelivered if m["id"] != message["id"]]

        await self.change(forget)

    def _learn(self, board: AlertBoard, standing: StandingAlerts) -> None:
        for alert, silence in standing.silences.items():
            board.keep(alert, silence)
        if board.restored:
            return
        board.restored = True
        for name, state in standing.firing.items():
            known = board.states.get(name)
            if name in self._rules and (known is None or known.phase != "firing"):
                board.states[name] = state

    def _log(self, problem: Problem) -> None:
        if time.monotonic() - self._logged_at >= _LOG_EVERY:
            self._logged_at = time.monotonic()
            what = "alerts: their history can't be kept: %s"
            level = logging.INFO if isinstance(problem, NotSetUp) else logging.WARNING
            logger.log(level, what, problem.detail)


def _be_alone(board: AlertBoard, alert: str, *, alone: bool) -> None:
    """Mark the alert as sent, or no longer sent, without the group."""
    board.alone = [each for each in board.alone if each != alert] + [alert] * alone
