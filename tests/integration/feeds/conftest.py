"""Fixtures of tests of live feeds at the level of the tail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.live_tail import prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase


@pytest.fixture(scope="module")
async def tail_database(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    """The URL of a logged shop, and its datasets file, for `tail_world`."""
    file = tmp_path_factory.mktemp("tail") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        yield url, file
