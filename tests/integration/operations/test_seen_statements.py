"""Statements of others in `/api/performance/queries`, by the real pg_stat_statements."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest

from feedsvc.backends.postgres.advice import seen
from feedsvc.backends.postgres.migrations import runner
from feedsvc.operations.performance.advisor import ELSEWHERE
from tests.integration.operations.test_queries import planned, report
from tests.support.servers import (
    LOGIN,
    PASSWORD,
    as_login,
    connected,
    copied_database,
    copied_postgres,
)
from tests.support.service import NO_REDIS, bearer, serving

LITERAL: Final = "xyzzy-of-a-literal"
COMMENT: Final = "xyzzy-of-a-comment"
QUOTED: Final = PASSWORD.replace("'", "''")
SHOP: Final = f"""
    CREATE ROLE {LOGIN} LOGIN PASSWORD '{QUOTED}' IN ROLE feedsvc_service;
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id bigint PRIMARY KEY, code text NOT NULL);
    INSERT INTO shop.orders SELECT n, n FROM generate_series(1, 20000) AS n;
    ANALYZE shop.orders;
    ALTER ROLE {LOGIN} SET work_mem = '64kB';
    GRANT USAGE ON SCHEMA shop TO {LOGIN};
    GRANT SELECT ON shop.orders TO {LOGIN};
    CREATE SCHEMA extensions
"""
DATASETS: Final = """
[orders]
relation = "shop.orders"
key = ["id"]
shared = true
[orders.orders]
by_code = ["code"]
"""
SORTED: Final = "orders export order=code,id"


@dataclass(frozen=True)
class Watched:
    """A server that keeps statements, or will: the extension is not made yet."""

    owner: str
    login: str
    datasets: Path


@pytest.fixture(scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    file = tmp_path_factory.mktemp("seen") / "datasets.toml"
    file.write_text(DATASETS)
    with copied_postgres({"shared_preload_libraries": "pg_stat_statements"}) as server:
        url = server.url()
        await runner.up(url, "service")
        async with connected(url) as owner:
            await owner.execute(SHOP)
        yield Watched(url, as_login(url), file)


async def seen_by(watched: Watched, owner_url: str = "", *, asks: bool = False) -> dict[str, Any]:
    """What a service of its own shows, behind an export if it `asks` for one."""
    settings = NO_REDIS | {"FEEDSVC_METRICS__SHED_ABOVE": "0"}
    settings |= {"MIGRATION_DATABASE_URL": owner_url} if owner_url else {}
    with serving(watched.login, datasets=watched.datasets, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as client:
            if asks:
                async with client.get("/v1/feeds/orders?order=by_code", headers=bearer()) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
                await report(client, lambda found: SORTED in planned(found))
            return await report(client, lambda found: found["lacking"] != [seen.BUSY])


async def test_others_statements_are_planned_without_their_values(watched: Watched) -> None:
    """In one test, for each of the states follows the one before it."""
    assert (await seen_by(watched))["lacking"] == [seen.ABSENT]
    async with connected(watched.owner) as owner:
        await owner.execute("CREATE EXTENSION pg_stat_statements SCHEMA extensions")
        await owner.fetch(
            f"SELECT id /* {COMMENT} */ FROM shop.orders WHERE code = '{LITERAL}' LIMIT 5"
        )
    found = await seen_by(watched)
    assert found["lacking"] == [seen.FORBIDDEN]
    assert found["statements"] == []
    for grant in (False, True):
        if grant:
            async with connected(watched.owner) as owner:
                await owner.execute(
                    f"GRANT pg_read_all_stats TO {LOGIN};"
                    f" GRANT USAGE ON SCHEMA extensions TO {LOGIN}"
                )
        found = await seen_by(watched, "" if grant else watched.owner, asks=grant)
        assert set(found["lacking"]) <= {ELSEWHERE}
        text = orjson.dumps(found).decode()
        assert LITERAL not in text
        assert COMMENT not in text
        (of_shop,) = [
            each for each in found["statements"] if "shop.orders WHERE code" in each["statement"]
        ]
        assert of_shop["source"] == "pg_stat_statements"
        assert of_shop["calls"] == 1
        assert of_shop["plan"]["children"][0]["conditions"]["Filter"].endswith("= $1)")
    [setting] = [each for each in found["proposals"] if each["kind"] == "setting"]
    assert setting["statement"].startswith(f"ALTER ROLE {LOGIN} SET work_mem = ")
    assert setting["helps"] == [SORTED]
    assert setting["cost_after"][SORTED] < setting["cost_before"][SORTED]


async def test_an_extension_that_the_server_does_not_load_is_told_from_none(
    admin_url: str,
) -> None:
    async with copied_database(admin_url) as url, connected(url) as connection:
        assert (await seen.seen_statements(connection, "x")).lacking == seen.ABSENT
        await connection.execute("CREATE EXTENSION pg_stat_statements")
        assert (await seen.seen_statements(connection, "x")).lacking == seen.NOT_LOADED
