"""Deliveries by the board's owner: messages to the webhook, events to PostgreSQL."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, NoReturn

from feedsvc.core.events import Observers, WebhookTried
from feedsvc.core.json_object import Json
from feedsvc.core.logs import redacted
from feedsvc.core.problems import NotSetUp, Problem, Timeout, Unavailable
from feedsvc.operations.alerts.board import AlertBoard, AlertStore, Owed
from feedsvc.operations.alerts.group import Due, Group, Verdict
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
_OF_THE_BOARD: Final = frozenset({"claimed", "closing"})  # what no receiver needs


class Target(NamedTuple):
    """The webhook, and the instances that send each message once, where there are others."""

    webhook: Webhook
    group: Group | None = None

    def addressed(self, message: Json) -> Json:
        """The message as it is sent; `key` is the same for all messages of one incident."""
        name = message.get("instance") if self.group is None else self.group.name
        group = None if self.group is None else self.group.name
        plain = {key: value for key, value in message.items() if key not in _OF_THE_BOARD}
        return {**plain, "group": group, "key": f"{name}/{message.get('alert')}"}


class Timing(NamedTuple):
    """The wall clock that messages are dated by, and the pauses between attempts."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class AlertDelivery:
    """Two loops side by side: neither the webhook nor PostgreSQL may hold up the other.

    An event alone waits for its own message, for an hour at most.
    """

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
        """Write what is not in PostgreSQL yet. Raises Problem.

        An event waits for its message, which a service that is stopped loses with its folder: the
        next start goes by the events, and sends what none of them tells.
        """
        board = self._boards.read()
        waiting = {(each["alert"], each["event"]) for each in board.undelivered}
        events = [e for e in board.unwritten if (e["alert"], e["event"]) not in waiting]
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
        """Renew what still fires here in the group, and record there what is owed to it."""
        due = self._due()
        if self._target is None or self._target.group is None or not any(due):
            return
        try:
            async with asyncio.timeout(_JUDGE_PATIENCE):
                due = await self._target.group.renew(self._due)
        except Problem as problem:
            self._log(problem)
        except TimeoutError:
            self._log(Unavailable("PostgreSQL did not answer in time."))
        else:
            if due.owed:
                await self.change(partial(_settled, owed=due.owed))

    def _due(self) -> Due:
        """Renewals and debts, but for alerts of which a message is still to be judged."""
        board = self._boards.read()
        asked = {each["alert"] for each in board.undelivered if not each.get("claimed")}
        firing = {name for name, state in board.states.items() if state.phase == "firing"}
        owed = {alert: each for alert, each in board.owed.items() if alert not in asked}
        return Due(firing.difference(board.alone, asked), owed)

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
                return message
            if verdict == "drop" or self.timing.now() - message["at"] >= _STALE:
                await self._forget(message)
        return None

    async def _judged(self, group: Group, message: Json, board: AlertBoard) -> Verdict:
        """The group's verdict. Without PostgreSQL each instance sends: many messages beat none."""
        alert, begins = message["alert"], message["event"] == "firing"
        if not begins and alert in board.alone:
            await self._end_alone(message)
            return "send"
        owed = board.owed.get(alert)
        was_closing = message.get("closing", False)
        try:
            async with asyncio.timeout(_JUDGE_PATIENCE):
                verdict = await group.judge(message, owed, partial(self._close, message))
        except (Problem, TimeoutError):
            if not begins:
                return "hold"
            await self._note(message, {"claimed": True}, partial(_be_alone, alert=alert))
            return "send"
        if verdict == "drop" and was_closing:
            verdict = "send"  # closed by a COMMIT that was not answered
        if verdict == "send" or was_closing or owed is not None:
            marks = {"claimed": verdict == "send", "closing": False}
            await self._note(message, marks, lambda board: board.owed.pop(alert, None))
        return verdict

    async def _close(self, message: Json) -> None:
        """Note that the incident's end is to be committed, and is this instance's to send."""
        await self._note(message, {"closing": True})

    async def _end_alone(self, message: Json) -> None:
        """Claim the end of what the group was not asked about, and say that it is over here.

        The group may know of it all the same, by a COMMIT that was not answered.
        """
        alert = message["alert"]
        await self._note(message, {"claimed": True}, partial(_be_over, alert=alert))
        await self._renew()

    async def _note(
        self, message: Json, marks: Json, also: Callable[[AlertBoard], object] | None = None
    ) -> None:
        """Mark the message on the board, and make another change of the board with it."""
        message.update(marks)

        def note(board: AlertBoard) -> None:
            for each in board.undelivered:
                if each["id"] == message["id"]:
                    each.update(marks)
            if also is not None:
                also(board)

        await self.change(note)

    async def _deliver(self, target: Target, message: Json) -> bool:
        """Send the message. True: it is done with, delivered or refused for good."""
        outcome = await target.webhook.deliver(target.addressed(message))
        self._observers.publish(WebhookTried(outcome))
        owed: Owed | None = None
        if outcome == "failed":
            if self.timing.now() - message["at"] < _STALE:
                return False
            logger.error("alerts: a message could not be delivered for an hour, and is lost")
        elif target.group is not None and message["event"] == "firing":
            try:
                async with asyncio.timeout(_JUDGE_PATIENCE):
                    await target.group.delivered(message["alert"])
            except (Problem, TimeoutError):
                # The end of one that was sent alone does not ask whether it arrived.
                is_alone = message["alert"] in self._boards.read().alone
                owed = None if is_alone else "delivered"
        await self._forget(message, owed)
        return True

    async def _forget(self, message: Json, owed: Owed | None = None) -> None:
        """Forget the message, and keep what the group is owed for it."""

        def forget(board: AlertBoard) -> None:
            board.undelivered = [m for m in board.undelivered if m["id"] != message["id"]]
            if owed is not None:
                board.owed[message["alert"]] = owed

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


def _be_alone(board: AlertBoard, alert: str) -> None:
    """Mark the alert as sent without the group."""
    board.alone = [each for each in board.alone if each != alert] + [alert]


def _be_over(board: AlertBoard, alert: str) -> None:
    """Mark the alert, which was sent without the group, as over."""
    board.alone = [each for each in board.alone if each != alert]
    board.owed[alert] = "over"


def _settled(board: AlertBoard, owed: Mapping[str, Owed]) -> None:
    """Remove what is recorded in the group, but for what it has been owed since."""
    kept = {alert: each for alert, each in board.owed.items() if owed.get(alert) != each}
    board.owed = kept
