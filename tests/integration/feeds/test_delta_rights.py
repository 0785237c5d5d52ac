"""Random policies, moves and grants: no key is told that its reader never saw, and no row stays."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from feedsvc.core.problems import Reset
from feedsvc.datasets.dataset import declarations
from feedsvc.feeds.sql import former_rows
from tests.support.drawn import DRAWN, share
from tests.support.followers import Follower, Reader, Rows, followed, prepare
from tests.support.log_world import install
from tests.support.servers import LOGIN, as_login

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from feedsvc.datasets.dataset import Dataset
    from feedsvc.feeds.delta_wait import Deltas
    from tests.integration.conftest import NewDatabase

STEPS: Final = 70
MOST_POLICIES: Final = 3
READERS: Final = (Reader("a"), Reader("a", "admin"), Reader("a", client="1"), Reader("b"))
MEMBERS: Final = f"""
CREATE TABLE shop.members (client bigint, status text);
GRANT SELECT ON shop.members TO {LOGIN};
DROP POLICY readers ON shop.orders;
CREATE POLICY tenants ON shop.orders AS RESTRICTIVE
    USING (tenant = (SELECT current_setting('feedsvc.tenant', true)))
"""
ATOMS: Final = (
    "level < 3", "level < 7", "client IS NOT NULL", "status = 'open'", "name <> '7'", "hidden > 2",
    "(SELECT current_setting('feedsvc.role', true)) = 'admin'",
    "client::text = (SELECT current_setting('feedsvc.client', true))",
    "EXISTS (SELECT FROM shop.members m WHERE m.client = orders.client)",
    "client IN (SELECT m.client FROM shop.members m WHERE m.status = orders.status)",
    "orders.level <> ALL ('{1,2}'::int[])", "orders.* IS NOT NULL", "10 / level > 3",
)  # fmt: skip
AS_READER: Final = """
SELECT set_config('feedsvc.tenant', $1, true), set_config('feedsvc.role', $2, true),
    set_config('feedsvc.client', $3, true)
"""
OF_READER: Final = """
SELECT number, row_to_json(s)::text FROM (
    SELECT number, name, status, level FROM shop.orders
    WHERE tenant = $1 AND ($2::bigint IS NULL OR client = $2)
) AS s
"""


@pytest.fixture(scope="module")
async def world(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("rights") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        owner = await asyncpg.connect(url)
        await owner.execute(MEMBERS)
        await install(owner, declarations(file))
        await owner.close()
        yield url, file


@pytest.fixture(scope="module")
async def site(world: tuple[str, Path]) -> AsyncIterator[tuple[Dataset, Deltas]]:
    async with followed(*world) as made:
        yield made


class Chances:
    """Random statements of the owner."""

    def __init__(self, owner: asyncpg.Connection, file: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self._owner = owner
        self._file = file

    async def begin(self) -> None:
        """Some rows, members and a policy."""
        await self._owner.execute("TRUNCATE shop.orders, shop.members")
        for _ in range(25):
            await self._owner.execute(self._row())
        await self._policy()
        await install(self._owner, declarations(self._file))

    async def step(self) -> None:
        """A write, now and then of members, policies or triggers."""
        act = self.draw.random()
        if act < 0.04:
            await self._policy()
        elif act < 0.07:
            await install(self._owner, declarations(self._file))
        elif act < 0.12:
            client = self.draw.randrange(3)
            status = self.draw.choice(["open", "done"])
            await self._owner.execute("DELETE FROM shop.members WHERE client = $1", client)
            if self.draw.random() < 0.6:
                insert = "INSERT INTO shop.members VALUES ($1, $2)"
                await self._owner.execute(insert, client, status)
        elif act < 0.3:
            await self._owner.execute(self._row())
        else:
            await self._owner.execute(self._change())

    async def _policy(self) -> None:
        """Another set of policies."""
        for number in range(MOST_POLICIES):
            await self._owner.execute(f"DROP POLICY IF EXISTS drawn_{number} ON shop.orders")
        for number in range(self.draw.randrange(1, MOST_POLICIES + 1)):
            some = self.draw.sample(ATOMS, self.draw.randrange(1, 3))
            test = self.draw.choice([" AND ", " OR "]).join(f"({atom})" for atom in some)
            kind = "RESTRICTIVE" if number == 2 else "PERMISSIVE"
            await self._owner.execute(
                f"CREATE POLICY drawn_{number} ON shop.orders AS {kind} FOR SELECT USING ({test})"
            )

    def _row(self) -> str:
        """A row with a new key or another one's; no level is 0, by which a policy divides."""
        draw = self.draw
        client = draw.choice(["NULL", "0", "1", "2"])
        return (
            "INSERT INTO shop.orders (number, tenant, client, level, status, name, hidden) VALUES"
            f" ({draw.randrange(1 << 40)}, '{draw.choice('ab')}', {client},"
            f" {draw.randrange(1, 10)}, '{draw.choice(['open', 'done'])}', '{draw.randrange(9)}',"
            f" {draw.randrange(5)})"
        )

    def _change(self) -> str:
        draw = self.draw
        one = (
            "number IN (SELECT number FROM shop.orders ORDER BY number"
            f" OFFSET {draw.randrange(25)} LIMIT {draw.choice([1, 1, 3])})"
        )
        change = draw.choice(
            [
                f"level = {draw.randrange(1, 10)}", f"client = {draw.randrange(3)}",
                f"tenant = '{draw.choice('ab')}', level = {draw.randrange(1, 10)}",
                f"tenant = '{draw.choice('ab')}'", f"status = '{draw.choice(['open', 'done'])}'",
                f"name = '{draw.randrange(9)}'", f"hidden = {draw.randrange(5)}",
                f"number = number + {draw.randrange(1, 1 << 20)}",
            ]
        )  # fmt: skip
        if draw.random() < 0.2:
            return f"DELETE FROM shop.orders WHERE {one}"
        return f"UPDATE shop.orders SET {change} WHERE {one}"


async def seen(login: asyncpg.Connection, reader: Reader) -> Rows:
    """The rows that PostgreSQL shows the reader, narrowed as the token is."""
    who = reader.principal
    async with login.transaction():
        await login.fetch(AS_READER, *who.scope)
        client = None if who.client is None else int(who.client)
        rows = await login.fetch(OF_READER, who.tenant, client)
        return {row[0]: json.loads(row[1]) for row in rows}


@DRAWN
@pytest.mark.parametrize("seed", range(share(8)))
async def test_no_reader_is_told_of_what_he_never_saw_and_no_row_stays(
    world: tuple[str, Path], site: tuple[Dataset, Deltas], seed: int
) -> None:
    await follow_by_chance(world, site, seed)


@pytest.mark.parametrize("told", ["true", "false"])
async def test_without_the_policies_the_test_before_would_fail(
    world: tuple[str, Path],
    site: tuple[Dataset, Deltas],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keys of all rows are told, or of none that are gone."""
    planted = former_rows._VISIBLE.replace("({policy})", told)
    monkeypatch.setattr(former_rows, "_VISIBLE", planted)
    with pytest.raises(AssertionError):
        await follow_by_chance(world, site, 0)


async def follow_by_chance(
    world: tuple[str, Path], site: tuple[Dataset, Deltas], seed: int
) -> None:
    """Chances happen, and followers go on now and then. Raises AssertionError."""
    owner, login = await asyncpg.connect(world[0]), await asyncpg.connect(as_login(world[0]))
    try:
        chances = Chances(owner, world[1], seed)
        await chances.begin()
        followers = [Follower(reader, *site) for reader in READERS]
        ever: dict[Reader, set[int]] = {}
        for follower in followers:
            await follower.export()
            ever[follower.reader] = set(follower.rows)
        deltas, reasons = 0, set[str]()
        for _ in range(STEPS):
            await chances.step()
            for follower in followers:
                rows = await seen(login, follower.reader)
                ever[follower.reader] |= rows.keys()
                if chances.draw.random() > 0.4:
                    continue
                try:
                    deltas += await follower.follow()
                    assert follower.told <= ever[follower.reader], "a key that was never seen"
                except Reset as reset:
                    reasons.add(reset.reason)
                    await follower.export()
                assert follower.rows == rows
                ever[follower.reader] = set(rows)
        assert deltas
        assert reasons <= {"rights", "schema"}
    finally:
        await owner.close()
        await login.close()
