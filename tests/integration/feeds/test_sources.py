"""Whichever way rows come, they are the same rows in the same bytes, and a value stays a value."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import asyncpg
import pytest

from feedsvc.core.problems import BadParameter, DatasetUnavailable
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from feedsvc.feeds.export import open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.page_collector import PageCollector
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import choice, copy_pages
from feedsvc.feeds.sources.copy_pages import CopyPages
from streams import encoder
from streams.formats import FORMATS
from tests.integration.commands.test_check import environment
from tests.support import servers
from tests.support.drawn import DRAWN, share
from tests.support.encoding import needs_encoder
from tests.support.forked import feedsvc
from tests.support.servers import LOGIN, as_login
from tests.support.service import Running, bearer, serving
from tests.support.sites import CHUNK, MEMBER, Exported, Site, sited
from tests.support.sources import SOURCES, by_source, without_encoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from feedsvc.datasets.dataset import Op, SourceName
    from feedsvc.feeds.page import Page
    from tests.integration.conftest import NewDatabase

pytestmark = needs_encoder

NATIVE: Final[Sequence[SourceName]] = ("cursor", "copy")
HOSTILE: Final = (
    *("'", "''", '"', "\\", "\\'", "$1", "$$", "%s", "a\nb", "\r", "é\U0001f600", "\x01"),
    *("'); DROP TABLE wedding.clients; --", "current_setting('feedsvc.tenant')", "p1", "{}"),
    *("NULL", ",", "{a,b}", '{"a"}', "x" * 200_000, "'" * 10_000),
)


@pytest.fixture(scope="module")
async def site(world_url: str) -> AsyncIterator[Site]:
    async with sited(world_url, servers.DATASETS) as made:
        yield made


_PROJECTED: dict[tuple[str, ...], Exported] = {}


async def projected(site: Site, name: str, **asked: str) -> Exported:
    """What PostgreSQL itself encodes, asked once: no page's size and no source is part of it."""
    key = (name, *(f"{each}={value}" for each, value in sorted(asked.items())))
    if key not in _PROJECTED:
        _PROJECTED[key] = await site.read(site.query(name, "projection", **asked))
    return _PROJECTED[key]


BEGINNINGS: Final = (0, 60_000)


@pytest.fixture(params=BEGINNINGS)
def large_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are larger than what is passed on at a time, from the second one on.

    COPY begins at once, or in the middle of what a cursor reads ahead.
    """
    monkeypatch.setattr(choice.candidate, "__defaults__", (request.param,))
    monkeypatch.setattr(copy_pages, "LARGEST_PAGE", 700)


# A format in `make test` by one source from each beginning, by the other from the other.
@DRAWN
@pytest.mark.parametrize(
    ("large_pages", "source", "form"),
    [
        (begins, source, form)
        for turn, form in enumerate(FORMATS)
        for n, begins in enumerate(BEGINNINGS)
        for m, source in enumerate(NATIVE)
        if share(4) == 4 or (turn + n + m) % 2 == 0
    ],
    indirect=["large_pages"],
)
@pytest.mark.usefixtures("large_pages")
async def test_a_feed_is_the_same_by_every_source(
    site: Site, source: SourceName, form: str
) -> None:
    for name, dataset in site.datasets.items():
        for order in dataset.orders:
            expected = await projected(site, name, format=form, order=order)
            assert expected.records
            found = await site.read(site.query(name, source, format=form, order=order))
            if form == "sse":  # which has an event for each part
                expected, found = replace(expected, body=b""), replace(found, body=b"")
            assert found == expected, (name, order)
            assert found.source == source


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.usefixtures("large_pages")
async def test_a_feed_is_the_same_however_often_it_is_parked(
    site: Site, source: SourceName, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"order": "newest", "columns": "notes,created_at,budget"}
    expected = await projected(site, "clients", **given)
    parked = await site.read(site.query("clients", source, **given), park=random.Random(source))
    assert parked == expected
    assert not caplog.records  # as of a connection that had to be cut, for it was still reading


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.usefixtures("large_pages")
async def test_a_limit_is_kept_to_the_row_and_shows_that_there_is_more(
    site: Site, source: SourceName
) -> None:
    everything = (await projected(site, "clients")).records
    whole = len(everything)
    for limit in (0, 1, 63, 64, 65, 575, 576, 577, 700, 1_300, whole - 1, whole, whole + 1):
        found = await site.read(site.query("clients", source, limit=str(limit)))
        assert found.records == everything[:limit]
        assert found.more is (limit < whole), limit


@pytest.mark.parametrize("source", SOURCES)
async def test_what_an_export_begins_with_is_kept_as_a_page_of_just_so_many_rows(
    site: Site, source: SourceName
) -> None:
    kept: list[Page] = []
    options = ExportOptions(CHUNK, on_first_page=PageCollector(500, 1 << 24, kept.append))
    query = site.query("clients", source)
    async with open_export(query, MEMBER, site.pool, options, Stages()) as export:
        while await export.take() is not None:
            pass
    everything = await projected(site, "clients", limit="500")
    (page,) = kept
    assert (page.records, page.last, page.more) == (everything.records, everything.after, True)


OPS: Final[Sequence[Op]] = ("eq", "ne", "in", "prefix", "lt")


@DRAWN
@pytest.mark.parametrize(
    ("large_pages", "source", "op"),
    [
        (begins, source, op)
        for turn, op in enumerate(OPS)
        for n, begins in enumerate(BEGINNINGS)
        for m, source in enumerate(NATIVE)
        if share(4) == 4 or (turn + n + m) % 2 == 0
    ],
    indirect=["large_pages"],
)
@pytest.mark.usefixtures("large_pages")
async def test_a_value_stays_a_value(site: Site, source: SourceName, op: Op) -> None:
    column, name = ("category", "budgets") if op in {"ne", "in"} else ("partner_one", "clients")
    dataset = site.datasets[name]
    filterable = replace(dataset, filters={column: (op,)})
    site = replace(site, datasets={**site.datasets, name: filterable})
    for value in HOSTILE:
        listed = f'"{value.replace(chr(34), chr(34) * 2)}",venue'
        asked = {f"{column}.{op}": listed if op == "in" else value, "limit": "70"}
        query = site.query(name, source, **asked)
        expected = await projected(site, name, **asked)
        assert await site.read(query) == expected


@pytest.mark.usefixtures("large_pages")
async def test_a_position_of_hostile_values_stays_a_position(site: Site) -> None:
    for value in HOSTILE:
        after = f"{''.join(f'%{byte:02x}' for byte in value.encode())},5"
        asked = {"order": "name", "after": after, "limit": "3"}
        expected = await projected(site, "clients", **asked)
        assert await site.read(site.query("clients", "copy", **asked)) == expected


def test_a_nul_is_refused_before_anything_is_asked(site: Site) -> None:
    with pytest.raises(BadParameter):
        site.query("clients", "copy", partner_one="a\0b")


async def plan_of(site: Site, query: FeedQuery, after: Sequence[str]) -> dict[str, Any]:
    """PostgreSQL's plan for a page behind this row, row-level security and all."""
    pages = CopyPages(query, MEMBER)
    async with transaction.reading(site.pool, MEMBER, Stages()) as (connection, _):
        # The table is so small that PostgreSQL would otherwise read and sort all of it.
        await connection.execute("SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off")
        await connection.execute("SET LOCAL enable_bitmapscan = off")
        sql = pages._copy(after, 100)
        (plan,) = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}"))
        found: dict[str, Any] = plan["Plan"]
        return found


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for below in plan.get("Plans", ()) for node in nodes(below))]


async def test_an_index_takes_a_page_up_where_the_last_one_ended(site: Site) -> None:
    for name, dataset in site.datasets.items():
        for order in dataset.orders:
            query = site.query(name, "auto", order=order)
            if not isinstance(choice.candidate(query, MEMBER), CopyPages):
                continue
            first = await site.read(site.query(name, "projection", order=order, limit="100"))
            assert first.after is not None
            behind = site.query(name, "auto", order=order, after=first.after).after
            assert behind is not None
            found = nodes(await plan_of(site, query, behind))
            assert not [node for node in found if "Sort" in node["Node Type"]]
            (scan,) = [node for node in found if "Index" in node["Node Type"]]
            for part in query.order:
                assert part.column.name in scan["Index Cond"], scan


async def test_rows_to_be_sorted_come_through_a_cursor(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_pages, "LARGEST_PAGE", 100)  # the tenant is so small
    assert await chosen(site, site.query("clients", "auto")) == "copy"
    for source in NATIVE:
        assert await chosen(site, site.query("clients", source)) == source
    query = site.query("clients", "auto", order="name")
    unserved = replace(query.dataset, served=frozenset())
    assert await chosen(site, replace(query, dataset=unserved)) == "cursor"


async def chosen(site: Site, query: FeedQuery) -> str:
    stages = Stages()
    async with open_export(query, MEMBER, site.pool, ExportOptions(CHUNK), stages):
        return stages.said["source"]


async def test_an_order_of_both_directions_comes_through_a_cursor(site: Site) -> None:
    plain = site.query("clients", "auto", order="newest")
    assert choice.candidate(plain, MEMBER).name == "copy"
    first, *rest = plain.order
    mixed = (replace(first, descending=not first.descending), *rest)
    served = replace(plain.dataset, served=frozenset({mixed}))
    query = replace(plain, dataset=served, order=mixed)
    assert choice.candidate(query, MEMBER).name == "cursor"


async def test_a_plan_that_sorts_each_page_is_noticed(site: Site) -> None:
    query = site.query("clients", "auto", order="newest")
    unindexed = replace(query.order[0], column=query.dataset.columns["partner_two"])
    order = (unindexed, *query.order[1:])
    dataset = replace(query.dataset, served=frozenset({order}))
    assert await chosen(site, replace(query, dataset=dataset, order=order)) == "cursor"


@pytest.mark.parametrize("source", ["auto", *SOURCES])
def test_without_the_encoder_postgresql_itself_encodes(
    site: Site, source: SourceName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "MISSING", "there was no compiler")
    assert choice.candidate(site.query("clients", source), MEMBER).name == "projection"


ALTERED: Final = f"""
CREATE SCHEMA altered;
CREATE TABLE altered.things (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL, c text);
INSERT INTO altered.things SELECT n, n, -n, 'thing ' || n FROM generate_series(1, 2000) AS n;
GRANT USAGE ON SCHEMA altered TO {LOGIN};
GRANT SELECT ON altered.things TO {LOGIN};
ANALYZE altered.things;
"""
THINGS: Final = '[things]\nrelation = "altered.things"\nkey = ["id"]\nshared = true\n'
NOW: Final = """
    SELECT textsend(row_to_json(t)::text) FROM (SELECT id, a, b, c FROM altered.things) AS t
    ORDER BY id
"""
KEPT: Final = (
    "ALTER TABLE altered.things RENAME a TO x; ALTER TABLE altered.things RENAME b TO a;"
    " ALTER TABLE altered.things RENAME x TO b",
    "ALTER TABLE altered.things ALTER a TYPE bigint",
    "ALTER TABLE altered.things ALTER a TYPE text",
    "ALTER TABLE altered.things ALTER b TYPE numeric USING b + 0.5",
    "ALTER TABLE altered.things ALTER c TYPE bytea USING c::bytea",
    "ALTER TABLE altered.things ALTER id TYPE text",
)
GONE: Final = (
    "ALTER TABLE altered.things DROP c",
    "ALTER TABLE altered.things RENAME id TO ident",
    "DROP TABLE altered.things",
)


@pytest.mark.parametrize("change", [*KEPT, *GONE])
@pytest.mark.parametrize("source", NATIVE)
async def test_while_a_table_is_altered_values_keep_their_names_or_there_is_an_error(
    new_database: NewDatabase, tmp_path: Path, source: SourceName, change: str
) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(THINGS)
    async with new_database() as url:
        owner = await asyncpg.connect(url)
        await owner.execute(ALTERED)
        async with sited(as_login(url), file) as site:
            query = site.query("things", source)
            before = await site.read(query)  # so that what can be remembered is
            assert (len(before.records), before.source) == (2_000, source)
            await owner.execute(change)
            if change in GONE:
                with pytest.raises(DatasetUnavailable):
                    await site.read(query)
            else:
                now = [row[0] for row in await owner.fetch(NOW)]
                assert (await site.read(query)).records == now
        await owner.close()


async def source_of(service: Running, dataset: str, query: str = "") -> tuple[str, bytes]:
    """The source in a feed's head, and the body."""
    headers = {**bearer(operator=True), "Cache-Control": "no-cache"}
    url = f"{service.url}/v1/feeds/{dataset}?format=ndjson&{query}"
    async with aiohttp.request("GET", url, headers=headers) as answer:
        assert answer.status == 200
        (source,) = re.findall(r"source;desc=(\w+)", answer.headers["Server-Timing"])
        return source, await answer.read()


@pytest.mark.parametrize("source", SOURCES)
async def test_a_streams_head_names_its_source(
    world_url: str, tmp_path: Path, source: SourceName
) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(by_source(servers.DATASETS.read_text(), source))
    with serving(world_url, datasets=file) as service:
        assert (await source_of(service, "clients"))[0] == source
        assert (await source_of(service, "clients", "limit=20"))[0] == "projection"
        assert not [line for line in service.log if "encoder" in line]


async def test_without_the_encoder_a_start_says_so_and_the_bytes_are_the_same(
    service: Running, world_url: str, tmp_path: Path
) -> None:
    with serving(world_url, settings=without_encoder(tmp_path), arguments=["--workers=2"]) as slow:
        source, body = await source_of(slow, "clients")
        assert (source, body) == ("projection", (await source_of(service, "clients"))[1])
        assert len([line for line in slow.log if "there is no native encoder" in line]) == 1


def test_check_reports_a_forced_source_that_is_unavailable_or_sorts(
    world_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "datasets.toml"
    declared = servers.DATASETS.read_text().replace(
        "[clients.orders]", '[clients.orders]\nvenue = ["status"]'
    )
    file.write_text(by_source(declared, "copy"))
    more = {"FEEDSVC_DATASETS__FILE": str(file), **without_encoder(tmp_path)}
    done = feedsvc("check", env=environment(world_url, **more))
    reported = done.stdout + done.stderr
    assert "clients.source: 'copy' needs the native encoder" in reported
    assert "clients.source: 'copy' sorts for each page of the order 'venue'" in reported
