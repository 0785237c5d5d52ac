"""Rows that callers see: two tenants, a couple and an admin at once, and each lock alone."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from feedsvc.datasets.dataset import declarations
from streams import tokens
from tests.integration.conftest import NewDatabase
from tests.integration.feeds.foreign import oracle
from tests.integration.feeds.foreign.oracle import literal
from tests.support.servers import TEMPLATE, as_login
from tests.support.service import REPOSITORY, bearer, serving

DECLARED = REPOSITORY / "config" / "datasets.toml"
DATASETS = declarations(DECLARED)
SHARED_WITH_COUPLES = {"vendors", "vendor_figures"}
OWN, OTHER = "rosewood", "atelier-blanc"
PAGE = "200"


@dataclass(frozen=True)
class Caller:
    """A caller. `client` is a couple's id."""

    tenant: str
    role: str = "member"
    client: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.tenant, self.role, self.client)

    def may_read(self, name: str) -> bool:
        return (
            self.client is None
            or DATASETS[name].client is not None
            or (name in SHARED_WITH_COUPLES)
        )

    def rows(self, name: str) -> str:
        """A FROM clause of what it may see."""
        condition = f"tenant_id = {literal(self.tenant)}"
        if self.client is not None and name not in SHARED_WITH_COUPLES:
            condition += f" AND {DATASETS[name].client} = {self.client}"
        return f"{DATASETS[name].relation} WHERE {condition}"


@pytest.fixture
async def callers(world: asyncpg.Connection) -> list[Caller]:
    couple = await world.fetchval(
        "SELECT client_id FROM wedding.tasks WHERE tenant_id = $1 LIMIT 1", OWN
    )
    return [
        Caller(OWN), Caller(OTHER), Caller(OWN, "admin"), Caller(OWN, client=str(couple)),
    ]  # fmt: skip


def key_order(name: str) -> str:
    return ", ".join(DATASETS[name].key)


async def columns_of(world: asyncpg.Connection, name: str) -> list[str]:
    rows = await world.fetch(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass"
        " AND attnum > 0 ORDER BY attnum",
        DATASETS[name].relation,
    )
    return [row[0] for row in rows]


@pytest.mark.either_way
@pytest.mark.parametrize("name", DATASETS)
async def test_all_at_once_each_gets_its_own_rows_alone(
    http: aiohttp.ClientSession, world: asyncpg.Connection, callers: list[Caller], name: str
) -> None:
    """One URL from two tenants, a couple and an admin, in every format, interleaved."""

    async def body(caller: Caller, form: str) -> tuple[int, str]:
        parameters = {"format": form, "limit": PAGE} | ({"guard": "off"} if form == "csv" else {})
        url = f"/v1/feeds/{name}"
        async with asyncio.timeout(60):
            while True:  # on a busy machine some wait for a connection in vain
                async with http.get(url, params=parameters, headers=caller.headers) as answer:
                    if answer.status != 503:
                        return answer.status, await answer.text()
                await asyncio.sleep(0.1)

    asked = [(caller, form) for form in oracle.FORMATS for caller in callers] * 2
    answers = await asyncio.gather(*(body(caller, form) for caller, form in asked))
    columns = await columns_of(world, name)
    may_read = [caller for caller in callers if caller.may_read(name)]
    expected = {caller: await rows_and_cells(world, caller, name, columns) for caller in may_read}
    for (caller, form), (status, text) in zip(asked, answers, strict=True):
        assert status == (200 if caller in expected else 403)
        if caller in expected:
            oracle.assert_body(form, text, columns, *expected[caller])
    assert any(rows for rows, _ in expected.values())


async def rows_and_cells(
    world: asyncpg.Connection, caller: Caller, name: str, columns: list[str]
) -> tuple[list[str], list[list[str | None]]]:
    """The rows and cells of a caller's first page, which depend on no format."""
    await as_tenant(world, caller.tenant)
    source = world, caller.rows(name), columns, f"{key_order(name)} LIMIT {PAGE}"
    return await oracle.objects(*source), await oracle.cells(*source)


async def as_tenant(world: asyncpg.Connection, tenant: str) -> None:
    """Set the tenant, whose rows alone a view of figures has even for a superuser."""
    await world.execute("SELECT set_config('feedsvc.tenant', $1, false)", tenant)


@pytest.mark.either_way
@pytest.mark.parametrize("name", DATASETS)
async def test_anothers_row_has_no_address(
    http: aiohttp.ClientSession, world: asyncpg.Connection, name: str
) -> None:
    """The key of another tenant's row is as unknown as that of no row."""
    await as_tenant(world, OTHER)
    keys = await oracle.cells(
        world, Caller(OTHER).rows(name), DATASETS[name].key, f"{key_order(name)} LIMIT 3"
    )
    assert keys
    for key in keys:
        address = f"/v1/feeds/{name}/{tokens.encode(part or '' for part in key)}"
        async with http.get(address, headers=bearer(OTHER)) as answer:
            own = await answer.text()
            assert answer.status == 200
        async with http.get(address, headers=bearer(OWN)) as answer:
            # A key of several parts may be that of a row of its own as well.
            text = await answer.text()
            assert answer.status in {200, 404}, text
            assert answer.status == 404 or json.loads(text)["tenant_id"] == OWN
            assert text != own


@pytest.mark.parametrize(
    "query",
    ["tenant_id=atelier-blanc", "tenant_id.eq=atelier-blanc", "tenant=atelier-blanc",
     "tenant_id.in=rosewood,atelier-blanc", "tenant_id.ne=rosewood", "feedsvc.tenant=atelier-blanc",
     "role=admin", "client=1", "columns=id&columns=tenant_id"],
)  # fmt: skip
async def test_a_tenant_in_the_query_is_refused(http: aiohttp.ClientSession, query: str) -> None:
    async with http.get(f"/v1/feeds/clients?limit=5&{query}", headers=bearer(OWN)) as answer:
        problem = await answer.json()
        assert (answer.status, problem["parameter"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize(
    "header", ["X-Tenant", "X-Tenant-Id", "Tenant", "X-Forwarded-User", "X-Role", "X-Client"]
)
async def test_a_tenant_in_a_header_is_passed_over(
    http: aiohttp.ClientSession, header: str
) -> None:
    bodies = []
    for extra in ({}, {header: OTHER}):
        url = "/v1/feeds/clients?format=ndjson&limit=50"
        async with http.get(url, headers=bearer(OWN) | extra) as answer:
            assert answer.status == 200
            bodies.append(await answer.text())
    assert bodies[0] == bodies[1] != ""


@pytest.mark.parametrize(
    "path",
    [f"/v1/{OTHER}/feeds/clients", f"/v1/feeds/{OTHER}.clients", f"/v1/feeds/clients/{OTHER}"],
)
async def test_a_tenant_in_the_path_leads_nowhere(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path, headers=bearer(OWN)) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("caller", "name"),
    [(Caller(OWN, client="1e8"), "clients"), (Caller(OWN, client="' OR true --"), "tasks"),
     (Caller(OWN, client="1"), "analytics"), (Caller(OWN, client="9" * 30), "budgets")],
)  # fmt: skip
async def test_a_client_that_can_have_no_row_is_forbidden(
    http: aiohttp.ClientSession, caller: Caller, name: str
) -> None:
    async with http.get(f"/v1/feeds/{name}?limit=1", headers=caller.headers) as answer:
        assert answer.status == 403


@pytest.mark.either_way
async def test_another_tenants_client_has_no_rows(
    http: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    client = await world.fetchval("SELECT min(id) FROM wedding.clients WHERE tenant_id = $1", OTHER)
    for name in ("clients", "tasks", "notifications"):
        headers = bearer(OWN, client=str(client))
        async with http.get(f"/v1/feeds/{name}?format=ndjson", headers=headers) as answer:
            assert (answer.status, await answer.text()) == (200, "")


@pytest.mark.either_way
@pytest.mark.parametrize("order", ["key", "newest", "name"])
async def test_another_tenants_token_gives_own_rows_alone(
    http: aiohttp.ClientSession, world: asyncpg.Connection, order: str
) -> None:
    """It names a place in the order, and behind it stand only the caller's rows."""
    named = {"key": ["id"], "newest": ["created_at", "id"], "name": ["partner_one", "id"]}[order]
    rows = Caller(OTHER).rows("clients")
    [key] = await oracle.cells(world, rows, named, "id OFFSET 10 LIMIT 1")
    parameters = {"format": "ndjson", "order": order, "after": tokens.encode(p or "" for p in key)}
    async with http.get("/v1/feeds/clients", params=parameters, headers=bearer(OWN)) as answer:
        assert answer.status == 200
        got = oracle.lines(await answer.text())
    assert all('"tenant_id":"rosewood"' in row for row in got)
    columns = await columns_of(world, "clients")
    own = await oracle.objects(world, Caller(OWN).rows("clients"), columns, "id")
    assert set(got) <= set(own)


@pytest.mark.parametrize(
    ("url", "token"),
    [("clients?order=newest", "100000001"), ("clients", "2026-01-01T00:00:00Z,100000001"),
     ("clients", "00000000-0000-4000-8000-000000000000"), ("budgets", "100000001"),
     ("analytics", "2026-01-01"), ("analytics?order=metric", "2026-01-01,visits"),
     ("clients", "100000001,"), ("clients", "%31%"), ("clients", ""), ("clients", "end")],
)  # fmt: skip
async def test_a_token_of_another_dataset_or_order_is_refused(
    http: aiohttp.ClientSession, url: str, token: str
) -> None:
    address = f"/v1/feeds/{url}{'&' if '?' in url else '?'}limit=1"
    async with http.get(f"{address}&after={token.replace('%', '%25')}", headers=bearer(OWN)) as got:
        assert (got.status, (await got.json())["parameter"]) == (400, "after")


@pytest.fixture(scope="module")
async def own_world(new_database: NewDatabase) -> AsyncIterator[str]:
    """A copy of the demo's world whose policies a test may take away."""
    async with new_database(TEMPLATE) as url:
        yield url


@pytest.fixture(scope="module")
def unpredicated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's datasets without the explicit tenant and client predicates."""
    plain = re.sub(
        r'^tenant = "tenant_id"$', "shared = true", DECLARED.read_text(), flags=re.MULTILINE
    )
    plain = re.sub(r'^client = ".*"$', "shared_with_clients = true", plain, flags=re.MULTILINE)
    analytics = 'key = ["tenant_id", "day", "metric"]\nshared_with_clients = true'
    plain = plain.replace('key = ["day", "metric"]', analytics)
    plain = plain.replace('key = ["month"]', 'key = ["month"]\nshared_with_clients = true')
    file = tmp_path_factory.mktemp("datasets") / "datasets.toml"
    file.write_text(plain)
    assert all(
        d.tenant is None and d.client is None and d.shared_with_clients
        for d in declarations(file).values()
    )
    return file


async def test_row_level_security_holds_without_the_predicate(
    world_url: str, unpredicated: Path, world: asyncpg.Connection, callers: list[Caller]
) -> None:
    with serving(world_url, datasets=unpredicated) as running:
        await assert_own_rows(running.url, world, callers, {"analytics", "month_figures"})


async def test_the_predicate_holds_without_row_level_security(
    own_world: str, callers: list[Caller]
) -> None:
    world = await asyncpg.connect(own_world, server_settings={"timezone": "UTC"})
    with serving(as_login(own_world)) as running:
        # Behind the start, which refuses such a database.
        for declared in DATASETS.values():
            if declared.refreshed:
                continue  # a view, whose conditions stay
            await world.execute(f"ALTER TABLE {declared.relation} DISABLE ROW LEVEL SECURITY")
        await assert_own_rows(running.url, world, callers, set())
    await world.close()


async def assert_own_rows(
    url: str, world: asyncpg.Connection, callers: list[Caller], unheld: set[str]
) -> None:
    """Each caller gets its own rows of each dataset; a couple none of those that are `unheld`."""
    async with aiohttp.ClientSession(url) as http:
        for name in DATASETS:
            columns = await columns_of(world, name)
            for caller in callers:
                address = f"/v1/feeds/{name}?format=ndjson&limit={PAGE}"
                async with http.get(address, headers=caller.headers) as answer:
                    body = await answer.text()
                if caller.may_read(name):
                    await as_tenant(world, caller.tenant)
                    order = f"{key_order(name)} LIMIT {PAGE}"
                    rows = await oracle.objects(world, caller.rows(name), columns, order)
                    assert oracle.lines(body) == rows
                elif name in unheld:
                    assert (answer.status, body) == (200, "")
                else:
                    assert answer.status == 403
