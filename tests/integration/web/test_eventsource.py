"""EventSources with a ticket, cut in the middle: a browser's own, and that of npm."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from feedsvc.commands.demo.embedded import cache_folder
from tests.support.front import fronted
from tests.support.service import Running, bearer

FEED = "/v1/feeds/clients"
QUERY = "format=sse&columns=id"
NPM_VERSION = "4.0.0"
DEADLINE = 120

PAGE = """<!doctype html><meta charset="utf-8"><script>
const ids = [];
let errors = 0;
const feed = new EventSource(ADDRESS);
feed.addEventListener("rows", () => fetch("/read", { method: "POST" }), { once: true });
const report = what => fetch("/report", {
  method: "POST", body: JSON.stringify({ what, ids, errors, cookie: document.cookie }),
});
feed.addEventListener("rows", event => ids.push(...JSON.parse(event.data).map(row => row.id)));
feed.addEventListener("end", () => { feed.close(); report("end"); });
feed.onerror = () => { errors += 1; if (feed.readyState === 2) report("closed"); };
</script>"""

# npm's EventSource has no cookie jar; this is one of a cookie.
SCRIPT = """
import { EventSource } from "eventsource";
const [address] = process.argv.slice(2);
const ids = [];
let cookie = "", errors = 0;
const feed = new EventSource(address, {
  fetch: async (url, init) => {
    const headers = { ...init.headers, ...(cookie ? { Cookie: cookie } : {}) };
    const answer = await fetch(url, { ...init, headers });
    const given = answer.headers.getSetCookie();
    if (given.length) cookie = given.at(-1).split(";")[0];
    return answer;
  },
});
const read = new URL("/read", address);
feed.addEventListener("rows", () => fetch(read, { method: "POST" }), { once: true });
const report = what => { console.log(JSON.stringify({ what, ids, errors })); process.exit(0); };
feed.addEventListener("rows", event => ids.push(...JSON.parse(event.data).map(row => row.id)));
feed.addEventListener("end", () => { feed.close(); report("end"); });
feed.addEventListener("error", () => { errors += 1; if (feed.readyState === 2) report("closed"); });
"""


async def address(http: aiohttp.ClientSession) -> str:
    async with http.post("/v1/tickets", json={"path": FEED}, headers=bearer()) as answer:
        return f"{FEED}?{QUERY}&ticket={(await answer.json())['ticket']}"


async def whole(http: aiohttp.ClientSession) -> list[int]:
    async with http.get(f"{FEED}?columns=id", headers=bearer()) as answer:
        return [row["id"] for row in await answer.json()]


def assert_resumed(seen: Any, expected: list[int], feeds: list[dict[str, str]]) -> None:
    assert (seen["what"], seen["errors"]) == ("end", 1)
    assert seen["ids"] == expected, "a row was lost or came twice"
    first, second = feeds
    assert "Cookie" not in first
    assert second["Cookie"].startswith("feedsvc-")
    assert int(second["Last-Event-ID"]) in expected[:-1]


@asynccontextmanager
async def chromium(url: str, profile: Path) -> AsyncIterator[None]:
    """A browser that shows the page."""
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--remote-debugging-port=0",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "chromium", *flags, url,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)  # its own group: the browser and its children
        await process.wait()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium on PATH")
async def test_a_browsers_eventsource_resumes_by_itself(
    http: aiohttp.ClientSession, service: Running, tmp_path: Path
) -> None:
    target, expected = await address(http), await whole(http)
    async with fronted(service.url, PAGE.replace("ADDRESS", json.dumps(target))) as front:
        async with chromium(f"{front.url}/page", tmp_path), asyncio.timeout(DEADLINE):
            seen = await front.reports.get()
        assert seen["cookie"] == "", "no script reads it"
        assert_resumed(seen, expected, front.feeds)


async def test_npms_eventsource_resumes_with_the_cookie(
    http: aiohttp.ClientSession, service: Running
) -> None:
    folder = with_eventsource()
    target, expected = await address(http), await whole(http)
    async with fronted(service.url) as front:
        process = await asyncio.create_subprocess_exec(
            "node", "script.mjs", f"{front.url}{target}", cwd=folder, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE):
            out, _ = await process.communicate()
        assert_resumed(json.loads(out), expected, front.feeds)


def with_eventsource() -> Path:
    """A folder with npm's package; skips the test where it can't be had."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there are no node and npm on PATH")
    folder = cache_folder() / f"tests-eventsource-{NPM_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "eventsource").exists():
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--silent", "--prefix", "."]
        command = [npm, "install", *options, f"eventsource@{NPM_VERSION}"]
        try:
            subprocess.run(command, cwd=folder, check=True, timeout=DEADLINE)
        except (subprocess.SubprocessError, OSError):
            pytest.skip("npm can't install eventsource here")
    (folder / "script.mjs").write_text(SCRIPT)
    return folder
