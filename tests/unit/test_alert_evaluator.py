"""Evaluator and errands of alerts, driven by a clock of the tests' own."""

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedsvc.core.events import Observers
from feedsvc.core.json_object import Json
from feedsvc.core.principal import Principal
from feedsvc.operations.alerts.board import AlertBoard, AlertStore
from feedsvc.operations.alerts.delivery import AlertDelivery, Target, Timing
from feedsvc.operations.alerts.desk import AlertService
from feedsvc.operations.alerts.evaluator import Evaluator, Task
from feedsvc.operations.alerts.history import AlertHistory, StandingAlerts
from feedsvc.operations.alerts.rules import Rule
from feedsvc.operations.alerts.states import AlertState
from feedsvc.operations.alerts.webhook import DeliveryOutcome, Webhook
from feedsvc.operations.performance.live import Present
from feedsvc.operations.performance.tracker import Tracker
from tests.unit.test_alert_rules import vitals

INTERVAL = 5.0
AWAY = "database-away"


@dataclass
class Driven:
    """An evaluator that sees a database which is away or not, whenever the test says."""

    now: float = 1_000_000.0
    away: bool = False
    hold: str = "5m"
    boards: AlertStore = field(init=False)
    evaluator: Evaluator = field(init=False)

    def __post_init__(self) -> None:
        self.boards = AlertStore(None, 0, INTERVAL, clock=lambda: self.now)
        self.rule = Rule.model_validate({
            "figure": "database_away", "threshold": 0, "for": self.hold, "clear_for": "0s",
            "severity": "critical", "todo": "Look.",
        })  # fmt: skip
        tracker = cast("Tracker", self)
        task = Task("tests", INTERVAL, 1, webhook=True)
        self.evaluator = Evaluator({AWAY: self.rule}, self.boards, tracker, Observers(), task)

    async def present(self) -> list[Present]:
        """As `Tracker.present`."""
        return [Present(vitals(database_answers=not self.away), [])]

    async def look(self, seconds: float = INTERVAL) -> AlertState:
        """The alert's state after a look, so many seconds later."""
        self.now += seconds
        await self.evaluator.look()
        return self.board.states[AWAY]

    @property
    def board(self) -> AlertBoard:
        return self.boards.read()

    def sent(self) -> list[str]:
        return [message["event"] for message in self.board.undelivered]

    def noted(self) -> list[str]:
        return [event["event"] for event in self.board.unwritten]


async def test_time_in_which_nothing_looked_does_not_count() -> None:
    """A machine that slept for an hour wakes with an alert that had just begun to hold."""
    driven = Driven(away=True)
    assert (await driven.look()).phase == "pending"
    assert (await driven.look()).held == INTERVAL
    after = await driven.look(3_600)
    assert (after.phase, after.held) == ("pending", INTERVAL + 2 * INTERVAL)
    assert driven.sent() == []


async def test_an_alert_that_began_and_ended_within_its_silence_is_noted_and_not_sent() -> None:
    driven = Driven(hold="0s")
    await driven.look()
    driven.board.silences[AWAY] = {"until": float("inf"), "reason": "a drill", "at": 0.0}
    driven.away = True
    assert (await driven.look()).phase == "firing"
    driven.away = False
    assert (await driven.look()).phase == "ok"
    assert driven.noted() == ["firing", "resolved"]
    assert driven.sent() == []


async def test_an_alert_whose_silence_ends_while_it_fires_is_sent() -> None:
    driven = Driven(hold="0s", away=True)
    await driven.look()
    assert driven.sent() == ["firing"]
    silenced = Driven(hold="0s", away=True)
    silenced.board.silences[AWAY] = {"until": float("inf"), "reason": "a drill", "at": 0.0}
    await silenced.look()
    assert silenced.sent() == []
    silenced.board.silences.clear()
    await silenced.look()
    assert silenced.sent() == ["firing"]
    silenced.away = False
    await silenced.look()
    assert silenced.sent() == ["firing", "resolved"]


@dataclass
class Past:
    """A history in which alerts fire and are silenced, as other processes have left it.

    `between` is awaited once an answer is on its way.
    """

    firing: Mapping[str, AlertState]
    silences: dict[str, Json] = field(default_factory=dict)
    between: Callable[[], Awaitable[object]] | None = None
    events: list[str] = field(default_factory=list)

    async def add(self, events: Sequence[Json]) -> None:
        """As `AlertHistory.add`."""
        self.events += [each["event"] for each in events]
        self.silences |= {each["alert"]: each for each in events}

    async def standing(self) -> StandingAlerts:
        """As `AlertHistory.standing`."""
        found = StandingAlerts(dict(self.firing), dict(self.silences))
        if self.between is not None:
            await self.between()
        return found


def errands(
    driven: Driven, past: Past, webhook: "Hook | None" = None, **timing: Any
) -> AlertDelivery:
    made = AlertDelivery(
        {AWAY: driven.rule}, driven.boards, cast("AlertHistory", past),
        None if webhook is None else Target(cast("Webhook", webhook)), Observers(),
    )  # fmt: skip
    made.timing = Timing(**timing)
    return made


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


async def test_a_state_that_fires_in_the_table_is_taken_over_and_its_end_is_sent() -> None:
    driven = Driven()
    await driven.look()
    past = Past(
        {AWAY: AlertState("firing", 1.0, 1.0, told=True), "gone": AlertState("firing", told=True)}
    )
    remembering = asyncio.create_task(errands(driven, past).remember(0.0))
    await until(lambda: driven.board.restored)
    remembering.cancel()
    assert {name: s.phase for name, s in driven.board.states.items()} == {AWAY: "firing"}
    assert (await driven.look()).phase == "ok"
    assert driven.sent() == ["resolved"]


async def test_an_event_is_written_once_its_message_no_longer_waits() -> None:
    """A service that stops in between starts from the events, and sends the message then."""
    driven, past = Driven(hold="0s", away=True), Past({})
    delivering = errands(driven, past)
    await driven.look()
    driven.away = False
    await driven.look()
    assert driven.noted() == ["firing", "resolved"]
    await delivering.write_down()
    assert past.events == []
    for expected in (["firing"], ["firing", "resolved"]):
        del driven.board.undelivered[0]
        await delivering.write_down()
        assert past.events == expected
    assert driven.noted() == []


async def test_a_silence_that_comes_while_the_history_is_read_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer that is on its way has the silence before it, or none."""
    seconds_since_1970 = itertools.count(1_000_000)
    clock = SimpleNamespace(time=lambda: next(seconds_since_1970))
    monkeypatch.setattr("feedsvc.operations.alerts.desk.time", clock)
    driven, operator = Driven(), Principal("rosewood", "admin", "ann", math.inf)
    past = Past({})
    delivering = errands(driven, past)
    desk = AlertService(
        {AWAY: driven.rule}, driven.boards, cast("AlertHistory", past), delivering, "tests"
    )

    async def remember_once() -> None:
        driven.board.owner, driven.board.restored = driven.boards.worker, False
        remembering = asyncio.create_task(delivering.remember(0.0))
        await until(lambda: driven.board.restored)
        remembering.cancel()

    for seconds in (600.0, 0.0, 1_200.0):
        past.between = partial(desk.silence, AWAY, seconds, "a drill", operator)
        await remember_once()
        found = driven.board.silences[AWAY]
        assert found["until"] - found["at"] == seconds
    past.between = None
    later = {"until": math.inf, "reason": "of another instance", "at": clock.time()}
    past.silences[AWAY] = later
    await remember_once()
    assert driven.board.silences[AWAY] == later


@dataclass
class Hook:
    """A webhook that fails so often, and the times of its attempts."""

    clock: "Clock"
    failures: int
    attempts: list[float] = field(default_factory=list)

    async def deliver(self, _message: Mapping[str, Any]) -> DeliveryOutcome:
        """As `Webhook.deliver`."""
        self.attempts.append(self.clock.now)
        return "failed" if len(self.attempts) <= self.failures else "delivered"


@dataclass
class Clock:
    """A wall clock that pauses alone move on."""

    now: float = 1_000.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.mark.parametrize("failures", [9, 10_000])
async def test_a_message_is_tried_again_for_an_hour_a_minute_apart_at_most(
    failures: int, caplog: pytest.LogCaptureFixture
) -> None:
    driven, clock = Driven(), Clock()
    await driven.look()
    driven.board.undelivered.append({"id": "1", "at": clock.now, "event": "firing"})
    hook = Hook(clock, failures)
    made = errands(driven, Past({}), hook, now=lambda: clock.now, sleep=clock.sleep)
    with caplog.at_level(logging.ERROR, "feedsvc.operations.alerts"):
        delivering = asyncio.create_task(made.deliver())
        await until(lambda: not driven.board.undelivered)
        delivering.cancel()
    gaps = [round(b - a, 6) for a, b in zip(hook.attempts, hook.attempts[1:], strict=False)]
    assert gaps[:6] == [1, 2, 4, 8, 16, 32]
    assert set(gaps[6:]) == {60}
    lost = [line for line in caplog.messages if "could not be delivered for an hour" in line]
    if failures == 9:
        assert (len(hook.attempts), lost) == (10, [])
    else:
        assert len(lost) == 1
        assert 3_600 <= hook.attempts[-1] - 1_000 < 3_660
