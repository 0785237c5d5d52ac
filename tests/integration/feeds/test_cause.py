"""The request behind a statement: in PostgreSQL's own views and log, and in the service's."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from tests.support.ailing import DATASETS, LOGIN, SCHEMA, until, url_of
from tests.support.locks import locked
from tests.support.service import NO_REDIS, Running, bearer, serving
from tests.support.standby import lay_out, primary_running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
SLOW = 0.3  # seconds; more than the count of a framed export may take
PATHS = {
    "page": "/v1/feeds/things?limit=7&columns=id&after=3",
    "row": "/v1/feeds/things/5",
    "export": "/v1/feeds/things?columns=id",
    "framed": "/v1/feeds/things?format=sse&columns=id",
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with primary_running(log_min_duration_statement="0") as server:
        yield server


@pytest.fixture(scope="module")
async def datasets(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cause") / "datasets.toml"
    file.write_text(DATASETS)
    await lay_out(postgres, SCHEMA, file, LOGIN)
    return file


@pytest.fixture(scope="module", params=[False, True], ids=["exports", "pages too"])
def marks_pages(request: pytest.FixtureRequest) -> bool:
    """The value of `queries.comment_pages`."""
    return bool(request.param)


@pytest.fixture(scope="module")
def service(marks_pages: bool, postgres: PostgresServer, datasets: Path) -> Iterator[Running]:
    pages = str(marks_pages).lower()
    given = {
        **NO_REDIS,
        "FEEDSVC_QUERIES__SLOW": str(SLOW),
        "FEEDSVC_QUERIES__COMMENT_PAGES": pages,
        "FEEDSVC_CACHE__ENABLED": "false",
    }
    with serving(url_of(postgres), datasets=datasets, settings=given) as running:
        yield running


@pytest.fixture
async def http(service: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url, headers=bearer()) as session:
        yield session


async def held_up(
    http: aiohttp.ClientSession, postgres: PostgresServer, path: str, **headers: str
) -> list[str]:
    """The statements that wait for longer than `queries.slow` while a request for this does.

    One of them at least: a framed export's count is given up before, and its rows wait next.
    """
    admin = await asyncpg.connect(postgres.url())
    found: list[str] = []

    async def waits() -> bool:
        sql = (
            "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            f" AND query_start < clock_timestamp() - interval '{SLOW + 0.1} s'"
            # Others of the service wait for the lock, too: the adviser, the upkeep's check.
            " AND application_name IN ('feedsvc read', 'feedsvc bulk')"
        )
        found[:] = [row[0] for row in await admin.fetch(sql)]
        return bool(found) or asked.done()

    async def ask() -> None:
        async with http.get(path, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()

    try:
        async with locked(postgres.url(), "app.things"):
            asked = asyncio.create_task(ask())
            await until(waits, 30)
        await asked
    finally:
        await admin.close()
    return found


def lines(service: Running, message: str, request: str) -> list[dict[str, Any]]:
    made = [json.loads(line) for line in service.log if line.startswith("{")]
    return [m for m in made if m["message"] == message and m.get("request_id") == request]


@pytest.mark.parametrize("kind", PATHS)
async def test_a_statement_that_runs_names_its_request(
    http: aiohttp.ClientSession,
    postgres: PostgresServer,
    service: Running,
    kind: str,
    marks_pages: bool,
) -> None:
    name = f"asked-for-{kind}-{service.port}"
    running = await held_up(http, postgres, PATHS[kind], **{"X-Request-ID": name})
    is_marked = kind in {"export", "framed"} or marks_pages
    assert [f"/* feedsvc:request_id='{name}' */" in sql for sql in running] == [is_marked]
    traced = await held_up(http, postgres, PATHS[kind], **SAMPLED)
    assert [re.search(rf"traceparent='00-{TRACE}-[0-9a-f]{{16}}-01' \*/", sql) is not None
            for sql in traced] == [True]  # fmt: skip
    assert SPAN not in traced[0]


@pytest.mark.parametrize("kind", PATHS)
async def test_a_slow_query_is_a_line_in_both_logs(
    http: aiohttp.ClientSession,
    postgres: PostgresServer,
    service: Running,
    kind: str,
    marks_pages: bool,
) -> None:
    name = f"slow-{kind}-{service.port}"
    await held_up(http, postgres, PATHS[kind], **{"X-Request-ID": name})

    async def is_reported() -> bool:
        return bool(lines(service, "slow query", name))

    await until(is_reported, 30)
    [line] = lines(service, "slow query", name)
    assert line["dataset"] == "things"
    assert line["ms"] >= SLOW * 1e3
    assert line["source"] == ("row" if kind == "row" else line["source"]) != ""
    expected = {"page": ["limit", "columns", "after"], "row": [], "export": ["columns"],
                "framed": ["format", "columns"]}  # fmt: skip
    assert line["parameters"] == expected[kind]
    log = (postgres.cluster.data.parent / "postgres.log").read_text()
    of_it = [one for one in log.splitlines() if name in one]
    if kind != "row" or marks_pages:
        assert any(" duration: " in one and f"[{line['backend']}]" in one for one in of_it)
    else:
        assert f"[{line['backend']}]" in log


async def test_what_is_quick_is_no_line(http: aiohttp.ClientSession, service: Running) -> None:
    name = f"quick-{service.port}"
    async with http.get(PATHS["page"], headers={"X-Request-ID": name, **SAMPLED}) as answer:
        assert answer.status == 200

    async def is_reported() -> bool:
        return bool(lines(service, "request", name))

    await until(is_reported, 30)
    [line] = lines(service, "request", name)
    assert line["trace_id"] == TRACE
    assert line["span_id"] not in {SPAN, ""}


@pytest.mark.parametrize(
    "hostile", ["x*/;select+1", "'; drop table app.things; --", "*/", "a" * 129]
)
async def test_a_hostile_name_is_not_taken(http: aiohttp.ClientSession, hostile: str) -> None:
    async with http.get(PATHS["export"], headers={"X-Request-ID": hostile}) as answer:
        assert answer.status == 200
        assert answer.headers["X-Request-ID"] != hostile
