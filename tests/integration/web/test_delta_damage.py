"""Deltas that are cut, damaged, or whose worker, Redis or client is gone: found, and made good."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg
import pytest

from feedsvc.core.principal import Principal
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.sql import statement
from tests.support.copies import MODULUS, BrokenAnswerError, Copy
from tests.support.drawn import DRAWN, share
from tests.support.followers import followed, prepare
from tests.support.proxy import Fault, Proxy, proxied
from tests.support.redis_server import redis_running
from tests.support.servers import as_login
from tests.support.service import bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase
    from tests.support.redis_server import RunningRedis
    from tests.support.service import Running

psutil = importlib.import_module("psutil")  # it has no type stubs

DEADLINE: Final = 60.0
# So that an answer whose end was lost ends all the same.
HEADERS: Final = {**bearer("a"), "Connection": "close"}
FEED: Final = "/v1/feeds/orders"
STATES: Final = 100_000
EACH_STATE: Final = """
WITH step AS (
    SELECT n, (random() * 500)::bigint AS number, random() < 0.3 AS gone,
        CASE WHEN random() < 0.9 THEN repeat(chr(33 + (random() * 9000)::int), (random() * 9)::int)
        END AS name, 'open' AS status, (random() * 99)::int AS level
    FROM generate_series(1, $1::int) AS n
),
made AS (
    SELECT s.n, s.number, s.gone, textsend(row_to_json(r.*)::text) AS line,
        CASE WHEN s.gone THEN 0 ELSE {term} END AS term
    FROM step AS s CROSS JOIN LATERAL (SELECT s.number, s.name, s.status, s.level) AS r
),
changed AS (
    SELECT *, lag(term, 1, 0::bigint) OVER (PARTITION BY number ORDER BY n) AS former FROM made
)
SELECT number, gone, line, (sum(term::numeric - former) OVER (ORDER BY n))::text
FROM changed ORDER BY n
"""
"""Steps at random, each with the row that it puts or takes, and what the rows then add up to."""
ERRORS: Final = (aiohttp.ClientError, ConnectionError, TimeoutError, BrokenAnswerError)


@dataclass
class Shop:
    """A service of two workers with a Redis, a proxy before it, and the table's owner."""

    service: Running
    redis: RunningRedis
    proxy: Proxy
    owner: asyncpg.Connection
    draw: random.Random

    async def export(self) -> Copy:
        """A copy that was just made."""
        made = Copy("number")
        async with self._asked(self.service.url, format="ndjson", frames="1") as response:
            *lines, end = (await response.read()).splitlines()
        for line in lines:
            if line.startswith(b'{"row":'):
                row = line.removeprefix(b'{"row":')[:-1]
                made.replace(json.loads(row)["number"], row)
        made.cursor = json.loads(end)["end"]["cursor"]
        return made

    async def follow(self, copy: Copy, *, behind_proxy: bool = False, **given: str) -> None:
        """Bring the copy on. Raises one of ERRORS."""
        url = self.proxy.url if behind_proxy else self.service.url
        async with self._asked(url, since=copy.cursor, digest="1", **given) as response:
            body = await response.read()
        if response.status != 200:
            raise BrokenAnswerError(f"{response.status}: {body.decode(errors='replace')}")
        copy.apply(body)

    async def follow_at_last(self, copy: Copy) -> None:
        """Come back until an answer is whole."""
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    return await self.follow(copy)
                except ERRORS:
                    await asyncio.sleep(0.02)

    async def change(self) -> None:
        """Some writes: upserts and deletes of the reader's rows, and others'."""
        some = self.draw.sample(range(40), 8)
        await self.owner.execute("DELETE FROM shop.orders WHERE number = ANY ($1::int[])", some[:3])
        await self.owner.execute(
            "INSERT INTO shop.orders (number, tenant, level, name)"
            " SELECT n, CASE WHEN n % 7 = 0 THEN 'b' ELSE 'a' END, n % 6, $2"
            " FROM unnest($1::int[]) AS n ON CONFLICT (number) DO UPDATE SET name = excluded.name",
            some[3:], f"ä \"{self.draw.random()}\\",
        )  # fmt: skip

    async def truth(self) -> dict[int, object]:
        """The rows that the reader sees."""
        rows = await self.owner.fetch(
            "SELECT number, name, status, level FROM shop.orders WHERE tenant = 'a' AND level < 5"
        )
        return {row["number"]: dict(row) for row in rows}

    @asynccontextmanager
    async def _asked(self, url: str, **given: str) -> AsyncIterator[aiohttp.ClientResponse]:
        # What was damaged may never come to an end that the client understands.
        timeout = aiohttp.ClientTimeout(DEADLINE if self.proxy.fault.damage is None else 3.0)
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=HEADERS) as http,
            http.get(f"{url}{FEED}", params=given) as response,
        ):
            yield response


def parsed(copy: Copy) -> dict[int, object]:
    return {key: json.loads(line) for key, line in copy.rows.items()}


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with redis_running("redis") as server:
        yield server


@pytest.fixture(scope="module")
async def world(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("damaged") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        yield url, file


@pytest.fixture(scope="module")
async def shop(world: tuple[str, Path], redis: RunningRedis) -> AsyncIterator[Shop]:
    settings = {"REDIS_URL": redis.url, "FEEDSVC_SERVER__WORKERS": "2"}
    owner = await asyncpg.connect(world[0])
    try:
        with serving(as_login(world[0]), datasets=world[1], settings=settings) as service:
            async with proxied(service.port) as proxy:
                made = Shop(service, redis, proxy, owner, random.Random(3))
                for _ in range(10):
                    await made.change()
                yield made
    finally:
        await owner.close()


async def test_a_delta_that_is_cut_anywhere_changes_nothing_and_is_asked_for_again(
    shop: Shop,
) -> None:
    copy = await shop.export()
    for cut, how in ((0, "fin"), (1, "rst"), (30, "fin"), (90, "rst"), (200, "fin"), (260, "rst")):
        await shop.change()
        shop.proxy.fault = Fault(cut_after=cut, behind_head=True, how=how)  # type: ignore[arg-type]
        before = copy.copy()
        with pytest.raises(ERRORS):
            await shop.follow(copy, behind_proxy=True)
        assert copy == before
        shop.proxy.mend()
        await shop.follow(copy, behind_proxy=True)
        assert parsed(copy) == await shop.truth()


@pytest.mark.parametrize("what", ["worker", "both workers", "redis", "proxy", "client"])
async def test_whatever_is_killed_under_a_delta_its_client_loses_nothing(
    shop: Shop, what: str
) -> None:
    copy = await shop.export()
    shop.proxy.mend()
    waiting = [copy.copy() for _ in range(8)]
    asked = [asyncio.create_task(shop.follow(one, behind_proxy=True, wait="30")) for one in waiting]
    async with asyncio.timeout(DEADLINE):
        while shop.proxy.connections < len(waiting):
            await asyncio.sleep(0.01)
    workers = psutil.Process(shop.service.pid).children()
    match what:
        case "worker" | "both workers":
            for worker in workers if what != "worker" else workers[:1]:
                worker.send_signal(signal.SIGKILL)
        case "redis":
            shop.redis.signal(signal.SIGSTOP)
        case "proxy":
            await shop.proxy.cut()
        case _:
            for task in asked:
                task.cancel()
    await shop.change()
    try:
        await asyncio.gather(*asked, return_exceptions=True)
        for one in waiting:
            await shop.follow_at_last(one)
            assert parsed(one) == await shop.truth()
    finally:
        shop.redis.signal(signal.SIGCONT)
        shop.proxy.mend()


def damage(draw: random.Random, piece: bytes) -> bytes:
    """The piece with flipped bits, or a part of it dropped or sent again."""
    kind = draw.randrange(4)
    if not piece:
        return piece
    at = draw.randrange(len(piece))
    if kind == 0:
        return piece[:at] + bytes([piece[at] ^ 1 << draw.randrange(8)]) + piece[at + 1 :]
    lines = piece.split(b"\n")
    if kind == 1 and len(lines) > 3:
        del lines[draw.randrange(1, len(lines) - 2)]
        return b"\n".join(lines)
    if kind == 2 and len(lines) > 3:
        place = draw.randrange(1, len(lines) - 2)
        return b"\n".join([*lines[:place], lines[place], *lines[place:]])
    end = at + draw.randrange(1, 80)
    return piece[:at] + piece[end:] if draw.random() < 0.5 else piece[:end] + piece[at:]


@DRAWN
@pytest.mark.parametrize("seed", range(share(8)))
async def test_no_damage_on_the_way_is_taken_for_a_state(shop: Shop, seed: int) -> None:
    draw = random.Random(seed)
    copy, found = await shop.export(), 0
    for _ in range(25):
        await shop.change()
        shop.proxy.fault = Fault(behind_head=True, damage=lambda piece: damage(draw, piece))
        tried = copy.copy()
        try:
            await shop.follow(tried, behind_proxy=True)
        except ERRORS:
            found += 1
        else:
            assert parsed(tried) == await shop.truth(), "damage that was not found"
        shop.proxy.mend()
        await shop.follow(copy)
        assert parsed(copy) == await shop.truth(), "a false alarm would have been an error"
    assert found > 5


@DRAWN
@pytest.mark.parametrize("seed", range(share(8)))
async def test_no_damaged_body_is_taken_for_a_state(shop: Shop, seed: int) -> None:
    """The same behind the transport's own framing, which finds most of it."""
    draw = random.Random(seed)
    copy = await shop.export()
    await shop.change()
    async with shop._asked(shop.service.url, since=copy.cursor, digest="1") as response:
        body = await response.read()
    found = 0
    for _ in range(300):
        tried = copy.copy()
        try:
            tried.apply(damage(draw, body))
        except BrokenAnswerError:
            found += 1
        else:
            assert parsed(tried) == await shop.truth(), "damage that was not found"
    assert found > 100
    copy.apply(body)
    assert parsed(copy) == await shop.truth()


async def test_a_stored_row_that_is_not_as_it_was_sent_is_found(shop: Shop) -> None:
    for kind in ("bit", "lost", "stale"):
        copy = await shop.export()
        await shop.follow(copy)
        key = next(iter(copy.rows))
        line = copy.rows[key]
        match kind:
            case "bit":
                copy.rows[key] = line[:-3] + bytes([line[-3] ^ 1]) + line[-2:]
            case "lost":
                del copy.rows[key]
            case _:
                copy.rows[key] = line.replace(b'"level":', b'"level":1')
        # A client that proves its state adds up what it has, and not what it has added up.
        proven = Copy("number", cursor=copy.cursor)
        for one, stored in copy.rows.items():
            proven.replace(one, stored)
        with pytest.raises(BrokenAnswerError, match="digest"):
            await shop.follow(proven)


async def test_a_digest_is_right_in_a_hundred_thousand_states(
    world: tuple[str, Path], shop: Shop
) -> None:
    """Of random upserts and deletes: the digest that a client keeps is PostgreSQL's in each."""
    async with followed(*world) as (dataset, _):
        query = DeltaQuery.parse({"since": "x"}, dataset)
        wanted = statement.digest_of_rows(query.rows, Principal("a", "member", None, 0.0))
    term = wanted.sql.partition("coalesce(sum(")[2].partition("), 0)::text")[0]
    assert term.startswith("('x' ||"), wanted.sql
    rows = await shop.owner.fetch(EACH_STATE.format(term=term), STATES)
    copy = Copy("number")
    for number, gone, line, total in rows:
        copy.replace(number, None if gone else line)
        assert copy.digest == int(total) % MODULUS
    assert len(rows) == STATES
