"""A client's view of PostgreSQL's failures: before the first row, at any row, and afterwards.

Everything here breaks a server of its own, and mends it again.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import re
import shutil
import signal
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import asyncpg
import pytest

from tests.support import sse
from tests.support.servers import LOGIN, PASSWORD, as_login, copied_postgres
from tests.support.service import Running, bearer, serving
from tests.support.sources import COPY_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer

ROWS = 6_000
QUERY_TIMEOUT, RELEASE_TIMEOUT = 1.5, 0.5
DEADLINE = 60  # seconds that a loaded machine has for whatever is waited for

# `trap.trapped` has the rows of `trap.rows`, and does at row `at` what `how` says.
SCHEMA = f"""
CREATE ROLE {LOGIN} LOGIN PASSWORD $${PASSWORD}$$;
CREATE SCHEMA trap;
CREATE TABLE trap.rows (n bigint PRIMARY KEY, filler text NOT NULL);
INSERT INTO trap.rows SELECT n, md5(n::text) FROM generate_series(1, {ROWS}) AS n;
CREATE TABLE trap.spring (at bigint, how text);
INSERT INTO trap.spring VALUES (0, 'terminate');
CREATE FUNCTION trap.step_on(n bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE spring trap.spring;
BEGIN
    SELECT * INTO spring FROM trap.spring;
    IF spring.how = 'crawl' AND n >= spring.at THEN
        PERFORM pg_sleep(0.001);
    ELSIF n <> spring.at THEN
        RETURN false;
    ELSIF spring.how = 'terminate' THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    ELSIF spring.how = 'sleep' THEN
        PERFORM pg_sleep(60);
    ELSE
        RAISE EXCEPTION 'secret' USING ERRCODE = spring.how;
    END IF;
    RETURN true;
END $$;
-- In order, or a sort would step on every row before the first one leaves.
CREATE VIEW trap.trapped AS
    SELECT n, filler, trap.step_on(n) AS sprung FROM trap.rows ORDER BY n;
GRANT USAGE ON SCHEMA trap TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA trap TO {LOGIN};
ANALYZE;
"""

DATASETS = '[rows]\nrelation = "trap.rows"\nkey = ["n"]\nshared = true\n'
DATASETS += "".join(
    f'[{name}]\nrelation = "trap.trapped"\nkey = ["n"]\nshared = true\nnot_null = ["n"]\n'
    f'source = "{source}"\n'
    for name, source in (
        ("trapped", "auto"),
        ("trapped-copy", "copy"),
        ("trapped-projection", "projection"),
    )
)

SETTINGS = {
    **COPY_AT_ONCE,
    # To count the rows of a trapped view would spring the trap before the first row.
    "FEEDSVC_STREAMS__COUNT_TIMEOUT": "0",
    "FEEDSVC_DATABASE__RELEASE_TIMEOUT": str(RELEASE_TIMEOUT),
    "FEEDSVC_POOLS__READ__SIZE": "1",
    "FEEDSVC_POOLS__READ__QUERY_TIMEOUT": str(QUERY_TIMEOUT),
    "FEEDSVC_POOLS__BULK__SIZE": "1",
    "FEEDSVC_POOLS__BULK__QUERY_TIMEOUT": str(QUERY_TIMEOUT),
}

FORMS = ["format=json", "format=csv", "format=ndjson", "format=sse", "format=ndjson&frames=1"]
FRAMED = FORMS[3:]
QUERIES = ["", "?limit=20", "?format=csv", "?format=sse"]
ROW = re.compile(rb'(?:"n":|^)(\d+),', re.MULTILINE)


class Body(NamedTuple):
    """The bytes of a body that arrived, and whether the final chunk did."""

    data: bytes
    whole: bool

    def rows(self) -> list[int]:
        """The `n` of each row that arrived, in whichever format."""
        return [int(n) for n in ROW.findall(self.data)]

    def frames(self) -> list[tuple[str, Any]]:
        """The frames of a framed body, each with its kind."""
        if self.data.startswith(b"event:"):
            return [(event.type, json.loads(event.data)) for event in sse.parse(self.data).events]
        return [next(iter(json.loads(line).items())) for line in self.data.splitlines()]


class Answer(NamedTuple):
    """An answer's status, the `type` of its problem where it is one, and its Retry-After."""

    status: int
    problem: str | None
    retry_after: str | None
    seconds: float


class Site(NamedTuple):
    """A PostgreSQL that may be broken, the service on it, and a client of that."""

    postgres: PostgresServer
    service: Running

    async def spring(self, at: int, how: str) -> None:
        """Set the trap; row 0, which there isn't, disarms it."""
        async with superuser(self.postgres) as admin:
            await admin.execute("UPDATE trap.spring SET at = $1, how = $2", at, how)

    async def stream(self, path: str) -> Body:
        return await asyncio.to_thread(read, self.service.port, path)

    async def begun(self, path: str) -> asyncio.Task[Body]:
        """A stream whose answer has begun, so that nothing can make another status of it."""
        answered = threading.Event()
        reading = asyncio.to_thread(read, self.service.port, path, answered)
        stream = asyncio.create_task(reading)
        assert await asyncio.to_thread(answered.wait, DEADLINE)
        return stream

    async def ask(self, path: str) -> Answer:
        """Asks, and reads the answer to its end."""
        began = time.monotonic()
        async with aiohttp.request(
            "GET",
            self.service.url + path,
            headers=bearer(),
            timeout=aiohttp.ClientTimeout(DEADLINE),
        ) as answer:
            body = await answer.read()
            is_problem = answer.content_type == "application/problem+json"
            problem = json.loads(body)["type"].removeprefix("/problems/") if is_problem else None
            retry_after = answer.headers.get("Retry-After")
            return Answer(answer.status, problem, retry_after, time.monotonic() - began)

    async def answers(self, path: str, status: int = 200) -> bool:
        return (await self.ask(path)).status == status

    async def backends(self, condition: str) -> list[int]:
        """The ids of the backends that serve streams."""
        wanted = "SELECT pid FROM pg_stat_activity WHERE application_name = 'feedsvc bulk' AND "
        async with superuser(self.postgres) as admin:
            return [row["pid"] for row in await admin.fetch(wanted + condition)]

    async def terminate(self, condition: str) -> None:
        """Terminates the service's backends for which the condition holds."""
        wanted = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND "
        async with superuser(self.postgres) as admin:
            await admin.fetch(wanted + condition, LOGIN)


@asynccontextmanager
async def superuser(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.url(), timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


def read(port: int, path: str, answered: threading.Event | None = None) -> Body:
    """A body as far as it goes: aiohttp's client would drop what arrived before a break."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", path, headers=bearer())
        answer = connection.getresponse()
        assert answer.status == 200
        if answered is not None:
            answered.set()
        return Body(answer.read(), whole=True)
    except http.client.IncompleteRead as cut:
        return Body(cut.partial, whole=False)
    finally:
        connection.close()


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    datasets: Path = tmp_path_factory.mktemp("broken") / "datasets.toml"
    datasets.write_text(DATASETS)
    # All pools of the service together, and three that are PostgreSQL's for superusers.
    settings = {"shared_buffers": "16MB", "max_connections": "20"}
    with copied_postgres(settings) as postgres:
        asyncio.run(_make_schema(postgres))
        url = as_login(postgres.url())
        with serving(url, datasets=datasets, settings=SETTINGS) as service:
            yield Site(postgres, service)


async def _make_schema(postgres: PostgresServer) -> None:
    async with superuser(postgres) as admin:
        await admin.execute(SCHEMA)


@pytest.mark.parametrize("trapped", ["trapped", "trapped-copy", "trapped-projection"])
@pytest.mark.parametrize("form", FORMS)
async def test_a_backend_that_is_terminated_leaves_a_prefix_without_an_end(
    site: Site, form: str, trapped: str
) -> None:
    at = random.randrange(1_000, ROWS)
    await site.spring(0, "terminate")
    uncut = await site.stream(f"/v1/feeds/{trapped}?{form}")
    assert uncut.whole
    assert uncut.rows() == list(range(1, ROWS + 1))
    await site.spring(at, "terminate")
    cut = await site.stream(f"/v1/feeds/{trapped}?{form}")
    assert not cut.whole
    arrived = cut.rows()
    assert arrived == list(range(1, len(arrived) + 1))
    assert 0 < len(arrived) < at
    if form not in FRAMED:
        assert uncut.data.startswith(cut.data)


@pytest.mark.parametrize("form", FRAMED)
@pytest.mark.parametrize(
    ("how", "problem", "status"),
    [
        ("terminate", "database-unavailable", 503),
        ("sleep", "timeout", 504),
        ("XX001", "data-fault", 500),  # data_corrupted
        ("P0001", "data-fault", 500),  # raise_exception: a kind that no list foresees
        ("22012", "data-fault", 500),  # division_by_zero: the view's mistake, not the client's
        ("57014", "timeout", 504),  # query_canceled
    ],
)
async def test_the_last_frame_of_a_broken_stream_says_why_and_where_to_go_on(
    site: Site, form: str, how: str, problem: str, status: int
) -> None:
    await site.spring(random.randrange(1_000, ROWS), how)
    cut = await site.stream(f"/v1/feeds/trapped?{form}")
    assert not cut.whole
    assert b"secret" not in cut.data
    kind, failure = cut.frames()[-1]
    assert (kind, failure["type"], failure["status"]) == ("error", f"/problems/{problem}", status)
    assert "end" not in [kind for kind, _ in cut.frames()]
    await site.spring(0, how)
    rest = await site.stream(f"/v1/feeds/trapped?{form}&after={failure['after']}")
    assert rest.whole
    assert cut.rows() + rest.rows() == list(range(1, ROWS + 1))


@pytest.mark.parametrize("form", FORMS)
async def test_aiohttp_distinguishes_a_broken_body_from_a_whole_one(site: Site, form: str) -> None:
    await site.spring(ROWS // 2, "terminate")
    with pytest.raises(aiohttp.ClientPayloadError):
        await site.ask(f"/v1/feeds/trapped?{form}")
    await site.spring(0, "terminate")
    assert (await site.ask(f"/v1/feeds/trapped?{form}")).status == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
@pytest.mark.parametrize("form", FORMS)
async def test_curl_distinguishes_a_broken_body_from_a_whole_one(site: Site, form: str) -> None:
    header = f"Authorization: {bearer()['Authorization']}"
    codes = []
    for at in (0, ROWS // 2):
        await site.spring(at, "terminate")
        command = ["curl", "-sS", "-H", header, "-o", os.devnull]
        command.append(f"{site.service.url}/v1/feeds/trapped?{form}")
        curl = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        codes.append(await curl.wait())
    assert codes == [0, 18]  # 18: a partial file


@pytest.mark.parametrize("query", QUERIES)
async def test_what_fails_before_the_first_row_is_a_real_5xx(site: Site, query: str) -> None:
    await site.spring(1, "terminate")
    lost = await site.ask(f"/v1/feeds/trapped{query}")
    assert (lost.status, lost.problem) == (503, "database-unavailable")
    assert int(lost.retry_after or "") > 0
    await site.spring(1, "P0001")
    raised = await site.ask(f"/v1/feeds/trapped{query}")
    assert (raised.status, raised.problem) == (500, "data-fault")


@pytest.mark.parametrize("query", QUERIES)
async def test_a_locked_table_is_a_503_by_lock_timeout_and_holds_nothing(
    site: Site, query: str
) -> None:
    assert await site.answers(f"/v1/feeds/rows{query}")  # so that there is a connection
    async with superuser(site.postgres) as admin, admin.transaction():
        await admin.execute("LOCK TABLE trap.rows")
        late = await site.ask(f"/v1/feeds/rows{query}")
        assert (late.status, late.problem) == (503, "dataset-locked")
        assert late.seconds >= QUERY_TIMEOUT / 3, "what lock_timeout is where it is left out"
        assert await site.backends("state <> 'idle'") == []
    assert await site.answers(f"/v1/feeds/rows{query}")


async def test_a_restart_in_mid_stream_is_an_outage_that_ends_with_it(site: Site) -> None:
    """The stream breaks, requests get 503; behind the return all is well.

    `/live` and `/ready` stay 200: no other instance would do better.
    """
    await site.spring(100, "crawl")
    stream = await site.begun("/v1/feeds/trapped")
    await asyncio.to_thread(site.postgres.stop, "immediate")
    try:
        assert not (await asyncio.wait_for(stream, DEADLINE)).whole
        for query in QUERIES:
            down = await site.ask(f"/v1/feeds/rows{query}")
            assert (down.status, down.problem) == (503, "database-unavailable")
            assert int(down.retry_after or "") > 0
        for path in ("/ready", "/live"):
            assert await site.answers(path)
    finally:
        await asyncio.to_thread(site.postgres.start)
    for path in ("/v1/feeds/rows", "/v1/feeds/rows?limit=20", "/ready"):
        await until(lambda path=path: site.answers(path))  # type: ignore[misc]


async def test_a_server_that_is_out_of_slots_is_a_503(site: Site) -> None:
    async with AsyncExitStack() as taken:

        async def take_what_is_free() -> None:
            while True:
                hog = await asyncpg.connect(as_login(site.postgres.url()))
                taken.push_async_callback(hog.close)

        async def is_refused() -> bool:
            """Take the service's slots, too: a backend that ended late leaves one."""
            await site.terminate("application_name LIKE 'feedsvc %'")
            with pytest.raises(asyncpg.TooManyConnectionsError):
                await take_what_is_free()
            full = await site.ask("/v1/feeds/rows")
            return (full.status, full.problem) == (503, "database-unavailable")

        await until(is_refused)
    await until(lambda: site.answers("/v1/feeds/rows"))
    await until(lambda: site.answers("/ready"))


async def test_a_server_that_has_become_read_only_is_read_as_before(site: Site) -> None:
    async with superuser(site.postgres) as admin:
        await admin.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        try:
            assert await site.answers("/v1/feeds/rows?format=csv")
            assert await site.answers("/ready")
        finally:
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute("ALTER DATABASE postgres RESET default_transaction_read_only")


async def test_a_frozen_backend_costs_its_stream_but_not_its_slot(site: Site) -> None:
    """The only connection of its pool comes back while it is frozen; others never notice."""
    await site.spring(100, "crawl")
    stream = await site.begun("/v1/feeds/trapped?format=sse")
    active = list[int]()

    async def is_active() -> bool:
        active[:] = await site.backends("state = 'active'")
        return bool(active)

    await until(is_active)
    frozen = active[0]
    os.kill(frozen, signal.SIGSTOP)
    try:
        assert await site.answers("/v1/feeds/rows?limit=20")
        cut = await asyncio.wait_for(stream, DEADLINE)
        assert not cut.whole
        assert cut.frames()[-1][0] == "error"
        # While the backend is frozen yet: its slot is given to another connection.
        await until(lambda: site.answers("/v1/feeds/rows?format=csv"))
    finally:
        os.kill(frozen, signal.SIGCONT)


async def test_a_frozen_postmaster_is_a_503_for_those_who_need_a_new_connection(
    site: Site,
) -> None:
    assert await site.answers("/v1/feeds/rows?limit=20")
    await site.terminate("application_name = 'feedsvc bulk'")
    os.kill(site.postgres.pid, signal.SIGSTOP)
    try:
        assert await site.answers("/v1/feeds/rows?limit=20")  # its pool has a connection
        late = await site.ask("/v1/feeds/rows?format=csv")
        assert late.status == 503
        assert int(late.retry_after or "") > 0
    finally:
        os.kill(site.postgres.pid, signal.SIGCONT)
    await until(lambda: site.answers("/v1/feeds/rows?format=csv"))
