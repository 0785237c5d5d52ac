"""A standby is promoted under those who follow a feed, and lacks what they were sent last."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg

from tests.support.live_copy import DEADLINE, LiveCopy
from tests.support.servers import as_login
from tests.support.service import bearer, serving
from tests.support.standby import lay_out, port_of, primary_running, standby_of

if TYPE_CHECKING:
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer

LOGIN, PASSWORD = "reader", "a reader's"
SCHEMA: Final = f"""
CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD.replace("'", "''")}';
CREATE SCHEMA app;
CREATE TABLE app.things (id int PRIMARY KEY, text text NOT NULL);
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS: Final = """
[things]
relation = "app.things"
key = ["id"]
shared = true
"""


class Writer:
    """Writes row by row, and notes the state that each write leads to before it is made."""

    def __init__(self, connection: asyncpg.Connection, rows: dict[int, str]) -> None:
        self.rows = rows
        self.states = [dict(rows)]
        self._connection = connection

    async def put(self, number: int, text: str) -> None:
        self.rows[number] = text
        self.states.append(dict(self.rows))
        await self._connection.execute(
            "INSERT INTO app.things VALUES ($1, $2)"
            " ON CONFLICT (id) DO UPDATE SET text = excluded.text",
            number,
            text,
        )

    async def drop(self, number: int) -> None:
        del self.rows[number]
        self.states.append(dict(self.rows))
        await self._connection.execute("DELETE FROM app.things WHERE id = $1", number)


class Follower:
    """A copy that finds each of its states among those of its life of the database."""

    def __init__(self, http: aiohttp.ClientSession, lives: list[Writer]) -> None:
        self.copy = LiveCopy(
            http, "/v1/feeds/things", bearer(), given={"live": "1", "format": "sse"}
        )
        self.copy.on_state = self._note
        self.mistakes: list[str] = []
        self._lives = lives

    @property
    def rows(self) -> dict[int, str]:
        return {row["id"]: row["text"] for row in self.copy.rows.values()}

    def _note(self, _: LiveCopy) -> None:
        life = len(self.copy.reset_reasons)
        if life >= len(self._lives) or self.rows not in self._lives[life].states:
            self.mistakes.append(f"{life}: {json.dumps(self.rows)}")


async def until_sent(old: asyncpg.Connection, new: asyncpg.Connection) -> None:
    """Wait until the standby has all that was written."""
    # Of what is inserted: without synchronous commits it is written a moment later.
    written = await old.fetchval("SELECT pg_current_wal_insert_lsn()::text")
    async with asyncio.timeout(DEADLINE):
        while not await new.fetchval(
            "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written
        ):
            await asyncio.sleep(0.02)


async def until_parted(new: asyncpg.Connection) -> None:
    await new.execute("ALTER SYSTEM SET primary_conninfo = ''")
    await new.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(DEADLINE):
        while await new.fetchval("SELECT count(*) FROM pg_stat_wal_receiver"):
            await asyncio.sleep(0.02)


def both(old: PostgresServer, new: PostgresServer) -> str:
    """The old one first."""
    there = f"127.0.0.1:{port_of(old.url())},127.0.0.1:{port_of(new.url())}"
    return as_login(new.url(), LOGIN, PASSWORD).replace(f"127.0.0.1:{port_of(new.url())}", there)


async def test_each_state_is_one_of_the_database_that_it_names(tmp_path: Path) -> None:
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(DATASETS)
    with primary_running() as old:
        await lay_out(old, SCHEMA, datasets, LOGIN)
        with standby_of(old) as new, serving(both(old, new), datasets=datasets) as service:
            former, latter = await asyncpg.connect(old.url()), await asyncpg.connect(new.url())
            lives = [Writer(former, {})]
            async with aiohttp.ClientSession(service.url) as http:
                stays, away = Follower(http, lives), Follower(http, lives)
                following = asyncio.create_task(
                    stays.copy.until(lambda: len(lives) == 2 and stays.rows == lives[1].rows)
                )
                for number in range(6):
                    await lives[0].put(number, "kept")
                await until_sent(former, latter)
                await until_parted(latter)
                kept = dict(lives[0].rows)
                await lives[0].put(1, "lost")
                await lives[0].drop(2)
                await away.copy.until(lambda: away.rows == lives[0].rows)
                async with asyncio.timeout(DEADLINE):
                    while stays.rows != lives[0].rows:
                        await asyncio.sleep(0.02)
                await asyncio.to_thread(old.stop, "immediate")
                assert await latter.fetchval("SELECT pg_promote()")
                lives.append(Writer(latter, kept))
                await lives[1].put(9, "new")
                await lives[1].drop(3)
                await following
                await away.copy.until(lambda: away.rows == lives[1].rows)
            for follower in (stays, away):
                assert follower.mistakes == []
                assert follower.copy.reset_reasons == ["epoch"]
            await former.close()
            await latter.close()
