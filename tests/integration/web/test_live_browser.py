"""`examples/live.html` in Chromium: the table follows, also behind the service's restart."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from tests.integration.web.test_eventsource import chromium
from tests.support.followers import prepare
from tests.support.front import Front, fronted
from tests.support.servers import as_login
from tests.support.service import REPOSITORY, serving, token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

DEADLINE: Final = 120.0
EXAMPLE: Final = REPOSITORY / "examples" / "live.html"
MOST_LINES: Final = 60
FOLLOW: Final = """<script>
for (const [name, value] of Object.entries(GIVEN)) form.elements[name].value = value;
new MutationObserver(() => fetch("/report", { method: "POST", body: JSON.stringify(
  [...table.rows].map(line => [...line.cells].map(cell => cell.textContent))) })
).observe(table, { childList: true });
form.requestSubmit();
</script>"""
INSERT: Final = (
    "INSERT INTO shop.orders (number, tenant, level, status, name) VALUES ($1, 'a', 1, 'open', $2)"
    " ON CONFLICT (number) DO UPDATE SET name = excluded.name"
)


def names(shown: Any) -> dict[str, str]:
    """The names that the table shows, by number."""
    head, *lines = shown or [[]]
    return {line[head.index("number")]: line[head.index("name")] for line in lines}


async def until(front: Front, holds: Callable[[dict[str, str]], bool]) -> None:
    """Wait until the table shows rows for which this holds."""
    async with asyncio.timeout(DEADLINE):
        while not holds(names(await front.reports.get())):
            pass


def test_the_example_is_short_enough_to_read() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= MOST_LINES


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium on PATH")
async def test_the_example_s_table_follows_and_comes_back(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    file = tmp_path / "datasets.toml"
    settings = {"FEEDSVC_CORS__ORIGINS": '["*"]', "FEEDSVC_STREAMS__DRAIN_TIMEOUT": "1"}
    async with new_database() as url:
        await prepare(url, file)
        owner = await asyncpg.connect(url)
        with serving(as_login(url), datasets=file, settings=settings) as service:
            given = {"service": service.url, "feed": "orders", "token": token("a")}
            page = EXAMPLE.read_text() + FOLLOW.replace("GIVEN", json.dumps(given))
            async with (
                fronted(service.url, page) as front,
                chromium(f"{front.url}/page", tmp_path / "profile"),
            ):
                await owner.execute(INSERT, 500, "<b>new</b>")
                await until(front, lambda shown: shown.get("500") == "<b>new</b>")
                await owner.execute(INSERT, 500, "changed")
                await until(front, lambda shown: shown.get("500") == "changed")
                service.process.send_signal(signal.SIGHUP)
                await owner.execute("DELETE FROM shop.orders WHERE number = 500")
                await until(front, lambda shown: "500" not in shown)
                await owner.execute(INSERT, 501, "behind a reload")
                await until(front, lambda shown: shown.get("501") == "behind a reload")
        await owner.close()
