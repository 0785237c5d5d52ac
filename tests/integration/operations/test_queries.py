"""`/api/performance/queries`: statements of all workers, planned, without a value in them."""

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import aiohttp
import orjson
import pytest
from yarl import URL

from tests.support.fork_server import MORE_CODE
from tests.support.servers import TEMPLATE, as_login, connected, copied_database
from tests.support.service import NO_REDIS, Running, bearer, serving

PATH: Final = "/api/performance/queries"
ANN: Final = bearer()
SECRET: Final = "xyzzy-secret-of-a-request"
FEED: Final = "/v1/feeds/clients"
OF_A_ROW: Final = "xyzzy-of-a-row@example.test"
CHANGE: Final = """
    UPDATE wedding.clients SET email = $1
    WHERE id = (SELECT id FROM wedding.clients WHERE tenant_id = 'rosewood' LIMIT 1)
"""
LIVE: Final = "clients live order=id filter=email.eq"
REQUESTS: Final = (
    f"{FEED}?email={SECRET}&limit=5",
    f"{FEED}?limit=5&order=oldest",
    f"{FEED}?format=ndjson&frames=1",
)
NAMES: Final = {
    "clients page order=id filter=email.eq",
    "clients page order=created_at,id",
    "clients export order=id",
    "clients count order=id",
    "clients delta order=id",
    "clients digest order=id",
    "clients live order=id",
    "clients row",
}


@pytest.fixture(scope="module")
async def world(admin_url: str) -> AsyncIterator[str]:
    async with copied_database(admin_url, TEMPLATE) as url:
        yield url


@pytest.fixture(scope="module")
def asked(world: str) -> Iterator[Running]:
    settings = {
        **NO_REDIS,
        "FEEDSVC_METRICS__SHED_ABOVE": "0",  # or a busy machine leaves single calls out
        MORE_CODE: "tests.support.clocked_repeats",
    }
    with serving(as_login(world), settings=settings) as running:
        yield running


async def report(
    client: aiohttp.ClientSession, is_whole: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The report, once it is whole: plans have five seconds, which a busy machine may not have."""
    async with asyncio.timeout(60):
        while True:
            async with client.get(PATH, headers=bearer(role="admin")) as answer:
                text = await answer.text()
                assert answer.status == 200, text
            found: dict[str, Any] = orjson.loads(text)
            if is_whole(found):
                return found
            await asyncio.sleep(0.2)


def planned(found: dict[str, Any], part: str = "statements") -> set[str]:
    """Names of statements that have a plan."""
    return {each["name"] for each in found[part] if each["plan"] is not None}


async def line_with(text: str, answer: aiohttp.ClientResponse) -> None:
    """Read lines up to one with this text."""
    async with asyncio.timeout(60):
        while text not in (await answer.content.readline()).decode():
            assert not answer.content.at_eof(), text


async def follow_a_change(client: aiohttp.ClientSession, world: str) -> None:
    """Let the tail of the log read what changes for one who follows a filter."""
    path = f"{FEED}?live=1&format=sse&email={SECRET}"
    async with client.get(path, headers=bearer()) as answer, connected(world) as owner:
        await line_with("event: sync", answer)
        await owner.execute(CHANGE, SECRET)
        await line_with("event: change", answer)


async def test_only_operators_ask_for_a_known_range(asked: Running) -> None:
    async with aiohttp.ClientSession(asked.url) as client:
        async with client.get(PATH, headers=bearer()) as answer:
            assert answer.status == 403
        async with client.get(f"{PATH}?range=1y", headers=bearer(role="admin")) as answer:
            assert answer.status == 400


async def test_statements_are_listed_with_plans_and_without_values(
    asked: Running, world: str
) -> None:
    async with aiohttp.ClientSession(asked.url) as client:
        for path in REQUESTS:
            async with client.get(path, headers=bearer()) as answer:
                text = await answer.text()
                assert answer.status == 200, text
        cursor = orjson.loads(text.splitlines()[-1])["end"]["cursor"]
        key = re.findall(r'"id":"?([\w-]+)', text)[0]
        async with client.get(f"{FEED}/{key}", headers=bearer()) as answer:
            assert answer.status == 200, await answer.text()
        async with connected(world) as owner:
            await owner.execute(CHANGE, OF_A_ROW)
        async with client.get(f"{FEED}?since={cursor}&digest=1", headers=bearer()) as answer:
            assert OF_A_ROW in await answer.text()
        live = f"{FEED}?since={cursor}&live=1&format=sse"
        async with client.get(live, headers=bearer()) as answer:
            await line_with(OF_A_ROW, answer)
        found = await report(client, lambda found: planned(found) >= NAMES)
    assert {each["kind"] for each in found["proposals"]} <= {"drop", "index"}
    assert not any("can't" in each or "not looked for" in each for each in found["lacking"])
    text = orjson.dumps(found).decode()
    assert SECRET not in text
    assert OF_A_ROW not in text
    for each in found["statements"]:
        assert each["calls"] > 0
        assert 0 <= each["score"] <= 100
        assert each["statement"].startswith(("SELECT", "WITH"))


async def test_it_comes_as_csv_and_as_events_too(asked: Running) -> None:
    async with aiohttp.ClientSession(asked.url, headers=bearer(role="admin")) as client:
        async with client.get(f"{FEED}?limit=7", headers=ANN) as answer:
            assert answer.status == 200
        await report(client, lambda found: bool(found["statements"]))
        async with client.get(PATH, headers={"Accept": "text/csv"}) as answer:
            assert "feedsvc-queries-1h.csv" in answer.headers["Content-Disposition"]
            row, *_ = csv.DictReader(io.StringIO(await answer.text(), newline=""))
        assert int(row["calls"]) > 0
        assert {"mean_ms", "p95_ms", "score", "findings", "proposals"} <= row.keys()
        async with client.get(PATH, params={"format": "sse"}) as answer:
            event, data = await answer.content.readline(), await answer.content.readline()
        assert event.rstrip() == b"event: queries"
        assert orjson.loads(data.removeprefix(b"data: "))["statements"]
        async with client.head(PATH, params={"format": "csv"}) as answer:
            assert answer.content_type == "text/csv"
        async with client.get(PATH, headers={"Accept": "image/png"}) as answer:
            assert answer.status == 406


async def test_plans_of_slow_statements_are_kept(world: str) -> None:
    """Of each worker, and shown by any of them, without a value; slow is what its pool calls so."""
    settings = NO_REDIS | {
        "FEEDSVC_QUERIES__SLOW": "3600",
        "FEEDSVC_POOLS__READ__SLOW": "0.000001",
        "FEEDSVC_SERVER__WORKERS": "2",
        MORE_CODE: "tests.support.plans_at_once",
    }
    name = "clients page order=id filter=email.eq"
    with serving(as_login(world), settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as client:
            await follow_a_change(client, world)
            for _ in range(3):
                path = f"{FEED}?email={SECRET}&limit=5&columns=id"
                await read(client, path, bearer() | {"Cache-Control": "no-cache"})
            found = await report(client, lambda found: planned(found, "slow") >= {name, LIVE})
            async with client.get("/metrics", headers=bearer(role="admin")) as answer:
                metrics = await answer.text()
            assert 'feedsvc_queries_slow_plans_total{outcome="kept"}' in metrics
            counted = re.findall(r'feedsvc_queries_slow_total{dataset="clients"} (\d+)', metrics)
            assert sum(map(int, counted)) > 0
    assert any('"request_id":"live"' in line for line in running.log if "slow query" in line)
    assert SECRET not in orjson.dumps(found).decode()
    (slow,) = (each for each in found["slow"] if each["name"] == name)
    assert slow["count"] >= 1
    assert slow["longest_ms"] > 0
    assert slow["plan"]["cost"] == slow["cost"]


def as_subject(name: str) -> dict[str, str]:
    return bearer(subject=name)


async def test_repeated_requests_are_listed_with_the_one_in_their_place(asked: Running) -> None:
    async with aiohttp.ClientSession(asked.url) as client:
        async with client.get(f"{FEED}?limit=100&columns=id&format=ndjson", headers=ANN) as answer:
            keys = [json.loads(line)["id"] for line in (await answer.text()).splitlines()]
        assert len(keys) == 100
        for key in keys:
            await read(client, f"{FEED}/{key}", as_subject("rows"))
        for number in range(40):
            path = f"{FEED}?email={SECRET}-{number}&limit=5&columns=id"
            await read(client, path, as_subject("pages"))
        tokens = await loop_over_after(client, as_subject("phone"))
        await polling(client, as_subject("innocent"), str(keys[0]))
        found, text = await repeated(client, 165)
        for path in ("/metrics", "/api/performance/metrics", "/api/performance/cache"):
            async with client.get(path, headers=bearer(role="admin")) as answer:
                assert answer.status == 200
                text += await answer.text()
    assert [(row["pattern"], row["column"], row["count"], row["runs"]) for row in found] == [
        ("page-by-filter", "email", 40, 1),
        ("row-by-key", None, 100, 1),
        ("small-pages", None, 25, 1),
    ]
    assert all(row["lost_ms"] > 0 and row["dataset"] == "clients" for row in found)
    proposed = [row["proposals"][0]["statement"] for row in found]
    assert proposed == [
        f"GET {FEED}",
        f"GET {FEED}?id.in={{id}},{{id}},…",
        f"GET {FEED}?limit=1000",
    ]
    assert found[1]["route"] == "/v1/feeds/{dataset}/{key}"
    assert SECRET not in text
    assert all(any(map(str.isalpha, token)) for token in tokens), "no number, which may be anywhere"
    assert not [token for token in tokens if token in text]
    lines = [line for line in asked.log if "repeated requests" in line]
    assert len(lines) == 3, "one of each pattern"
    assert not [word for word in (SECRET, *tokens) if word in "".join(asked.log)]
    labels = '{dataset="clients",pattern="row-by-key"}'
    assert f"feedsvc_repeated_requests_total{labels} 100" in text
    seconds = float(
        text.partition(f"feedsvc_repeated_request_seconds_total{labels} ")[2].split()[0]
    )
    assert seconds * 1e3 == pytest.approx(found[1]["lost_ms"], abs=0.01)


async def read(client: aiohttp.ClientSession, path: str, headers: dict[str, str]) -> str:
    async with client.get(path, headers=headers) as answer:
        assert answer.status in {200, 304}, await answer.text()
        await answer.read()
        return answer.headers.get("ETag", "")


async def loop_over_after(client: aiohttp.ClientSession, headers: dict[str, str]) -> list[str]:
    """A page of one row behind each, 25 behind the first, by name; returns their `after`."""
    path, tokens = URL(f"{FEED}?limit=1&columns=id&order=name"), []
    for _ in range(26):
        async with client.get(path, headers=headers) as answer:
            await answer.read()
            path = URL(answer.links["next"]["url"]).relative()
            tokens.append(path.query["after"])
    return tokens


async def polling(client: aiohttp.ClientSession, headers: dict[str, str], key: str) -> None:
    """One page by its tag and one row, again and again."""
    tag = ""
    for _ in range(25):
        told = headers | ({"If-None-Match": tag} if tag else {})
        tag = await read(client, f"{FEED}?limit=100&columns=id", told)
        await read(client, f"{FEED}/{key}", headers)


async def repeated(
    client: aiohttp.ClientSession, requests: int
) -> tuple[list[dict[str, Any]], str]:
    """The report's repetitions by pattern, once it has so many requests, and its text."""
    async with asyncio.timeout(60):
        while True:
            async with client.get(PATH, headers=bearer(role="admin")) as answer:
                text = await answer.text()
            found: list[dict[str, Any]] = json.loads(text)["repeated"]
            if sum(row["count"] for row in found) >= requests:
                return sorted(found, key=lambda row: str(row["pattern"])), text
            await asyncio.sleep(0.2)
