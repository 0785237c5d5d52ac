"""Canaries in everything that comes in: none comes out in a log line, a header or a problem."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg
import pytest

from tests.integration.conftest import NewDatabase
from tests.support.narrow import narrow_session
from tests.support.redis_server import redis_running
from tests.support.servers import LOGIN, as_login, with_database
from tests.support.service import Running, serving, token

CANARY = "kanarienvogel"
PERSON, EMAIL = f"{CANARY}-person", f"{CANARY}@example.org"
TENANT, SUBJECT = f"{CANARY}-tenant", f"{CANARY}-subject"

SCHEMA = f"""
    CREATE SCHEMA leaks;
    CREATE TABLE leaks.people (
        id bigint PRIMARY KEY, tenant_id text NOT NULL, name text, email text
    );
    INSERT INTO leaks.people
    SELECT n, '{TENANT}', '{PERSON} ' || n, '{EMAIL}' FROM generate_series(1, 20000) n;
    CREATE FUNCTION leaks.fail(name text) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no number in %', name USING DETAIL = name, HINT = name; END $$;
    CREATE VIEW leaks.broken WITH (security_invoker = true) AS
        SELECT id, tenant_id, name, leaks.fail(name) AS number FROM leaks.people;
    ALTER TABLE leaks.people ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON leaks.people FOR SELECT
        USING (tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), '')));
    GRANT USAGE ON SCHEMA leaks TO {LOGIN};
    GRANT SELECT ON ALL TABLES IN SCHEMA leaks TO {LOGIN};
"""
DATASETS = """
[people]
relation = "leaks.people"
key = ["id"]
tenant = "tenant_id"
[people.filters]
email = ["eq"]
name = ["eq", "prefix"]

[broken]
relation = "leaks.broken"
key = ["id"]
not_null = ["id"]
tenant = "tenant_id"
"""


@pytest.fixture
async def leaky(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[Running]:
    (tmp_path / "datasets.toml").write_text(DATASETS)
    settings = {
        "FEEDSVC_LOG__LEVEL": "DEBUG",
        "FEEDSVC_LIMITS__CLIENT__BURST": "1",
        "FEEDSVC_SERVER__SEND_BUFFER": "16384",
    }
    async with new_database() as url:
        admin = await asyncpg.connect(url)
        await admin.execute(SCHEMA)
        with (
            redis_running() as redis,
            serving(
                as_login(url),
                datasets=tmp_path / "datasets.toml",
                settings={**settings, "FEEDSVC_REDIS__URL": redis.url},
            ) as running,
        ):
            yield running
        await admin.close()


def odd_requests() -> Iterator[tuple[str, dict[str, str]]]:
    """Paths with canaries in every place, and headers with more of them."""
    good = {"Authorization": f"Bearer {token(TENANT, subject=SUBJECT)}"}
    couple = {"Authorization": f"Bearer {token(TENANT, client=CANARY)}"}
    value = quote(f"{CANARY} value@example.org")
    for path in (
        f"/v1/feeds/people?email={value}",
        f"/v1/feeds/people?name.prefix={value}",
        f"/v1/feeds/people?id={value}",
        f"/v1/feeds/people?after={value}",
        f"/v1/feeds/people?limit={value}",
        f"/v1/feeds/people/{value}",
        f"/v1/feeds/{value}",
        f"/{value}?{value}={value}",
        f"/problems/{value}",
        "/v1/feeds/broken",
        "/v1/feeds/broken?limit=5",
        "/v1/feeds/broken/1",
        f"/v1/feeds/people?ticket={CANARY}",
    ):
        yield path, good
        yield path, {"Authorization": f"Bearer {CANARY}.{CANARY}.{CANARY}"}
        yield path, {}
    for _ in range(5):
        yield "/v1/feeds/people?limit=1", couple
    for name in ("Accept", "X-Forwarded-For", "Origin", "Accept-Encoding", "Range", "Host"):
        yield "/v1/feeds/people?limit=x", {**good, name: f"{CANARY}, 10.9.8.7"}


async def test_no_token_ticket_or_datum_is_in_anything_that_the_service_emits(
    leaky: Running, admin_url: str
) -> None:
    emitted: list[tuple[str, str]] = []
    async with aiohttp.ClientSession(leaky.url) as http:
        for path, headers in odd_requests():
            async with http.get(path, headers=headers) as answer:
                body = await answer.text()
                what = str(dict(answer.headers))
                if answer.status >= 400:
                    # A problem may say what was asked to whoever asked it: its path, no more.
                    what += body.replace(path.partition("?")[0], "")
                emitted.append((path, what))
        assert {path for path, _ in emitted} >= {"/v1/feeds/broken", "/v1/feeds/broken/1"}
        secrets = [token(TENANT).split(".")[2]]
        headers = {"Authorization": f"Bearer {token(TENANT)}"}
        secrets.append(headers["Authorization"].split(".")[2])
        wanted = {"path": "/v1/feeds/people"}
        for _ in range(3):
            async with http.post("/v1/tickets", json=wanted, headers=headers) as answer:
                ticket = (await answer.json())["ticket"]
                secrets.append(ticket)
            async with http.get(f"/v1/feeds/people?limit=1&ticket={ticket}") as answer:
                emitted.append(("ticket", str(dict(answer.headers))))
        await break_a_stream(leaky.url, headers, admin_url)
    malformed(leaky.port)
    leaky.terminate()
    await asyncio.to_thread(leaky.process.wait, 20)
    log = "".join(leaky.log)
    assert log.count("feedsvc.access") > 40
    assert "SQLSTATE" in log, "no database error was met, so nothing was tested of them"
    for secret in (CANARY, "10.9.8.7", "127.0.0.1:", *secrets):
        lines = [x for x in leaky.log if secret in x and "feedsvc serves" not in x]
        assert not lines, lines[0]
    for path, what in emitted:
        for secret in (PERSON, EMAIL, SUBJECT, "10.9.8.7", "no number in", "SELECT ", *secrets):
            assert secret not in what, (path, what)


async def break_a_stream(url: str, headers: dict[str, str], admin_url: str) -> None:
    """A stream's backend is ended under it, before the stream is parked for its slow client."""
    admin = await asyncpg.connect(with_database(admin_url, "postgres"))
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'leaks.*people'"
    async with narrow_session(url) as http:
        while True:
            async with http.get("/v1/feeds/people?format=sse", headers=headers) as answer:
                await answer.content.readany()
                if not await admin.fetch(f"{sql} AND application_name = 'feedsvc bulk'"):
                    await answer.read()
                    continue
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()
                break
    await admin.close()


def malformed(port: int) -> None:
    """Requests that are no HTTP, with canaries where a parser's message would quote them."""
    for head in (
        f"GET /{CANARY} HTTP/9.{CANARY}\r\n\r\n",
        f"{CANARY} / HTTP/1.1\r\n{CANARY}\0: x\r\n\r\n",
        f"GET /v1/feeds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY * 3_000}\r\n\r\n",
        f"GET /{CANARY * 3_000} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"POST /v1/tickets HTTP/1.1\r\nHost: x\r\nContent-Length: {CANARY}\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(head.encode())
            while client.recv(65_536):
                pass
