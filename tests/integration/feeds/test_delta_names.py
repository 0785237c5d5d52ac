"""Deltas of tables and columns whose names are those of the statements' own parts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.datasets.catalog import resolve
from feedsvc.feeds import transaction
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.delta_wait import awaited_delta
from feedsvc.feeds.query import FeedQuery
from tests.support.drawn import share
from tests.support.followers import deltas_of
from tests.support.log_world import LogWorld, install
from tests.support.servers import LOG_TEMPLATE, LOGIN, as_login

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from feedsvc.datasets.dataset import Dataset
    from feedsvc.feeds.delta_wait import Deltas
    from tests.integration.conftest import NewDatabase

WHO = Principal("a", "member", "1", 0.0)


@pytest.fixture(scope="module")
async def url(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(LOG_TEMPLATE) as made:
        yield made


@pytest.fixture(scope="module")
async def deltas(url: str) -> AsyncIterator[Deltas]:
    async with deltas_of(as_login(url)) as made:
        yield made


async def cursor_of(dataset: Dataset, deltas: Deltas) -> str:
    query = FeedQuery.parse({"format": "ndjson", "frames": "1"}, dataset)
    async with transaction.reading(deltas.pool, WHO, Stages()) as (connection, moment):
        cursor = await deltas.cursors.of(connection, moment, query, WHO)
    assert cursor is not None
    return cursor


async def changes(since: str, dataset: Dataset, deltas: Deltas) -> list[list[Any]]:
    query = DeltaQuery.parse({"since": since, "digest": "1"}, dataset)
    async with awaited_delta(query, WHO, deltas, Stages()) as (delta, changed, _):
        assert changed is not None
        assert await delta.take() is None
        assert delta.digest is not None
        return [[json.loads(body) for body in half] for half in (changed.upserts, changed.deletes)]


@pytest.mark.parametrize("seed", range(share(40)))
async def test_odd_names(url: str, deltas: Deltas, seed: int) -> None:
    world = LogWorld.drawn(seed, f"things-{seed}", seed)
    owner, login = await asyncpg.connect(url), await asyncpg.connect(as_login(url))
    try:
        await owner.execute(world.ddl())
        schema = world.table.rpartition('".')[0] + '"'
        await owner.execute(f"GRANT USAGE ON SCHEMA {schema} TO {LOGIN}")
        await owner.execute(f"GRANT SELECT ON {world.table} TO {LOGIN}")
        await install(owner, world.declared)
        (dataset,) = (await resolve(login, world.declared))[0].values()
        number, text, shown = dataset.columns
        insert = f"INSERT INTO {world.table} VALUES"
        await owner.execute(f"{insert} (1, 'x', 'a', 1, '[1]'), (2, 'y,%', 'a', 1, '[2]')")
        since = await cursor_of(dataset, deltas)
        await owner.execute(
            f"UPDATE {world.table} SET {world.shown} = '[3]' WHERE {world.number} = 1;"
            f"UPDATE {world.table} SET {world.client} = 2 WHERE {world.number} = 2;"
            f"{insert} (3, 'z', 'a', 2, '[4]')"
        )
        assert await changes(since, dataset, deltas) == [
            [{number: 1, text: "x", shown: [3]}], [{number: 2, text: "y,%"}],
        ]  # fmt: skip
    finally:
        await owner.close()
        await login.close()
