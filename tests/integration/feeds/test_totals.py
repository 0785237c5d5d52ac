"""`total` says how many rows there will be, and nothing of rows that the caller may not see."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import asyncpg
import pytest

from feedsvc.core.timing import Stages
from feedsvc.feeds.export import open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.totals import MOST_COUNTED, coarse
from tests.support import sse, statements
from tests.support.servers import LOGIN, as_login
from tests.support.service import bearer, serving
from tests.support.sites import CHUNK, Site, sited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

OWN: Final = 12_345
SECRET: Final = "Bunker 9"
SCHEMA: Final = f"""
CREATE SCHEMA app;
CREATE TABLE app.items (
    tenant text NOT NULL, id bigint NOT NULL, venue text NOT NULL, at date NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX ON app.items (tenant, at, id);
INSERT INTO app.items SELECT 'rosewood', n, 'hall ' || n % 9, date '2020-01-01' + n % 700
    FROM generate_series(1, {OWN}) AS n;
INSERT INTO app.items SELECT 'other', n, '{SECRET}', '2031-05-05'
    FROM generate_series(1, 9000) AS n;
ALTER TABLE app.items ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.items
    USING (tenant = (SELECT nullif(current_setting('feedsvc.tenant', true), '')));
CREATE FUNCTION app.slowly(n bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN PERFORM pg_sleep(0.02); RETURN n > 0; END $$;
CREATE VIEW app.slow WITH (security_invoker = true) AS
    SELECT * FROM app.items WHERE app.slowly(id) AND id <= 600;
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS: Final = """
[items]
relation = "app.items"
key = ["id"]
tenant = "tenant"
cache = false
[items.orders]
oldest = ["at"]
[items.filters]
venue = []
at = []
id = []

[slow]
relation = "app.slow"
key = ["id"]
tenant = "tenant"
not_null = ["id"]
"""
# Long enough for a count on a machine that is busy with other things.
PATIENT: Final = {"FEEDSVC_STREAMS__COUNT_TIMEOUT": "30"}


@pytest.fixture(scope="module")
async def url(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database() as made:
        superuser = await asyncpg.connect(made)
        await superuser.execute(SCHEMA)
        await superuser.execute("VACUUM ANALYZE")
        await superuser.close()
        yield as_login(made)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("totals") / "datasets.toml"
    made.write_text(DATASETS)
    return made


@pytest.fixture(scope="module")
async def http(url: str, file: Path) -> AsyncIterator[aiohttp.ClientSession]:
    with serving(url, datasets=file, settings=PATIENT) as running:
        async with aiohttp.ClientSession(running.url) as session:
            yield session


async def opening(http: aiohttp.ClientSession, **given: str) -> dict[str, Any]:
    """The total in the first event."""
    parameters = {"format": "sse", "limit": "501", **given}
    async with http.get("/v1/feeds/items", params=parameters, headers=bearer()) as answer:
        assert answer.status == 200, await answer.text()
        (first, *_) = sse.parse(await answer.read()).events
    reported = json.loads(first.data)
    return {"total": reported["total"], "total_kind": reported["total_kind"]}


@pytest.mark.parametrize(
    ("theirs", "nobodys"),
    [
        ({"venue": SECRET}, {"venue": "Bunker 8"}),
        ({"venue.prefix": "Bu"}, {"venue.prefix": "Bv"}),
        ({"venue.gte": "B", "venue.lt": "C"}, {"venue.gte": "D", "venue.lt": "E"}),
        ({"venue.in": SECRET}, {"venue.in": "nowhere"}),
        ({"at.gte": "2031-01-01"}, {"at.gte": "2032-01-01"}),
        (
            {"order": "oldest", "after": "2031-01-01,0"},
            {"order": "oldest", "after": "2032-01-01,0"},
        ),
    ],
)
async def test_another_tenants_value_is_as_one_that_does_not_exist(
    http: aiohttp.ClientSession, theirs: dict[str, str], nobodys: dict[str, str]
) -> None:
    """The planner's estimates are made of all tenants' values."""
    for more in ({}, {"limit": "9000000"}):
        reported = await opening(http, **theirs, **more)
        assert reported == {"total": 0, "total_kind": "exact"}
        assert reported == await opening(http, **nobodys, **more)


@pytest.mark.parametrize(
    ("given", "total", "kind"),
    [
        ({"venue": "hall 1", "limit": "501"}, 501, "exact"),
        ({"venue": "hall 1", "limit": "100000"}, len(range(1, OWN + 1, 9)), "exact"),
        ({"id.lte": str(MOST_COUNTED), "limit": "20000"}, MOST_COUNTED, "exact"),
        ({"id.lte": str(MOST_COUNTED + 1), "limit": "20000"}, None, "estimate"),
        ({"after": "1", "limit": "20000"}, None, "estimate"),
        ({"after": str(OWN - 600), "limit": "20000"}, 600, "exact"),
        ({"limit": "600"}, 600, "exact"),
        ({"limit": "100000"}, coarse(OWN), "estimate"),
    ],
)
async def test_rows_are_counted_as_far_as_that_is_cheap(
    http: aiohttp.ClientSession, given: dict[str, str], total: int | None, kind: str
) -> None:
    reported = await opening(http, **given)
    assert reported == {"total": total, "total_kind": kind}


async def test_rows_that_take_long_to_count_are_not_waited_for(url: str, file: Path) -> None:
    async with sited(url, file) as site:
        query = site.query("slow", "projection", format="sse")
        options = ExportOptions(CHUNK, count_timeout=0.1)
        async with open_export(query, site.who, site.pool, options, Stages()) as export:
            assert export.total() == (None, "estimate")
            assert await export.take() is not None


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({"format": "ndjson"}, 0),
        ({"format": "csv"}, 0),
        ({"format": "json"}, 0),
        ({"format": "sse"}, 1),
        ({"format": "ndjson", "frames": "1"}, 1),
    ],
)
async def test_only_formats_that_show_a_total_pay_for_one(
    url: str, file: Path, given: dict[str, str], counts: int
) -> None:
    async with sited(url, file) as site:
        with statements.kept() as sent:
            await exported(site, given)
    assert sum("count(*)" in each for each in sent) == counts
    if not counts:
        assert not [each for each in sent if "SAVEPOINT" in each]


async def exported(site: Site, given: dict[str, str]) -> None:
    query, options = (
        site.query("items", "projection", **given),
        ExportOptions(CHUNK, count_timeout=30),
    )
    async with open_export(query, site.who, site.pool, options, Stages()) as export:
        while await export.take() is not None:
            pass


async def test_which_way_rows_came_is_for_operators(http: aiohttp.ClientSession) -> None:
    """It follows from a plan, and so from statistics of all tenants' rows."""
    for role in ("member", "admin"):
        headers = bearer(role=role, operator=False)
        async with http.get("/v1/feeds/items", headers=headers) as answer:
            assert "source" not in answer.headers["Server-Timing"]
            await answer.read()
    async with http.get("/v1/feeds/items", headers=bearer(operator=True)) as answer:
        assert "source;desc=" in answer.headers["Server-Timing"]
        await answer.read()


def test_an_estimate_is_rounded_to_steps() -> None:
    assert [coarse(n) for n in (0, 1, 10_001, 12_345, 149_000, 84_000, 999_999)] == [
        *(0, 1, 10_000, 15_000, 150_000, 100_000, 1_000_000)
    ]
