"""A service with a table of cells, for the files about CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.cells import cells_served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(scope="module")
async def cells(
    world_admin_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        cells_served(world_admin_url, tmp_path_factory.mktemp("cells")) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        yield session
