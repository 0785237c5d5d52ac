"""What the board's owner does for it: messages to the webhook, events to PostgreSQL and back."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from feedsvc.alerts.board import Board, Boards
from feedsvc.alerts.history import History, Standing
from feedsvc.alerts.rules import Rule
from feedsvc.alerts.webhook import Webhook
from feedsvc.errors import NotSetUp, Problem, Timeout, Unavailable
from feedsvc.faults import told
from feedsvc.observations import Observers, WebhookTried

logger = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

_TICK: Final = 0.5
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_STALE: Final = 3_600.0  # seconds after which a message that can't be delivered is of no use
_TRIM_EVERY: Final = 3_600.0
_SAY_EVERY: Final = 600.0  # seconds between lines about one and the same lack
_LOCK_PAUSE: Final = 0.02
_LOCK_PATIENCE: Final = 2.0


class Timing(NamedTuple):
    """The wall clock that messages are dated by, and the pauses between attempts."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Errands:
    """Two of them, side by side, for neither the webhook nor PostgreSQL may hold up the other."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        boards: Boards,
        history: History,
        webhook: Webhook | None,
        observers: Observers,
    ) -> None:
        self._rules = rules
        self._boards = boards
        self._history = history
        self._webhook = webhook
        self._observers = observers
        self.timing = Timing()
        self._said_at = -_SAY_EVERY
        self._trimmed = time.monotonic()

    async def deliver(self) -> NoReturn:
        """Sends messages in their order, each until it is delivered, until it is cancelled."""
        pause = _TICK
        while True:
            await self.timing.sleep(pause)
            board = self._boards.read()
            if self._webhook is None or not board.undelivered or not self._is_mine(board):
                pause = _TICK
                continue
            if await self._deliver(self._webhook, board.undelivered[0]):
                pause = 0.0
            else:
                pause = min(max(pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)

    async def remember(self, interval: float) -> NoReturn:
        """Writes events down and learns of silences, every so many seconds."""
        while True:
            await asyncio.sleep(interval)
            if not self._is_mine(self._boards.read()):
                continue
            try:
                await self.write_down()
                standing = await self._history.standing()
                if time.monotonic() - self._trimmed >= _TRIM_EVERY:
                    self._trimmed = time.monotonic()
                    await self._history.trim()
            except Problem as problem:
                self._say(problem)
            else:
                await self.change(lambda board: self._learn(board, standing))  # noqa: B023

    async def write_down(self) -> None:
        """Writes what is not in PostgreSQL yet. Raises Problem."""
        events = self._boards.read().unwritten
        if not events:
            return
        try:
            await self._history.add(events)
        except (Unavailable, Timeout):
            raise
        except Problem as problem:
            # They would be refused for ever, and hold up all that comes behind them.
            cause = told(problem.__cause__ or problem)
            logger.error("alerts: %d events were refused: %s", len(events), cause)  # noqa: TRY400
        written = {each["id"] for each in events}

        def forget(board: Board) -> None:
            board.unwritten = [each for each in board.unwritten if each["id"] not in written]

        await self.change(forget)

    async def change(self, change: Callable[[Board], None]) -> None:
        """Changes the board, waiting a moment for whoever changes it just now."""
        deadline = time.monotonic() + _LOCK_PATIENCE
        while time.monotonic() < deadline:
            with self._boards.changing() as board:
                if board is not None:
                    change(board)
                    return
            await asyncio.sleep(_LOCK_PAUSE)
        logger.warning("alerts: another worker does not let go of the board")

    def _is_mine(self, board: Board) -> bool:
        return board.owner == self._boards.worker

    async def _deliver(self, webhook: Webhook, message: Json) -> bool:
        """Whether there is nothing left to be done about the message."""
        outcome = await webhook.deliver(message)
        self._observers.tell(WebhookTried(outcome))
        if outcome == "failed":
            if self.timing.now() - message["at"] < _STALE:
                return False
            logger.error("alerts: a message could not be delivered for an hour, and is lost")

        def forget(board: Board) -> None:
            board.undelivered = [m for m in board.undelivered if m["id"] != message["id"]]

        await self.change(forget)
        return True

    def _learn(self, board: Board, standing: Standing) -> None:
        board.silences = standing.silences
        if board.restored:
            return
        board.restored = True
        for name, state in standing.firing.items():
            known = board.states.get(name)
            if name in self._rules and (known is None or known.phase != "firing"):
                board.states[name] = state

    def _say(self, problem: Problem) -> None:
        if time.monotonic() - self._said_at >= _SAY_EVERY:
            self._said_at = time.monotonic()
            what = "alerts: their history can't be kept: %s"
            level = logging.INFO if isinstance(problem, NotSetUp) else logging.WARNING
            logger.log(level, what, problem.detail)
