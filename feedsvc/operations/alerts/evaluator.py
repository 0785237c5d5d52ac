"""The evaluator: reads every alert's figure at an interval, and queues messages."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple, NoReturn

from feedsvc.core.drain import Drain
from feedsvc.core.events import AlertStates, Observers
from feedsvc.operations.alerts import messages
from feedsvc.operations.alerts.board import AlertBoard, AlertStore
from feedsvc.operations.alerts.figures import FIGURES, AlertInput
from feedsvc.operations.alerts.messages import Turn
from feedsvc.operations.alerts.rules import Rule
from feedsvc.operations.alerts.states import AlertState, step
from feedsvc.operations.performance.tracker import Tracker, recent

logger = logging.getLogger(__name__)

_MOST_KEPT: Final = 200
"""Messages, and events, that wait for the webhook or for PostgreSQL."""
_TICK: Final = 1.0  # seconds between looks at whether it is time
_AFTER_A_FAULT: Final = 10.0


class Task(NamedTuple):
    """The instance, the interval in seconds, the number of workers, whether there is a webhook."""

    instance: str
    interval: float
    workers: int
    webhook: bool


class Evaluator:
    """Evaluation while this worker owns the board."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        boards: AlertStore,
        tracker: Tracker,
        observers: Observers,
        task: Task,
    ) -> None:
        self._rules = rules
        self._boards = boards
        self._tracker = tracker
        self._observers = observers
        self._task = task
        self._owned = False

    async def run(self, drain: Drain) -> NoReturn:
        """Evaluate until cancelled; a worker that drains leaves it to the others."""
        while True:
            await asyncio.sleep(min(_TICK, self._task.interval))
            try:
                await (self.leave() if drain.begun else self.look())
            except Exception:
                logger.exception("alerts: the evaluation failed")
                await asyncio.sleep(_AFTER_A_FAULT)

    async def look(self) -> None:
        """Evaluate, if it is due and no other worker does."""
        board = self._boards.read()
        if self._boards.owned_by_other(board):
            self._give_up()
            return
        is_own = board.owner == self._boards.worker
        if is_own and self._boards.clock() - board.beat < self._task.interval:
            return
        present = await self._tracker.present()
        now = time.time()
        seen = AlertInput(
            recent(present, now), [each.vitals for each in present], self._task.workers
        )
        with self._boards.changing() as changed:
            # Another worker may have taken the board since the first look at it.
            if changed is None or self._boards.owned_by_other(changed):
                return
            self._evaluate(changed, seen, now)
            firing = {name: state.phase == "firing" for name, state in changed.states.items()}
        if self._boards.superseded:
            return
        self._owned = True
        self._observers.publish(AlertStates(firing))

    async def leave(self) -> None:
        """Release the board at once to another worker, whose rules may be newer."""
        if self._owned:
            with self._boards.changing() as board:
                if board is None:
                    return
                if board.owner == self._boards.worker:
                    board.owner = ""
            self._give_up()

    def _give_up(self) -> None:
        """Report which alerts fire, if this worker owns the board."""
        if self._owned:
            self._owned = False
            self._observers.publish(AlertStates(dict.fromkeys(self._rules, False)))

    def _evaluate(self, board: AlertBoard, seen: AlertInput, now: float) -> None:
        beat = self._boards.clock()
        # Without an evaluation in between the state is unknown.
        passed = min(beat - board.beat, 2 * self._task.interval) if board.owner else 0.0
        before = board.states
        board.states = {
            name: self._next(board, name, before.get(name, AlertState()), (seen, passed, now))
            for name in self._rules
        }
        board.owner, board.beat, board.at = self._boards.worker, beat, now

    def _next(
        self,
        board: AlertBoard,
        name: str,
        before: AlertState,
        look: tuple[AlertInput, float, float],
    ) -> AlertState:
        (seen, passed, now), rule = look, self._rules[name]
        after = step(rule, before, _read(name, rule, seen), passed, now)
        is_silenced = board.silence(name, now) is not None
        turn = Turn(self._task.instance, name, rule, "firing", after, now)
        if after.phase == "firing":
            if before.phase != "firing":
                _note(board, turn, silenced=is_silenced)
            if not after.told and not is_silenced:
                self._send(board, turn)
                after = replace(after, told=True)
        elif before.phase == "firing":
            turn = turn._replace(event="resolved")
            _note(board, turn, silenced=is_silenced)
            if before.told:
                self._send(board, turn)
        return after

    def _send(self, board: AlertBoard, turn: Turn) -> None:
        if self._task.webhook:
            board.undelivered.append(messages.message(turn))
            del board.undelivered[:-_MOST_KEPT]


def _note(board: AlertBoard, turn: Turn, *, silenced: bool) -> None:
    messages.log(turn, silenced=silenced)
    board.unwritten.append(messages.event(turn))
    del board.unwritten[:-_MOST_KEPT]


def _read(name: str, rule: Rule, seen: AlertInput) -> float | None:
    try:
        return FIGURES[rule.figure].read(seen, rule.selector)
    except Exception:  # one figure that fails must not silence the others
        logger.exception("alerts: the figure of %s could not be read", name)
        return None
