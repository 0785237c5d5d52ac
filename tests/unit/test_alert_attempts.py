"""Attempts to deliver an alert's message: how far apart, and for how long."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import pytest

from feedsvc.core.events import Observers
from feedsvc.operations.alerts.delivery import AlertDelivery, Target, Timing
from feedsvc.operations.alerts.history import AlertHistory
from feedsvc.operations.alerts.webhook import DeliveryOutcome, Webhook
from tests.unit.test_alert_evaluator import AWAY, Driven


class Away:
    """A webhook that never answers, at a clock that goes on while a pause lasts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tried_at: list[float] = []

    async def deliver(self, _message: Mapping[str, Any]) -> DeliveryOutcome:
        """As `Webhook.deliver`."""
        self.tried_at.append(self.now)
        return "failed"

    async def pause(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


async def test_it_is_tried_for_an_hour_and_a_minute_apart_at_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driven, hook = Driven(hold="0s"), Away()
    driven.away = True
    await driven.look()
    (message,) = driven.board.undelivered
    message["at"] = 0.0
    errands = AlertDelivery(
        {AWAY: driven.rule}, driven.boards, cast("AlertHistory", None),
        Target(cast("Webhook", hook)), Observers(),
    )  # fmt: skip
    errands.timing = Timing(now=lambda: hook.now, sleep=hook.pause)
    delivering = asyncio.create_task(errands.deliver())
    try:
        async with asyncio.timeout(60):
            while driven.board.undelivered:
                await asyncio.sleep(0)
    finally:
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
    apart = [after - before for before, after in pairwise(hook.tried_at)]
    assert apart[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert set(apart[6:]) == {60.0}
    assert 3_600.0 <= hook.tried_at[-1] < 3_660.0
    assert "could not be delivered for an hour, and is lost" in caplog.text
