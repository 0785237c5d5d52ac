"""Deltas over views: every cursor is a state, and no key is told of a row that was never seen."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from feedsvc.core.problems import Reset
from feedsvc.feeds.sql.former_view_rows import FormerView, ViewSight
from feedsvc.feeds.sql.statement import Statement
from tests.support.drawn import DRAWN, share
from tests.support.followers import READERS, Follower, Reader, Rows
from tests.support.servers import as_login
from tests.support.view_followers import (
    FOLLOWED,
    View,
    ViewOracle,
    ViewWriter,
    followed_views,
    prepare_views,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from feedsvc.datasets.dataset import Dataset
    from feedsvc.feeds.delta_wait import Deltas
    from tests.integration.conftest import NewDatabase

    Site = tuple[Mapping[str, Dataset], Deltas]

WRITERS: Final = 3
STEPS: Final = 50
PREPARED: Final = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
BEGINNING: Final = """
DELETE FROM shop.orders;
DELETE FROM shop.details;
INSERT INTO shop.orders (number, tenant, client, level, status)
    SELECT n, (ARRAY['a', 'b', 'ä ö'])[n % 3 + 1], n % 2, n % 8, (ARRAY['open', 'done'])[n % 2 + 1]
    FROM generate_series(0, 13) AS n;
INSERT INTO shop.details (order_number, tenant, state)
    SELECT number, tenant, 'open' FROM shop.orders WHERE number <> 6;
"""
AS_READER: Final = """
SELECT set_config('feedsvc.tenant', $1, true), set_config('feedsvc.role', $2, true),
    set_config('feedsvc.client', $3, true)
"""
OF_READER: Final = """
SELECT number, row_to_json(s)::text FROM (
    SELECT number, name, status, level FROM shop.{view}
    WHERE tenant = $1 AND ($2::bigint IS NULL OR client = $2)
) AS s
"""
UNFILTERED: Final = [reader for reader in READERS if reader.status is None]
every_view = pytest.mark.parametrize("view", FOLLOWED, ids=lambda view: view.name)


@pytest.fixture(scope="module")
async def world(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("views") / "datasets.toml"
    async with new_database() as url:
        await prepare_views(url, file)
        yield url, file


@pytest.fixture(scope="module")
async def site(world: tuple[str, Path]) -> AsyncIterator[Site]:
    async with followed_views(*world) as made:
        yield made


class Run:
    """Followers of one view, and the mistakes that their copies had."""

    def __init__(self, owner: asyncpg.Connection, site: Site, view: View) -> None:
        self._oracle = ViewOracle(owner, view)
        self.followers = [Follower(reader, site[0][view.name], site[1]) for reader in READERS]
        self.mistakes: list[str] = []
        self.outcomes: Counter[str] = Counter()

    async def begin(self) -> None:
        for follower in self.followers:
            await follower.export()

    async def follow(self, follower: Follower) -> None:
        """Go on, or begin anew where that is what the answer says, and compare."""
        before, had, reader = follower.snapshot, set(follower.rows), follower.reader
        try:
            changes = await follower.follow()
            self.outcomes["changes"] += changes
            self.outcomes["deletes"] += len(had - follower.rows.keys())
        except Reset as reset:
            self.outcomes[reset.reason] += 1
            await follower.export()
            follower.told = set()
        after = follower.snapshot
        if follower.rows != await self._oracle.rows(after, reader):
            self.mistakes.append(f"{reader} is not in the state of {after}, {before} before")
        seen = await self._oracle.seen_between(before, after, reader)
        if unknown := follower.told - seen:
            self.mistakes.append(f"{reader} was told of {unknown}, having had {had}")


async def follow_concurrently(url: str, site: Site, view: View, seed: int) -> Run:
    """Write and follow; each state is compared with the oracle's."""
    draw = random.Random(seed)
    owner = await asyncpg.connect(url)
    connections = [
        await asyncpg.connect(url, server_settings={"lock_timeout": "20ms"}) for _ in range(WRITERS)
    ]
    try:
        await owner.execute(BEGINNING)
        run = Run(owner, site, view)
        await run.begin()
        writers = [ViewWriter(c, draw.randrange(1 << 30)) for c in connections]
        for _ in range(STEPS):
            await asyncio.gather(*(w.step() for w in draw.sample(writers, 2)))
            if draw.random() < 0.6:
                await run.follow(draw.choice(run.followers))
        for writer in writers:
            await writer.close()
        for follower in run.followers:
            await run.follow(follower)
        return run
    finally:
        for connection in connections:
            await connection.close()
        for (prepared,) in await owner.fetch(PREPARED):
            await owner.execute(f"ROLLBACK PREPARED '{prepared}'")
        await owner.close()


@DRAWN
@every_view
@pytest.mark.parametrize("seed", range(share(4)))
async def test_a_follower_of_a_view_has_the_state_of_each_of_its_cursors(
    world: tuple[str, Path], site: Site, view: View, seed: int
) -> None:
    run = await follow_concurrently(world[0], site, view, seed)
    assert run.mistakes == []
    assert run.outcomes["changes"] or view.name == "joined"
    assert run.outcomes.keys() <= {"changes", "deletes", "rights"}
    if not view.is_joined:
        assert not run.outcomes["rights"], "what comes from one table is decided"


async def seen(login: asyncpg.Connection, view: View, reader: Reader) -> Rows:
    """The rows that PostgreSQL shows the reader, narrowed as his token is."""
    who = reader.principal
    async with login.transaction():
        await login.fetch(AS_READER, *who.scope)
        client = None if who.client is None else int(who.client)
        rows = await login.fetch(OF_READER.format(view=view.name), who.tenant, client)
    return {row[0]: json.loads(row[1]) for row in rows}


async def follow_step_by_step(url: str, site: Site, view: View, seed: int) -> Counter[str]:
    """Write alone, and know each state: no key is told that was in none. Raises AssertionError."""
    draw = random.Random(seed)
    owner, login = await asyncpg.connect(url), await asyncpg.connect(as_login(url))
    outcomes: Counter[str] = Counter()
    try:
        await owner.execute(BEGINNING)
        followers = [Follower(reader, site[0][view.name], site[1]) for reader in UNFILTERED]
        ever = {}
        for follower in followers:
            await follower.export()
            ever[follower.reader] = set(follower.rows)
        writer = ViewWriter(owner, seed)
        for _ in range(STEPS):
            await owner.execute(writer.lone_statement())
            for follower in followers:
                rows = await seen(login, view, follower.reader)
                ever[follower.reader] |= rows.keys()
                if draw.random() > 0.3:
                    continue
                try:
                    outcomes["changes"] += await follower.follow()
                    assert follower.told <= ever[follower.reader], "a key that was never seen"
                except Reset as reset:
                    outcomes[reset.reason] += 1
                    await follower.export()
                assert follower.rows == rows
                ever[follower.reader] = set(rows)
    finally:
        await owner.close()
        await login.close()
    return outcomes


@DRAWN
@every_view
@pytest.mark.parametrize("seed", range(share(4)))
async def test_no_reader_of_a_view_is_told_of_what_he_never_saw(
    world: tuple[str, Path], site: Site, view: View, seed: int
) -> None:
    outcomes = await follow_step_by_step(world[0], site, view, seed)
    assert outcomes["changes"] or view.name == "joined"
    assert outcomes.keys() <= {"changes", "rights"}
    if not view.is_joined:
        assert not outcomes["rights"], "what comes from one table is decided"


SOME, MINE, JOINED_MINE = FOLLOWED[1], FOLLOWED[2], FOLLOWED[4]


@pytest.mark.parametrize("view", [SOME, MINE, JOINED_MINE], ids=lambda view: view.name)
@pytest.mark.parametrize("told", [True, False])
async def test_without_the_views_text_the_test_before_would_fail(
    world: tuple[str, Path], site: Site, view: View, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of all rows are told, or of none that are gone."""

    def certain(_: object, rows: Sequence[FormerView], __: object) -> Statement:
        places = [str(row.place) for row in rows if told and row.former]
        return Statement("SELECT unnest($1::text[])::int", (places,))

    monkeypatch.setattr(ViewSight, "certain", certain)
    monkeypatch.setattr(ViewSight, "possible", lambda *_: None)
    with pytest.raises(AssertionError):
        await follow_step_by_step(world[0], site, view, 0)


async def test_without_doubt_a_join_would_tell_of_what_never_was(
    world: tuple[str, Path], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows that were there one after the other, and never beside each other."""
    owner = await asyncpg.connect(world[0])
    try:
        for doubts in (True, False):
            await owner.execute(BEGINNING)
            follower = Follower(Reader("a", "admin"), site[0]["joined_mine"], site[1])
            await follower.export()
            assert 6 not in follower.rows
            await owner.execute("UPDATE shop.orders SET level = 3 WHERE number = 6")
            await owner.execute("INSERT INTO shop.details VALUES (DEFAULT, 6, 'a', 'open')")
            await owner.execute("DELETE FROM shop.details WHERE order_number = 6")
            if not doubts:
                monkeypatch.setattr(FormerView, "is_of_one_state", True)
                await follower.follow()
                assert 6 in follower.told
                continue
            with pytest.raises(Reset) as raised:
                await follower.follow()
            assert raised.value.reason == "rights"
    finally:
        await owner.close()


async def test_a_row_that_leaves_with_all_that_it_comes_from_is_a_delete(
    world: tuple[str, Path], site: Site
) -> None:
    """Also of a view whose tables the service's login can't read."""
    owner = await asyncpg.connect(world[0])
    try:
        for view in ("joined", "joined_mine"):
            await owner.execute(BEGINNING)
            follower = Follower(Reader("a"), site[0][view], site[1])
            await follower.export()
            others = Follower(Reader("b"), site[0][view], site[1])
            await others.export()
            await owner.execute("BEGIN")
            await owner.execute("DELETE FROM shop.orders WHERE number = 0")
            await owner.execute("DELETE FROM shop.details WHERE order_number = 0")
            await owner.execute("COMMIT")
            assert 0 in follower.rows
            assert (await follower.follow(), follower.told) == (1, {0})
            assert (await others.follow(), others.told) == (0, set())
    finally:
        await owner.close()
