"""Instances of a group: one message that an alert begins, and one that it is over for all."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import Pool, PoolSet
from feedsvc.core.events import Observers
from feedsvc.core.problems import Unavailable
from feedsvc.operations.alerts.delivery import AlertDelivery, Target, Timing
from feedsvc.operations.alerts.group import Group
from feedsvc.operations.alerts.history import AlertHistory
from feedsvc.operations.alerts.webhook import DeliveryOutcome, Webhook
from feedsvc.settings import Database, Settings
from tests.support.servers import with_database, world_of_its_own
from tests.unit.test_alert_evaluator import AWAY, Driven

NAME = "feeds"


@dataclass
class Hook:
    """The webhook of all instances; while it is `down` every attempt fails."""

    received: list[Mapping[str, Any]] = field(default_factory=list)
    down: bool = False
    attempts: int = 0

    async def deliver(self, message: Mapping[str, Any]) -> DeliveryOutcome:
        """As `Webhook.deliver`."""
        self.attempts += 1
        if self.down:
            return "failed"
        self.received.append(message)
        return "delivered"

    def events(self) -> list[str]:
        return [message["event"] for message in self.received]


class Instance:
    """One service of the group, whose alert fires while its database is `away`."""

    def __init__(self, name: str, pool: Pool, hook: Hook) -> None:
        self.driven = Driven(hold="0s")
        self.group = Group(pool, NAME, name)
        self.errands = AlertDelivery(
            {AWAY: self.driven.rule}, self.driven.boards, AlertHistory(pool, name),
            Target(cast("Webhook", hook), self.group), Observers(),
        )  # fmt: skip
        self.errands.timing = Timing(now=lambda: 0.0, sleep=lambda _: asyncio.sleep(0.01))

    @property
    def waiting(self) -> int:
        return len(self.driven.board.undelivered)

    async def turns(self, *, away: bool) -> None:
        self.driven.away = away
        await self.driven.look()
        for message in self.driven.board.undelivered:
            message["at"] = 0.0


@dataclass
class World:
    """Two instances, their webhook, and their database as its owner."""

    hook: Hook
    one: Instance
    other: Instance
    owner: asyncpg.Connection


@asynccontextmanager
async def delivering(*instances: Instance) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(instance.errands.deliver()) for instance in instances]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def world(admin_url: str) -> AsyncIterator[World]:
    async with world_of_its_own(admin_url) as url:
        owner = await asyncpg.connect(with_database(admin_url, url.rpartition("/")[2]))
        pools = PoolSet(Settings(database=Database.model_validate({"url": url})))
        await pools.open()
        hook = Hook()
        one, other = (Instance(name, pools["write"], hook) for name in ("one", "other"))
        yield World(hook, one, other, owner)
        await pools.close(1.0)
        await owner.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_outage_that_all_see_is_one_message_and_so_is_its_end(world: World) -> None:
    one, other = world.one, world.other
    async with delivering(one, other):
        for _ in range(2):
            await asyncio.gather(one.turns(away=True), other.turns(away=True))
            await until(lambda: one.waiting == other.waiting == 0)
            assert world.hook.events() == ["firing"]
            assert (world.hook.received[0]["group"], world.hook.received[0]["key"]) == (
                NAME, f"{NAME}/{AWAY}",
            )  # fmt: skip
            await one.turns(away=False)
            assert await one.group.judge({"alert": AWAY, "event": "resolved"}) == "hold"
            assert world.hook.events() == ["firing"], "it still fires at the other one"
            await other.turns(away=False)
            await until(lambda: one.waiting == other.waiting == 0)
            assert world.hook.events() == ["firing", "resolved"]
            world.hook.received.clear()


async def test_what_an_instance_could_not_send_before_it_died_another_one_sends(
    world: World,
) -> None:
    world.hook.down = True
    async with delivering(world.one):
        await world.one.turns(away=True)
        await until(lambda: world.hook.attempts > 0)
    world.hook.down = False
    await world.other.turns(away=True)
    async with delivering(world.other):
        assert await world.other.group.judge({"alert": AWAY, "event": "firing"}) == "hold"
        assert world.hook.events() == []
        sql = "UPDATE feedsvc.alert_members SET seen = seen - interval '1 hour' WHERE instance = $1"
        await world.owner.execute(sql, "one")
        await until(lambda: world.hook.events() == ["firing"])
        await world.other.turns(away=False)
        await until(lambda: world.hook.events() == ["firing", "resolved"])


async def test_an_incident_that_instances_left_open_silences_nothing(world: World) -> None:
    """They were all killed while it was known; the next outage is a message again."""
    async with delivering(world.one):
        await world.one.turns(away=True)
        await until(lambda: world.one.waiting == 0)
    await world.owner.execute("UPDATE feedsvc.alert_members SET seen = seen - interval '1 hour'")
    async with delivering(world.other):
        await world.other.turns(away=True)
        await until(lambda: world.other.waiting == 0)
    assert world.hook.events() == ["firing", "firing"]


async def test_while_postgresql_is_away_each_sends_with_the_same_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("PostgreSQL is away.", 1)

    monkeypatch.setattr(Group, "judge", away)
    async with delivering(world.one, world.other):
        await asyncio.gather(world.one.turns(away=True), world.other.turns(away=True))
        await until(lambda: len(world.hook.received) == 2)
        monkeypatch.undo()
        await asyncio.gather(world.one.turns(away=False), world.other.turns(away=False))
        await until(lambda: len(world.hook.received) == 4)
    assert sorted(world.hook.events()) == ["firing", "firing", "resolved", "resolved"]
    assert {message["key"] for message in world.hook.received} == {f"{NAME}/{AWAY}"}
    assert world.one.driven.board.alone == world.other.driven.board.alone == []
