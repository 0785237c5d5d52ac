"""docs/row-level-security.md is true: its SQL runs, its datasets are served, its promises hold."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.integration.commands.test_check import environment
from tests.integration.conftest import NewDatabase
from tests.support.forked import feedsvc
from tests.support.servers import as_login
from tests.support.service import REPOSITORY, Running, bearer, serving

PAGE = (REPOSITORY / "docs" / "row-level-security.md").read_text()
SQL = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(DATASETS,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ROWS = """
    INSERT INTO billing.accounts VALUES ('acme', 'Acme'), ('other', 'Other');
    INSERT INTO billing.customers SELECT a, n, a || n FROM unnest('{acme,other}'::text[]) a,
        generate_series(1, 3) n;
    INSERT INTO billing.invoices SELECT account_id, 10 + id, id, '2026-01-01', 5
        FROM billing.customers;
    INSERT INTO billing.margins SELECT id, '2026-01-01', 1 FROM billing.accounts;
    INSERT INTO billing.lines SELECT row_number() OVER (), account_id, number, account_id
        FROM billing.invoices;
    REFRESH MATERIALIZED VIEW billing.monthly
"""


@pytest.fixture(scope="module")
async def billing(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    """The page's database, and its datasets in a file."""
    file = tmp_path_factory.mktemp("page") / "datasets.toml"
    file.write_text(DATASETS)
    async with new_database() as url:
        admin = await asyncpg.connect(url)
        *statements, trial = SQL
        try:
            for statement in statements:
                await admin.execute(statement)
            await admin.execute(ROWS)
            await admin.execute(trial)
            yield as_login(url, "feeds", "secret"), file
        finally:
            await admin.execute("DROP OWNED BY feeds; DROP ROLE feeds")
            await admin.close()


@pytest.fixture(scope="module")
def page_service(billing: tuple[str, Path]) -> Iterator[Running]:
    url, file = billing
    with serving(url, datasets=file) as running:
        yield running


async def rows(service: Running, feed: str, headers: dict[str, str]) -> list[dict[str, object]]:
    async with (
        aiohttp.ClientSession(service.url) as http,
        http.get(f"/v1/feeds/{feed}", headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        found: list[dict[str, object]] = await answer.json()
        return found


def test_check_finds_nothing_wrong_with_the_page(billing: tuple[str, Path]) -> None:
    url, file = billing
    done = feedsvc("check", env=environment(url, FEEDSVC_DATASETS__FILE=str(file)))
    assert done.returncode == 0, done.stdout
    assert "5 datasets can be served" in done.stdout


async def test_each_caller_of_the_page_sees_what_it_says(page_service: Running) -> None:
    member, admin, couple = (
        bearer("acme"),
        bearer("acme", "admin"),
        bearer("acme", client="2"),
    )
    for feed, count in (("customers", 3), ("invoices", 3), ("lines", 3), ("months", 1)):
        seen = await rows(page_service, feed, member)
        assert [row["account_id"] for row in seen] == ["acme"] * count
    assert len(await rows(page_service, "margins", admin)) == 1
    assert [row["number"] for row in await rows(page_service, "invoices", couple)] == [12]
    async with (
        aiohttp.ClientSession(page_service.url) as http,
        http.get("/v1/feeds/margins", headers=member) as answer,
    ):
        assert answer.status == 403


async def test_without_the_setting_there_is_no_row(billing: tuple[str, Path]) -> None:
    url, _ = billing
    login = await asyncpg.connect(url)
    relations = re.findall(r'^relation = "(.*)"', DATASETS, re.MULTILINE)
    assert len(relations) == 5
    for value in (None, "", "nobody"):
        if value is not None:
            await login.execute("SELECT set_config('feedsvc.tenant', $1, false)", value)
        for relation in relations:
            assert await login.fetchval(f"SELECT count(*) FROM {relation}") == 0
    await login.close()
