"""Faults of the data are never the caller's: a problem of their own, and no 400."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg
import pytest

from tests.integration.commands.test_check import environment
from tests.support.forked import feedsvc
from tests.support.servers import LOGIN, as_login, copied_database
from tests.support.service import NO_REDIS, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

SCHEMA: Final = f"""
CREATE SCHEMA app;
CREATE TABLE app.base (id int PRIMARY KEY, word text NOT NULL);
INSERT INTO app.base SELECT n, n::text FROM generate_series(1, 3) AS n;
INSERT INTO app.base VALUES (4, 'secret');
CREATE DOMAIN app.short AS text CHECK (length(VALUE) < 3);
CREATE FUNCTION app.refuses(word text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF word = 'secret' THEN RAISE EXCEPTION 'no %', word USING ERRCODE = 'ZZ001'; END IF;
    RETURN word;
END $$;
CREATE VIEW app.casts AS SELECT id, word, word::int AS n FROM app.base;
CREATE VIEW app.checks AS SELECT id, word, word::app.short AS n FROM app.base;
CREATE VIEW app.raises AS SELECT id, word, app.refuses(word) AS n FROM app.base;
CREATE VIEW app.several AS
    SELECT id, word, (SELECT b.id FROM app.base b WHERE b.id >= base.id AND base.id = 2) AS n
    FROM app.base;
CREATE MATERIALIZED VIEW app.unfilled AS SELECT id, word, word AS n FROM app.base WITH NO DATA;
CREATE UNIQUE INDEX ON app.unfilled (id);
CREATE VIEW app.over_unfilled WITH (security_invoker = true) AS SELECT * FROM app.unfilled;
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
FAILING: Final = ("casts", "checks", "raises", "several")
UNFILLED: Final = ("unfilled", "over_unfilled")
WAYS: Final = (
    *("format=json", "format=csv", "format=ndjson&limit=10", "format=sse", "format=sse&limit=10"),
    *("format=ndjson&word.gte=0", "format=csv&after=0&limit=9", "format=json&word=secret"),
)


def declared(*relations: str) -> str:
    return "\n".join(
        f"""
        [{name.replace("_", "-")}]
        relation = "app.{name}"
        key = ["id"]
        shared = true
        not_null = ["id", "word"]
        filters = {{ word = [], id = [] }}
        """
        for name in relations
    )


@pytest.fixture(scope="module")
async def url(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(script=SCHEMA) as made:
        yield made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("faults") / "datasets.toml"
    made.write_text(declared(*FAILING, *UNFILLED))
    return made


@pytest.fixture(scope="module")
async def http(url: str, file: Path) -> AsyncIterator[aiohttp.ClientSession]:
    with serving(as_login(url), datasets=file, settings=NO_REDIS) as running:
        async with aiohttp.ClientSession(running.url, headers=bearer()) as session:
            yield session


async def reported(http: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with http.get(path) as answer:
        text = await answer.text()
        assert "secret" not in text, text
        assert "app." not in text
        return answer.status, (await answer.json(content_type=None))["type"]


@pytest.mark.parametrize("dataset", FAILING)
async def test_a_row_that_fails_is_the_datas_fault(
    http: aiohttp.ClientSession, dataset: str
) -> None:
    row = 2 if dataset == "several" else 4
    for way in WAYS:
        if dataset == "several" and "word=secret" in way:
            continue
        assert await reported(http, f"/v1/feeds/{dataset}?{way}") == (
            500,
            "/problems/data-fault",
        ), way
    found = await reported(http, f"/v1/feeds/{dataset}/{row}")
    assert found == (500, "/problems/data-fault")


@pytest.mark.parametrize("dataset", UNFILLED)
async def test_a_materialized_view_without_data_is_503_until_it_has_some(
    http: aiohttp.ClientSession, url: str, dataset: str
) -> None:
    path = f"/v1/feeds/{dataset.replace('_', '-')}"
    for way in (*(f"{path}?{way}" for way in WAYS), f"{path}/1"):
        async with http.get(way) as answer:
            problem = await answer.json(content_type=None)
            assert (answer.status, problem["type"]) == (503, "/problems/not-filled"), way
            assert answer.headers["Retry-After"]
    superuser = await asyncpg.connect(url)
    await superuser.execute("REFRESH MATERIALIZED VIEW app.unfilled")
    async with http.get(f"{path}?format=ndjson&limit=1&columns=id") as answer:
        assert (answer.status, await answer.text()) == (200, '{"id":1}\n')
    await superuser.execute("REFRESH MATERIALIZED VIEW app.unfilled WITH NO DATA")
    await superuser.close()


def test_the_check_names_a_materialized_view_without_data(url: str, file: Path) -> None:
    checked = feedsvc("check", env=environment(as_login(url), FEEDSVC_DATASETS__FILE=str(file)))
    assert checked.returncode == 1
    printed = checked.stdout + checked.stderr
    for dataset in ("unfilled", "over-unfilled"):
        assert f"error: {dataset}.relation: app.unfilled is a materialized view without data" in (
            printed
        )
    assert "REFRESH MATERIALIZED VIEW app.unfilled" in printed


async def test_bytes_that_are_no_text_are_the_datas_fault(admin_url: str, tmp_path: Path) -> None:
    """In a database of SQL_ASCII nothing makes sure of them."""
    options = "ENCODING SQL_ASCII LOCALE 'C'"
    async with copied_database(admin_url, "template0", options) as made:
        superuser = await asyncpg.connect(made)
        await superuser.execute(
            f"""
            CREATE SCHEMA app;
            CREATE TABLE app.bytes (id int PRIMARY KEY, word text NOT NULL);
            INSERT INTO app.bytes VALUES (1, 'fine'), (2, E'caf\\xe9');
            GRANT USAGE ON SCHEMA app TO {LOGIN};
            GRANT SELECT ON app.bytes TO {LOGIN};
            """
        )
        await superuser.close()
        file = tmp_path / "datasets.toml"
        file.write_text(declared("bytes"))
        with serving(as_login(made), datasets=file, settings=NO_REDIS) as running:
            async with aiohttp.ClientSession(running.url, headers=bearer()) as http:
                for way in WAYS[:5]:
                    found = await reported(http, f"/v1/feeds/bytes?{way}")
                    assert found == (500, "/problems/data-fault"), way
                assert await reported(http, "/v1/feeds/bytes/2") == (500, "/problems/data-fault")
                async with http.get("/v1/feeds/bytes/1") as answer:
                    assert await answer.text() == '{"id":1,"word":"fine"}\n'


async def test_a_value_that_the_database_has_no_place_for_is_the_requests(
    admin_url: str, tmp_path: Path
) -> None:
    options = "ENCODING LATIN1 LOCALE 'C'"
    async with copied_database(admin_url, "template0", options) as made:
        superuser = await asyncpg.connect(made)
        await superuser.execute(SCHEMA)
        await superuser.close()
        file = tmp_path / "datasets.toml"
        file.write_text(declared("base").replace("not_null", "#"))
        with serving(as_login(made), datasets=file, settings=NO_REDIS) as running:
            async with aiohttp.ClientSession(running.url, headers=bearer()) as http:
                for way in ("format=ndjson&word=日本", "limit=5&word.prefix=日"):
                    found = await reported(http, f"/v1/feeds/base?{way}")
                    assert found == (400, "/problems/bad-parameter"), way
