"""Every id of a live answer is a state: while many write, and whatever is killed meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from tests.support.drawn import DRAWN, share
from tests.support.followers import READERS, prepare
from tests.support.live_watchers import Watcher, clients, following, mistakes, write
from tests.support.servers import as_login
from tests.support.service import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase
    from tests.support.service import Running

STEPS: Final = share(480)
SMALL: Final = {
    # Several events to a snapshot, and a state of everything soon.
    "FEEDSVC_STREAMS__CHUNK_BYTES": "16384",
    "FEEDSVC_STREAMS__PING_INTERVAL": "0.3",
    "FEEDSVC_SERVER__WORKERS": "2",
}
MANY: Final = (
    "INSERT INTO shop.orders (number, tenant, level, client, status, name)"
    " SELECT n, CASE WHEN n % 2 = 0 THEN 'a' ELSE 'ä ö' END, n % 7, n % 3, 'open', repeat('x', 700)"
    " FROM generate_series(1000, 1150) AS n"
)


@pytest.fixture(scope="module")
async def world(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Running]]:
    file: Path = tmp_path_factory.mktemp("live") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        with serving(as_login(url), datasets=file, settings=SMALL) as service:
            yield url, service


@DRAWN
@pytest.mark.parametrize("seed", range(share(4)))
async def test_each_id_is_a_state_and_a_client_goes_on_from_any(
    world: tuple[str, Running], seed: int
) -> None:
    url, service = world
    owner = await asyncpg.connect(url)
    try:
        await owner.execute("DELETE FROM shop.orders")
        await owner.execute(MANY)
        async with clients(service.url) as http:
            # Half of them are cut every few events, the others seldom.
            watchers = [
                Watcher(reader, http, seed * 100 + n, calm)
                for n, reader in enumerate(READERS)
                for calm in (0.6, 0.97)
            ]
            async with following(owner, watchers):
                await write(url, seed, STEPS)
        assert await mistakes(owner, watchers) == []
        assert sum(len(watcher.states) for watcher in watchers) > STEPS / 6
        assert all(watcher.copy.connections > STEPS // 48 for watcher in watchers[::2])
    finally:
        await owner.close()
