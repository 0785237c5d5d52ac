"""Indexes tried by a real HypoPG, on the tables themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import orjson
import pytest

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.advice.proposals import AdviceOptions, proposals
from feedsvc.backends.postgres.index_proof.plans import undone
from tests.integration.backends.test_advice import missed, restored
from tests.support import hypopg
from tests.support.servers import TEMPLATE, as_login, connected, copied_database, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = hypopg.needed
SCRIPT: Final = Path(__file__).with_name("hypothetical.sql").read_text(encoding="utf-8")
LINES: Final = "SELECT * FROM shop.lines WHERE order_id = $1"
LATEST: Final = "SELECT * FROM shop.orders WHERE tenant = $1 ORDER BY placed_at DESC LIMIT 20"
TAGGED: Final = "SELECT * FROM shop.orders WHERE tags @> $1"
HASHED: Final = "SELECT * FROM shop.lines WHERE md5(id::text) = $1"
LEFT: Final = "SELECT count(*) FROM extensions.hypopg()"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with hypopg.hypopg_server() as url:
        yield url


@pytest.fixture(scope="module")
async def world_server(server: str) -> str:
    await prepare(server)
    return server


@pytest.fixture(scope="module")
async def shop_url(server: str) -> AsyncIterator[str]:
    async with copied_database(server, script=SCRIPT) as url:
        async with connected(url) as connection:
            await connection.execute("VACUUM ANALYZE")
        yield url


@pytest.fixture
async def shop(shop_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(shop_url) as connection:
        yield connection


def workload(*texts: str) -> list[WorkloadStatement]:
    return [WorkloadStatement(sql, sql, "catalogue", 0, 0.0, 0.0, None, None) for sql in texts]


async def cost(connection: asyncpg.Connection, sql: str) -> float:
    """The cost of a statement with a parameter, whatever its value."""
    await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE one AS {sql}")
    plan = await connection.fetchval("EXPLAIN (FORMAT JSON) EXECUTE one (NULL)")
    await connection.execute("DEALLOCATE one")
    found: float = orjson.loads(plan)[0]["Plan"]["Total Cost"]
    return found


async def test_its_costs_are_those_of_the_index_once_it_is_built(shop: asyncpg.Connection) -> None:
    found = await proposals(shop, workload(LINES, LATEST), AdviceOptions())
    assert found.lacking == ()
    assert {design.keys for _, design in found.proposals if design is not None} == {
        ("order_id",), ("tenant", "placed_at")
    }  # fmt: skip
    assert await shop.fetchval(LEFT) == 0
    for proposal, design in found.proposals:
        assert design is not None
        assert proposal.proof == "hypopg"
        [name] = proposal.helps
        async with undone(shop):
            assert proposal.cost_before[name] == await cost(shop, name)
            await shop.execute(design.sql(concurrently=False))
            size = await shop.fetchval(
                "SELECT pg_relation_size($1::text::regclass)", design.qualified
            )
            assert await cost(shop, name) == pytest.approx(proposal.cost_after[name], rel=0.2)
        assert proposal.size_bytes is not None
        assert 0.5 < proposal.size_bytes / size < 3
        assert proposal.write_cost is not None


async def test_what_it_can_not_try_is_tried_on_a_copy(shop: asyncpg.Connection) -> None:
    """With all designs of that table, for a GIN may do more than a btree."""
    found = await proposals(shop, workload(LINES, LATEST, TAGGED), AdviceOptions())
    assert found.lacking == ()
    assert {
        design.body: proposal.proof for proposal, design in found.proposals if design is not None
    } == {
        "USING btree (order_id)": "hypopg",
        "USING btree (tenant, placed_at)": "sample",
        "USING gin (tags)": "sample",
    }
    found = await proposals(shop, workload(HASHED), AdviceOptions())
    assert [proposal.proof for proposal, _ in found.proposals] == ["sample"]


async def test_a_login_that_may_make_nothing_has_proposals(shop_url: str) -> None:
    async with connected(as_login(shop_url, "visitor", "a visitor's")) as visitor:
        found = await proposals(visitor, workload(LINES, TAGGED), AdviceOptions())
        assert [proposal.proof for proposal, _ in found.proposals] == ["hypopg"]
        assert found.is_tried
        [sentence] = found.lacking
        assert sentence.startswith("GIN, GiST and expressions can't be tried")


async def test_an_extension_that_the_login_may_not_call_is_left_alone(shop_url: str) -> None:
    async with connected(shop_url) as owner:
        await owner.execute("REVOKE USAGE ON SCHEMA extensions FROM visitor")
    async with connected(as_login(shop_url, "visitor", "a visitor's")) as visitor:
        found = await proposals(visitor, workload(LINES), AdviceOptions())
        assert found.proposals == ()
        assert not found.is_tried


async def test_no_extension_is_made(server: str) -> None:
    script = SCRIPT.replace("CREATE EXTENSION hypopg SCHEMA extensions;", "")
    script = script.replace("CREATE ROLE", "-- CREATE ROLE")
    async with copied_database(server, script=script) as url, connected(url) as owner:
        await owner.execute("ANALYZE")
        found = await proposals(owner, workload(LINES), AdviceOptions())
        assert [proposal.proof for proposal, _ in found.proposals] == ["sample"]
        assert await owner.fetchval("SELECT count(*) FROM pg_extension") == 1


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 11))
async def test_a_third_of_the_indexes_is_brought_back(world_server: str, seed: int) -> None:
    async with copied_database(world_server, TEMPLATE) as url:
        async with connected(url) as owner:
            await owner.execute("CREATE EXTENSION hypopg")
            await owner.execute("VACUUM ANALYZE")
        found, figures = await restored(url, seed)
    assert missed(seed, found, figures) == set()
    assert "hypopg" in {proposal.proof for proposal, _ in found.proposals}
