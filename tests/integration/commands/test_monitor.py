"""`feedsvc monitor` on a running service: what it prints, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from typing import TYPE_CHECKING

import aiohttp
from rich.console import Console

from feedsvc.commands.monitor.history import RateHistory
from feedsvc.commands.monitor.screen import Screen
from feedsvc.commands.monitor.source import Glance, ServiceClient
from tests.support.forked import feedsvc
from tests.support.service import Running, bearer, token

if TYPE_CHECKING:
    import pytest


async def monitor(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("FEEDSVC_")}
    return await asyncio.to_thread(feedsvc, "monitor", *arguments, env={**environment, **variables})


async def test_it_prints_an_object_a_line_for_other_programs(service: Running) -> None:
    done = await monitor(
        "--json", "--count=2", "--interval=0.5",
        FEEDSVC_URL=service.url, FEEDSVC_TOKEN=token(role="admin"),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    first, second = map(json.loads, done.stdout.splitlines())
    assert second["at"] > first["at"]
    for glance in (first, second):
        assert glance["metrics"]["now"]["workers"] == 1
        assert {pool["name"] for pool in glance["pools"]["pools"]} >= {"read", "bulk"}
        assert glance["health"]["state"] in {"ok", "degraded"}
        assert glance["cache"]["memory"]["most_bytes"] > 0
        assert glance["alerts"]["alerts"]
        assert glance["faults"] == {}


async def test_a_caller_who_is_no_operator_is_refused(service: Running) -> None:
    for given, what in (
        (token(), "operators of the service alone"),
        ("nonsense", "valid bearer token"),
    ):
        done = await monitor("--json", "--url", service.url, FEEDSVC_TOKEN=given)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("feedsvc: 40")
        assert what in done.stderr


async def test_a_service_that_is_not_there_is_looked_for_again() -> None:
    done = await monitor(
        "--json", "--count=2", "--interval=0.5", "--url=127.0.0.1:1", FEEDSVC_TOKEN="x"
    )
    assert (done.returncode, done.stderr) == (1, ""), "a script hears that nothing answered"
    assert len(done.stdout.splitlines()) == 2
    for line in done.stdout.splitlines():
        assert "127.0.0.1:1" in json.loads(line)["faults"]["health"]


async def test_without_a_token_one_is_signed_by_the_settings_of_this_machine() -> None:
    done = await monitor("--count=1", "--url=http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("feedsvc: --token is needed")


async def test_the_report_of_a_service_fits_the_screen(
    service: Running, http: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    for limit in range(1, 30):
        async with http.get(f"/v1/feeds/clients?limit={limit}", headers=bearer()) as answer:
            assert answer.status == 200
    async with aiohttp.ClientSession(service.url) as session:
        source, history = ServiceClient(session, token(role="admin")), RateHistory()
        for _ in range(300):
            glance: Glance = await source.look()
            reported = glance.answers["metrics"]["now"]["endpoints"]
            if any(endpoint["dataset"] == "clients" for endpoint in reported):
                break
            await asyncio.sleep(0.2)
        history.add(glance)
    assert glance.faults == {}
    console = Console(width=80, height=24, color_system=None)
    console.print(Screen(service.url, 80, 24, plain=False).draw(glance, history))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert any(line.startswith("clients ") for line in lines)
