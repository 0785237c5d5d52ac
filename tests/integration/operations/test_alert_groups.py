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
from feedsvc.operations.alerts.group import Due, Group, Verdict
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


@asynccontextmanager
async def remembering(instance: Instance) -> AsyncIterator[None]:
    task = asyncio.create_task(instance.errands.remember(0.01))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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
    async with asyncio.timeout(60):
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


def unanswered_once(monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    """The first verdict of such a message is committed, and its answer is lost."""
    asked, judge = list[str](), Group.judge

    async def lost(group: Group, message: Mapping[str, Any], *rest: Any) -> Verdict:
        verdict = await judge(group, dict(message), *rest)
        asked.append(message["event"])
        if asked.count(event) == 1 and message["event"] == event:
            raise TimeoutError
        return verdict

    monkeypatch.setattr(Group, "judge", lost)


async def test_the_end_is_sent_though_it_could_not_be_marked_that_the_beginning_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered, failures = Group.delivered, [Unavailable("PostgreSQL is away.", 1)]

    async def fails_once(group: Group, alert: str) -> None:
        if failures:
            raise failures.pop()
        await delivered(group, alert)

    monkeypatch.setattr(Group, "delivered", fails_once)
    async with delivering(world.one):
        await world.one.turns(away=True)
        await until(lambda: world.one.waiting == 0)
        await world.one.turns(away=False)
        await until(lambda: world.one.waiting == 0)
    assert not failures
    assert world.hook.events() == ["firing", "resolved"]
    assert world.one.driven.board.owed == {}


async def test_a_beginning_that_could_not_be_marked_is_marked_with_the_next_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("PostgreSQL is away.", 1)

    one, other = world.one, world.other
    monkeypatch.setattr(Group, "delivered", away)
    async with delivering(one, other):
        await one.turns(away=True)
        await until(lambda: one.waiting == 0)
        await other.turns(away=True)
        assert await other.group.judge({"alert": AWAY, "event": "firing"}) == "hold"
        async with remembering(one):
            await until(lambda: other.waiting == 0)
    assert world.hook.events() == ["firing"]
    assert one.driven.board.owed == {}


async def test_an_end_whose_commit_was_not_answered_is_sent_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unanswered_once(monkeypatch, "resolved")
    async with delivering(world.one):
        await world.one.turns(away=True)
        await until(lambda: world.one.waiting == 0)
        await world.one.turns(away=False)
        await until(lambda: world.one.waiting == 0)
    assert world.hook.events() == ["firing", "resolved"]
    assert "closing" not in world.hook.received[-1]


async def test_an_end_that_another_one_is_to_send_is_not_sent_for_an_answer_that_was_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = world.one, world.other
    async with delivering(one, other):
        await asyncio.gather(one.turns(away=True), other.turns(away=True))
        await until(lambda: one.waiting == other.waiting == 0)
        unanswered_once(monkeypatch, "resolved")
        await one.turns(away=False)
        await other.turns(away=False)
        await until(lambda: one.waiting == other.waiting == 0)
    assert world.hook.events() == ["firing", "resolved"]


async def test_a_beginning_whose_commit_was_not_answered_hides_no_later_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unanswered_once(monkeypatch, "firing")
    async with delivering(world.one):
        for away in (True, False, True, False):
            await world.one.turns(away=away)
            await until(lambda: world.one.waiting == 0)
    assert world.hook.events() == ["firing", "resolved", "firing", "resolved"]
    assert await world.owner.fetchval("SELECT count(*) FROM feedsvc.alert_members") == 0


async def test_a_renewal_brings_no_membership_back_that_ends_while_it_begins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, renewed = Group.renew, list[object]()

    async def late(group: Group, *what: Any) -> object:
        if not renewed:
            await world.one.turns(away=False)
            await until(lambda: world.one.waiting == 0)
        renewed.append(await renew(group, *what))
        return renewed[-1]

    async with delivering(world.one):
        await world.one.turns(away=True)
        await until(lambda: world.one.waiting == 0)
        monkeypatch.setattr(Group, "renew", late)
        async with remembering(world.one):
            await until(lambda: bool(renewed))
    assert world.hook.events() == ["firing", "resolved"]
    assert await world.owner.fetchval("SELECT count(*) FROM feedsvc.alert_members") == 0


async def test_a_renewal_reads_what_fires_behind_the_groups_lock(world: World) -> None:
    read = list[bool]()

    def due() -> Due:
        read.append(True)
        return Due([], {})

    waiting = """
        SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = pg_locks.database
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
    """
    async with world.owner.transaction():
        lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
        await world.owner.execute(lock, f"feedsvc alerts {NAME}")
        renewing = asyncio.create_task(world.one.group.renew(due))
        async with asyncio.timeout(60):
            while not await world.owner.fetchval(waiting):
                await asyncio.sleep(0.01)
        assert not read
    await renewing
    assert read


async def test_an_outage_is_sent_though_it_is_renewed_before_the_group_is_asked(
    world: World,
) -> None:
    """The incident was left open, delivered, by instances that are gone."""
    async with delivering(world.other):
        await world.other.turns(away=True)
        await until(lambda: world.other.waiting == 0)
    await world.owner.execute("UPDATE feedsvc.alert_members SET seen = seen - interval '1 hour'")
    await world.one.turns(away=True)
    async with remembering(world.one):
        await until(lambda: world.one.driven.board.restored)
    async with delivering(world.one):
        await until(lambda: world.one.waiting == 0)
    assert world.hook.events() == ["firing", "firing"]
