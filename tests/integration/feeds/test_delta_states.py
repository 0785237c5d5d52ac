"""Every cursor is a state: at each that is handed out, a follower has what its snapshot shows."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import asyncpg
import pytest

from feedsvc.feeds import feed_log
from tests.support.drawn import DRAWN, share
from tests.support.followers import (
    READERS,
    Follower,
    Oracle,
    Reader,
    Writer,
    followed,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from feedsvc.datasets.dataset import Dataset
    from feedsvc.feeds.delta_wait import Deltas
    from tests.integration.conftest import NewDatabase

PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
WRITERS = 4
DEADLINE = 60.0
STEPS = 100


@pytest.fixture(scope="module")
async def world(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    """A database with the table and its log, and the datasets file."""
    file = tmp_path_factory.mktemp("followed") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        owner = await asyncpg.connect(url)
        await owner.execute(NUMBERED)
        await owner.close()
        yield url, file


@pytest.fixture(scope="module")
async def site(world: tuple[str, Path]) -> AsyncIterator[tuple[Dataset, Deltas]]:
    async with followed(*world) as made:
        yield made


class Run:
    """Writers and followers, and the mistakes that the followers' copies had."""

    def __init__(self, url: str, site: tuple[Dataset, Deltas], seed: int) -> None:
        self._url = url
        self._site = site
        self._random = random.Random(seed)
        self.mistakes: list[str] = []
        self.checks = 0

    async def go(self, steps: int) -> None:
        """Write and follow, and compare each state with the oracle's."""
        owner = await asyncpg.connect(self._url)
        connections = [
            await asyncpg.connect(self._url, server_settings={"lock_timeout": "20ms"})
            for _ in range(WRITERS)
        ]
        try:
            await owner.execute("DELETE FROM shop.orders")
            oracle = Oracle(owner)
            writers = [Writer(c, self._random.randrange(1 << 30)) for c in connections]
            followers = [Follower(reader, *self._site) for reader in READERS]
            await asyncio.gather(*(follower.export() for follower in followers))
            for _ in range(steps):
                await asyncio.gather(*(w.step() for w in self._random.sample(writers, 2)))
                if self._random.random() < 0.6:
                    await self._follow(oracle, self._random.choice(followers))
            for writer in writers:
                await writer.close()
            for follower in followers:
                await self._follow(oracle, follower)
        finally:
            for connection in connections:
                await connection.close()
            for (prepared,) in await owner.fetch(PREPARED):
                await owner.execute(f"ROLLBACK PREPARED '{prepared}'")
            await owner.close()

    async def _follow(self, oracle: Oracle, follower: Follower) -> None:
        before, had = follower.snapshot, set(follower.rows)
        await follower.follow()
        after, reader = follower.snapshot, follower.reader
        self.checks += 1
        if follower.rows != await oracle.rows(after, reader):
            self.mistakes.append(f"{reader} is not in the state of {after}, {before} before")
        if unknown := follower.told - await oracle.seen_between(before, after, reader):
            self.mistakes.append(f"{reader} was told of {unknown}, having had {had}")


@DRAWN
@pytest.mark.parametrize("seed", range(share(4)))
async def test_a_follower_has_the_state_of_each_of_its_cursors(
    world: tuple[str, Path], site: tuple[Dataset, Deltas], seed: int
) -> None:
    run = Run(world[0], site, seed)
    await run.go(STEPS)
    assert run.mistakes == []
    assert run.checks > STEPS / 3


AS_IT_IS = ""
TAIL = "l.xid >= pg_snapshot_xmax($3::text::pg_snapshot)"
WHAT_RAN = "pg_snapshot_xip($3::text::pg_snapshot)"
LOCKED = """ and l.xid::text::bigint < coalesce((
    select min(t.transactionid::text::bigint) from pg_locks t join pg_locks r using (pid)
    where t.locktype = 'transactionid' and r.mode = 'RowExclusiveLock'
        and r.relation = 'feedsvc.log_0'::regclass
), 9223372036854775807)"""
NUMBERED = """
CREATE TABLE shop.numbered (seq bigserial, lsn pg_lsn, key text, tenant text);
CREATE TABLE shop.reached (snapshot text, seq bigint, lsn pg_lsn);
CREATE FUNCTION shop.number() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO shop.numbered (lsn, key, tenant)
        VALUES (pg_current_wal_insert_lsn(), NEW.number, NEW.tenant);
    RETURN NULL;
END
$$;
CREATE TRIGGER bbb_number AFTER INSERT ON shop.orders
    FOR EACH ROW EXECUTE FUNCTION shop.number();
GRANT SELECT ON shop.numbered, shop.reached TO feedsvc_tests
"""
REACHED = """
INSERT INTO shop.reached VALUES (
    $1, (SELECT coalesce(max(seq), 0) FROM shop.numbered), pg_current_wal_insert_lsn())
"""
# A log whose rows have numbers of their own, and cursors that are one of these.
BY_NUMBER = """
SELECT n.key, null::text[] AS former, 'u' AS ops, 1::bigint AS rows
FROM shop.numbered n
WHERE n.tenant = 'a' AND n.{0} > (SELECT max(r.{0}) FROM shop.reached r WHERE r.snapshot = $3::text)
    AND $1::integer IS NOT NULL AND $2::bigint[] IS NOT NULL AND $4::bigint > 0
LIMIT $5::bigint
"""
MUTANTS = {
    AS_IT_IS: {},
    # By numbers alone, as by a sequence: what has a lower one and commits later is passed over.
    "by sequence": {WHAT_RAN: "NULL::xid8"},
    # What is older than every open transaction, although the cursor moves on.
    "below xmin": {TAIL: f"{TAIL} and l.xid < pg_snapshot_xmin(pg_current_snapshot())"},
    # Up to the oldest transaction that has written to the log, by its locks, and from there on.
    "horizon by relation": {TAIL: TAIL + LOCKED, WHAT_RAN: "NULL::xid8"},
}
BY_NUMBERS = {name: BY_NUMBER.format(name) for name in ("seq", "lsn")}


async def overtaken(url: str, site: tuple[Dataset, Deltas]) -> list[Reader]:
    """Transactions end in another order than they have begun; the readers whose copy is wrong."""
    owner, early, late = [await asyncpg.connect(url) for _ in range(3)]
    insert = "INSERT INTO shop.orders (number, tenant, level, client, status) VALUES"
    wrong: list[Reader] = []
    try:
        await owner.execute("DELETE FROM shop.orders")
        followers = [Follower(reader, *site) for reader in (READERS[0], READERS[1])]
        for follower in followers:
            await follower.export()
            await owner.execute(REACHED, str(follower.snapshot))
        # It has its number long before it writes what is logged.
        await early.execute("BEGIN; SELECT pg_current_xact_id()")
        await late.execute(f"{insert} (1, 'a', 1, 1, 'open')")
        for connection, statement in (
            (early, "SELECT 1"),
            (early, f"{insert} (2, 'a', 1, 1, 'open'); SAVEPOINT s"),
            (late, f"{insert} (3, 'a', 1, 1, 'open')"),
            (early, "COMMIT"),
        ):
            await connection.execute(statement)
            for follower in followers:
                await follower.follow()
                await owner.execute(REACHED, str(follower.snapshot))
                rows = await Oracle(owner).rows(follower.snapshot, follower.reader)
                if follower.rows != rows:
                    wrong.append(follower.reader)
    finally:
        for connection in (early, late, owner):
            await connection.close()
    return wrong


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_states_are_wrong_where_the_log_is_read_in_another_way(
    world: tuple[str, Path],
    site: tuple[Dataset, Deltas],
    mutant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sql = feed_log._WRITTEN
    for former, planted in MUTANTS[mutant].items():
        assert former in sql
        sql = sql.replace(former, planted)
    monkeypatch.setattr(feed_log, "_WRITTEN", sql)
    assert bool(await overtaken(world[0], site)) == (mutant != AS_IT_IS)


@pytest.mark.parametrize("number", BY_NUMBERS)
async def test_states_are_wrong_where_the_log_is_read_by_numbers_of_its_own(
    world: tuple[str, Path],
    site: tuple[Dataset, Deltas],
    number: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a sequence, or by the LSN at which a row was written: neither is the order of commits."""
    monkeypatch.setattr(feed_log, "_WRITTEN", BY_NUMBERS[number])
    assert await overtaken(world[0], site)


@pytest.mark.parametrize("mutant", [AS_IT_IS, "below xmin"])
async def test_no_open_transaction_delays_what_others_commit(
    world: tuple[str, Path],
    site: tuple[Dataset, Deltas],
    admin_url: str,
    mutant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A writer, a prepared transaction and another database's writer are open for the whole time.

    Each commit is in the very next delta, also in one that waits for it.
    """
    sql = feed_log._WRITTEN
    for former, planted in MUTANTS[mutant].items():
        sql = sql.replace(former, planted)
    monkeypatch.setattr(feed_log, "_WRITTEN", sql)
    owner, writer, prepared, elsewhere = [
        await asyncpg.connect(url) for url in (world[0], world[0], world[0], admin_url)
    ]
    insert = "INSERT INTO shop.orders (number, tenant, level) VALUES"
    late = 0
    try:
        await owner.execute("DELETE FROM shop.orders")
        await elsewhere.execute("BEGIN; SELECT pg_current_xact_id()")
        await writer.execute(f"BEGIN; {insert} (1, 'a', 1)")
        await prepared.execute(f"BEGIN; {insert} (2, 'a', 1); PREPARE TRANSACTION 'idle'")
        follower = Follower(Reader("a"), *site)
        await follower.export()
        for number in range(3, 4 if mutant else 8):
            waiting = follower.copy()
            waits = asyncio.create_task(waiting.follow(wait="0.3" if mutant else "30"))
            await owner.execute(f"{insert} ({number}, 'a', 1)")
            await follower.follow()
            await waits
            late += (number not in follower.rows) + (number not in waiting.rows)
        assert bool(late) == (mutant != AS_IT_IS)
        assert {1, 2}.isdisjoint(follower.rows)
        await writer.execute("COMMIT")
        await owner.execute("COMMIT PREPARED 'idle'")
        await follower.follow()
        assert {1, 2} <= follower.rows.keys()
    finally:
        for (name,) in await owner.fetch(PREPARED):
            await owner.execute(f"ROLLBACK PREPARED '{name}'")
        for connection in (owner, writer, prepared, elsewhere):
            await connection.close()


async def test_deltas_compose_and_a_repeated_one_changes_nothing(
    world: tuple[str, Path], site: tuple[Dataset, Deltas]
) -> None:
    draw = random.Random(1)
    owner = await asyncpg.connect(world[0])
    writing = await asyncpg.connect(world[0])
    writer = Writer(writing, 1)
    try:
        stepwise = [Follower(reader, *site) for reader in READERS]
        for follower in stepwise:
            await follower.export()
        begun = [follower.copy() for follower in stepwise]
        for _ in range(80):
            await writer.step()
            if draw.random() < 0.2:
                follower = draw.choice(stepwise)
                before = follower.copy()
                await follower.follow()
                # The same delta again, upon what it has made.
                repeated = follower.copy()
                repeated.cursor = before.cursor
                await repeated.follow()
                if repeated.snapshot == follower.snapshot:
                    assert repeated.rows == follower.rows
        await writer.close()
        for follower, at_once in zip(stepwise, begun, strict=True):
            await follower.follow()
            await at_once.follow()
            assert at_once.rows == follower.rows
            assert await follower.follow() == 0
            assert follower.rows == await Oracle(owner).rows(follower.snapshot, follower.reader)
    finally:
        await owner.close()
        await writing.close()


async def test_a_key_is_not_told_of_a_row_that_came_from_where_it_was_seen_by_others(
    world: tuple[str, Path], site: tuple[Dataset, Deltas]
) -> None:
    owner = await asyncpg.connect(world[0])
    try:
        await owner.execute(
            "DELETE FROM shop.orders;"
            "INSERT INTO shop.orders (number, tenant, level) VALUES (1, 'b', 1), (2, 'a', 9)"
        )
        follower = Follower(Reader("a"), *site)
        await follower.export()
        await owner.execute("UPDATE shop.orders SET tenant = 'a', level = 9 WHERE number = 1")
        await owner.execute("UPDATE shop.orders SET level = 8 WHERE number = 2")
        assert (await follower.follow(), follower.rows) == (0, {})
    finally:
        await owner.close()


async def test_a_request_that_leaves_is_no_longer_asked_for(
    site: tuple[Dataset, Deltas],
) -> None:
    arrivals = site[1].arrivals
    follower = Follower(Reader("a"), *site)
    await follower.export()
    waiting = [asyncio.create_task(follower.copy().follow(wait="30")) for _ in range(3)]
    async with asyncio.timeout(DEADLINE):
        while len(arrivals._waiters) < len(waiting):
            await asyncio.sleep(0.02)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        while arrivals._waiters or arrivals._asking is not None:
            await asyncio.sleep(0.02)
