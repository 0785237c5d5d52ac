"""Each lock alone: what holds when the code forgets one, and what shows when it forgets both.

The service is copied, what keeps the tenants apart is taken out of the copy, and the same readers
as in test_canaries.py read from it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import indent

import asyncpg
import pytest

from tests.integration.conftest import NewDatabase
from tests.support.canaries.cached import cache_counts
from tests.support.canaries.mutants import Change, serving_mutant
from tests.support.canaries.readers import Findings, read_all, read_until
from tests.support.canaries.world import NAMES, World, peopled
from tests.support.drawn import DRAWN, share
from tests.support.redis_server import redis_running
from tests.support.servers import as_login

pytestmark = [DRAWN, pytest.mark.timeout(300)]
TENANTS = share(200, 20)
SECONDS = 0.1 * share(40, 8)
DEADLINE = 60.0
"""The time for two names of pages to meet that are to meet."""
WATCHED = 30.0
"""The time for readers to find a leak that is there."""

NO_PREDICATE = Change(
    "feedsvc/feeds/sql/statement.py",
    "    conditions = []\n    if dataset.tenant is not None:\n",
    "    return []\n    if dataset.tenant is not None:\n",
)
NOT_TOLD = Change(
    "feedsvc/feeds/transaction.py",
    "        yield Reading(connection, await _set_caller(pool, connection, principal))\n",
    '        read = await connection.fetchval("select pg_current_snapshot()::text")\n'
    '        yield Reading(connection, Moment(read, ""))\n',
)
TOLD_BESIDE = [
    # The settings are made, and checked, under names that no policy asks for.
    Change(
        "feedsvc/feeds/transaction.sql",
        f"set_config('feedsvc.{name}', ${n}",
        f"set_config('x.{name}', ${n}",
    )
    for n, name in enumerate(("tenant", "role", "client"), 1)
]
KEPT_FOR_THE_NEXT = [
    # For the session and not for the transaction, which ends well; told only where nobody was
    # told before, "to spare a round trip"; and no reset when a connection comes back.
    *(Change("feedsvc/feeds/transaction.sql", f"${n}, true)", f"${n}, false)") for n in (1, 2, 3)),
    Change(
        "feedsvc/backends/postgres/ending.py",
        "await transaction.rollback()",
        "await transaction.commit()",
    ),
    Change(
        "feedsvc/feeds/transaction.py",
        NOT_TOLD.before,
        "        known = \"select current_setting('feedsvc.tenant', true)\"\n"
        "        if not await connection.fetchval(known):\n"
        f"    {NOT_TOLD.before}"
        f"        else:\n{indent(NOT_TOLD.after, '    ')}",
    ),
    Change(
        "feedsvc/backends/postgres/sessions.py",
        'return "RESET ROLE; RESET SESSION AUTHORIZATION;\\n" + super().get_reset_query()',
        'return "SELECT 1"',
    ),
    NO_PREDICATE,
]

NOT_IN_THE_KEY = Change("feedsvc/cache/key.py", "            principal.scope,\n", "")
# Where a page stands in Redis does not depend on the tenant, as if two names met.
NAMES_THAT_MEET = Change(
    "feedsvc/cache/redis_store.py",
    "digest = hashlib.sha256(key.encode(",
    """digest = hashlib.sha256(__import__("re").sub(r't[0-9]{3}', "", key).encode(""",
)
NOT_LOOKED_INSIDE = Change(
    "feedsvc/cache/envelope.py", '    if head["key"] != key:\n', "    if False:\n"
)


@pytest.fixture(scope="module")
async def world(new_database: NewDatabase) -> AsyncIterator[World]:
    async with peopled(new_database, TENANTS) as made:
        yield made


@asynccontextmanager
async def without_policies(world: World) -> AsyncIterator[None]:
    """The tables without row-level security, for as long as the block runs."""
    superuser = await asyncpg.connect(world.url)
    try:
        for name in NAMES:
            await superuser.execute(f"ALTER TABLE post.{name} DISABLE ROW LEVEL SECURITY")
        yield
    finally:
        for name in NAMES:
            await superuser.execute(f"ALTER TABLE post.{name} ENABLE ROW LEVEL SECURITY")
        await superuser.close()


def sees_a_stranger(found: Findings) -> bool:
    return bool(found.foreign)


def sees_too_much(found: Findings) -> bool:
    return bool(found.foreign and found.amiss)


async def test_without_the_predicate_row_level_security_alone_holds(
    world: World, tmp_path: Path
) -> None:
    """And without row-level security, too, the readers do see that nothing holds."""
    with serving_mutant(as_login(world.url), tmp_path, [NO_PREDICATE]) as running:
        found = await read_all(running.url, world, SECONDS)
        assert (found.foreign, found.amiss) == ([], [])
        assert found.satisfied == set(world.tenants)
        async with without_policies(world):
            found = await read_until(running.url, world, WATCHED, sees_too_much)
        assert found.foreign, "the readers would notice nothing"
        assert found.amiss, "the readers would not notice too many rows"


@pytest.mark.parametrize(
    "changes",
    [[NOT_TOLD], [*TOLD_BESIDE, NO_PREDICATE]],
    ids=["not told", "told beside and no predicate"],
)
async def test_without_the_setting_no_reader_sees_a_row(
    world: World, tmp_path: Path, changes: list[Change]
) -> None:
    with serving_mutant(as_login(world.url), tmp_path, changes) as running:
        found = await read_all(running.url, world, SECONDS, rows_at_all=False)
    assert (found.foreign, found.amiss) == ([], [])
    assert (found.satisfied, found.marks) == (set(), 0)
    assert found.whole["all_rows"] > 0


async def test_a_key_of_the_cache_without_the_caller_is_noticed(
    world: World, tmp_path: Path
) -> None:
    """And with it the readers do meet pages from the cache, for it is there that they find this."""
    with serving_mutant(as_login(world.url), tmp_path, [NOT_IN_THE_KEY]) as running:
        found = await read_until(running.url, world, WATCHED, sees_a_stranger)
    assert found.foreign, "the readers would notice nothing"


async def test_the_envelope_distinguishes_two_pages_under_one_name(
    world: World, tmp_path: Path
) -> None:
    """And where it is not asked, the readers do notice."""
    with redis_running() as redis:
        url, (kept, broken) = as_login(world.url), (tmp_path / "kept", tmp_path / "broken")
        with serving_mutant(url, kept, [NAMES_THAT_MEET], redis.url) as running:
            async with asyncio.timeout(DEADLINE):
                met = 0
                while met <= 10:
                    found = await read_all(running.url, world, SECONDS)
                    assert (found.foreign, found.amiss) == ([], [])
                    met = (await cache_counts(running.url))["mismatch"]
        changes = [NAMES_THAT_MEET, NOT_LOOKED_INSIDE]
        with serving_mutant(url, broken, changes, redis.url) as running:
            found = await read_until(running.url, world, WATCHED, sees_a_stranger)
        assert found.foreign, "the readers would notice nothing"


async def test_a_setting_that_outlives_its_caller_is_noticed(world: World, tmp_path: Path) -> None:
    """The leak to find: a connection that goes on as its former user."""
    with serving_mutant(as_login(world.url), tmp_path, KEPT_FOR_THE_NEXT) as running:
        found = await read_until(running.url, world, WATCHED, sees_a_stranger)
    assert found.foreign, "the readers would notice nothing"
