"""`feedsvc migrate triggers`, and its script in the hands of the tables' owner."""

import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from feedsvc.commands.demo.embedded.account import server_account
from feedsvc.commands.demo.embedded.binaries import find_postgres
from feedsvc.commands.demo.embedded.copies import cache_folder
from tests.integration.commands.test_check import environment
from tests.support.forked import feedsvc
from tests.support.servers import TEMPLATE, as_login, copied_database

MADE = """
    SELECT c.oid::regclass::text || ' ' || pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text
        || ' ' || pg_get_functiondef(t.tgfoid) AS made
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgname LIKE 'feedsvc\\_log\\_%' ORDER BY 1
"""

# The seed of a feed's scopes, which is drawn at random, and the mark that depends on it.
_DRAWN = re.compile(r"'-?\d{8,}'|\([0-9a-f]{16}\)")


@asynccontextmanager
async def another_world(admin_url: str) -> AsyncIterator[str]:
    """The superuser's URL of a database with the demo's world, but for the triggers."""
    async with copied_database(admin_url, TEMPLATE) as url:
        dropped = migrate(url, "--drop")
        assert (dropped.returncode, await made(url)) == (0, [])
        yield url


def migrate(url: str, *options: str) -> "subprocess.CompletedProcess[str]":
    env = environment(as_login(url), MIGRATION_DATABASE_URL=url)
    return feedsvc("migrate", "triggers", *options, env=env)


async def made(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [_DRAWN.sub("…", row["made"]) for row in await connection.fetch(MADE)]
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def psql() -> str:
    """That of the PostgreSQL that the tests run on, a wheel's or another's."""
    return str(find_postgres(server_account(), cache_folder()).folder / "psql")


async def test_the_printed_script_run_by_psql_makes_what_the_command_makes(
    admin_url: str, psql: str
) -> None:
    async with another_world(admin_url) as by_command, another_world(admin_url) as by_script:
        done = migrate(by_command)
        assert (done.returncode, done.stderr) == (0, "")
        assert "wedding" in done.stdout
        wanted = await made(by_command)
        assert len({row.split(" ")[0] for row in wanted}) == 8, "each of the demo's tables"
        printed = migrate(by_script, "--print")
        assert (printed.returncode, printed.stderr) == (0, "")
        assert await made(by_script) == [], "printing runs nothing"
        for _ in range(2):
            ran = subprocess.run(
                [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", by_script],
                input=printed.stdout, text=True, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
            assert await made(by_script) == wanted
        again = migrate(by_script)
        assert (again.returncode, again.stdout) == (0, "triggers: up to date\n")
