"""Connections before their first answer: late, endless, too many, forged."""

import asyncio
import importlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.support.raw import Wire, request, wire
from tests.support.service import Running, bearer, serving

psutil = importlib.import_module("psutil")  # it has no type stubs

HEADER_TIMEOUT = BODY_TIMEOUT = 1.0
DEADLINE = 60  # seconds that a loaded machine has for whatever is waited for
ROUNDS = 20  # of what a loaded machine may be too late for, and does once at least
PER_ADDRESS = 40
OFFICE = "127.0.0.77"
PROXY = "127.0.1.1"
TOKEN = f"Authorization: {bearer()['Authorization']}"
PAGE = "/v1/feeds/clients?limit=1"
STREAM = "/v1/feeds/clients?format=ndjson"


@pytest.fixture(scope="module")
def hurried(world_url: str) -> Iterator[Running]:
    """A service that waits for nobody for long."""
    settings = {
        "FEEDSVC_SERVER__HEADER_TIMEOUT": str(HEADER_TIMEOUT),
        "FEEDSVC_SERVER__BODY_TIMEOUT": str(BODY_TIMEOUT),
        "FEEDSVC_SERVER__KEEPALIVE_TIMEOUT": "20",
        "FEEDSVC_SERVER__SEND_BUFFER": "16384",
        "FEEDSVC_SERVER__TRUSTED_PROXIES": "127.0.1.0/24",
    }
    with serving(world_url, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def crowded(world_url: str) -> Iterator[Running]:
    """A service that lets few in from one address, and waits for each of them for long."""
    settings = {
        "FEEDSVC_SERVER__HEADER_TIMEOUT": "600",
        "FEEDSVC_SERVER__CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
        "FEEDSVC_SERVER__TRUSTED_PROXIES": f"{PROXY}/32",
    }
    with serving(world_url, settings=settings) as running:
        yield running


async def get_a_page(service: Running) -> None:
    async with (
        aiohttp.ClientSession(service.url) as session,
        session.get(PAGE, headers=bearer()) as answer,
    ):
        assert answer.status == 200
        await answer.read()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.05)


async def test_a_client_that_sends_nothing_is_dropped(hurried: Running) -> None:
    start = time.monotonic()
    async with wire(hurried) as idle:
        assert await idle.is_closed_within(DEADLINE)
        assert time.monotonic() - start > HEADER_TIMEOUT * 0.9


async def test_a_head_that_trickles_is_dropped(hurried: Running) -> None:
    start = time.monotonic()
    async with wire(hurried) as slow:
        # Longer by far than the deadline, and each byte in time.
        await asyncio.wait_for(slow.trickle(request(PAGE, TOKEN) * 3, 0.1), DEADLINE)
        assert time.monotonic() - start > HEADER_TIMEOUT * 0.9


async def test_no_request_waits_for_a_head_that_trickles(crowded: Running) -> None:
    async with wire(crowded) as slow:
        trickling = asyncio.create_task(slow.trickle(request(PAGE, TOKEN) * 50, 0.1))
        await get_a_page(crowded)
        assert not trickling.done()
        trickling.cancel()


async def test_a_head_in_pieces_that_comes_in_time_is_answered(crowded: Running) -> None:
    async with wire(crowded) as slow:
        head = request(PAGE, TOKEN)
        for piece in (head[:10], head[10:60], head[60:]):
            await asyncio.sleep(0.1)
            await slow.send(piece)
        assert (await slow.answer()).status == 200


async def test_a_later_head_that_trickles_is_dropped_too(hurried: Running) -> None:
    async with wire(hurried) as slow:
        await slow.send(request(PAGE, TOKEN))
        assert (await slow.answer()).status == 200
        start = time.monotonic()
        await asyncio.wait_for(slow.trickle(request(PAGE, TOKEN), 0.1), DEADLINE)
        assert time.monotonic() - start > HEADER_TIMEOUT * 0.9
        assert await slow.is_closed_within(DEADLINE)


async def test_an_idle_connection_that_was_answered_is_kept(hurried: Running) -> None:
    async with wire(hurried) as kept:
        for _ in range(2):
            await kept.send(request(PAGE, TOKEN))
            assert (await kept.answer()).status == 200
            assert not await kept.is_closed_within(HEADER_TIMEOUT * 1.5)


async def test_half_a_head_behind_a_stream_does_not_break_the_stream(hurried: Running) -> None:
    async with (
        aiohttp.ClientSession(hurried.url) as session,
        session.get(STREAM, headers=bearer()) as answer,
    ):
        body = await answer.read()
    assert len(body) > 400_000  # more than the buffers between the two hold
    async with wire(hurried, receive_buffer=4_096) as client:
        await client.send(request(STREAM, TOKEN))
        await client.send(b"GET /l")
        await asyncio.sleep(HEADER_TIMEOUT * 1.5)
        assert (await client.answer()).status == 200
        assert await client.rows_of_a_stream() == body.count(b"\n")
        assert await client.is_closed_within(DEADLINE)


async def test_a_thousand_idle_sockets_are_gone_after_the_timeout(hurried: Running) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2_200:
        pytest.skip("too few file descriptors")
    before = psutil.Process(hurried.pid).num_fds()
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(wire(hurried)) for _ in range(1_000)]
        await get_a_page(hurried)
        closed = await asyncio.gather(*(w.is_closed_within(DEADLINE) for w in idle))
        assert all(closed)
        await until(lambda: psutil.Process(hurried.pid).num_fds() <= before + 10)
    dropped = [line for line in hurried.log if "server.header_timeout" in line]
    assert len(dropped) < 10


@pytest.mark.parametrize("length", ["Content-Length: 30", "Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_is_a_problem(hurried: Running, length: str) -> None:
    async with wire(hurried) as slow:
        start = time.monotonic()
        await slow.send(request("/v1/tickets", TOKEN, length, method="POST"))
        answer = await asyncio.wait_for(slow.answer(), DEADLINE)
        assert time.monotonic() - start > BODY_TIMEOUT * 0.9
        assert (answer.status, answer.json()["type"]) == (408, "/problems/request-timeout")
        assert answer.headers["Connection"] == "close"
        assert await slow.is_closed_within(DEADLINE)


async def test_a_body_that_trickles_is_late_too(hurried: Running) -> None:
    async with wire(hurried) as slow:
        await slow.send(request("/v1/tickets", TOKEN, "Content-Length: 900", method="POST"))
        trickling = asyncio.create_task(slow.answer())
        async with asyncio.timeout(DEADLINE):
            while not trickling.done():
                await slow.send(b" ")
                await asyncio.sleep(0.1)
        assert trickling.result().status == 408


async def test_a_body_in_time_is_read_and_the_connection_kept(hurried: Running) -> None:
    for _ in range(ROUNDS):
        async with wire(hurried) as client:
            if [await ticket_in_pieces(client), await ticket_in_pieces(client)] == [201, 201]:
                assert not await client.is_closed_within(BODY_TIMEOUT * 1.5)
                return
    pytest.fail("a body in pieces was late each time")


async def ticket_in_pieces(client: Wire) -> int:
    """The status of a ticket whose body comes some time behind its head; 408 once it was late."""
    body = json.dumps({"path": "/v1/feeds/clients"}).encode()
    length = f"Content-Length: {len(body)}"
    try:
        await client.send(request("/v1/tickets", TOKEN, length, method="POST"))
        await asyncio.sleep(BODY_TIMEOUT / 4)
        await client.send(body)
        answer = await client.answer()
    except (ConnectionError, asyncio.IncompleteReadError):
        return 408
    assert answer.status in {201, 408}
    return answer.status


async def test_the_body_of_a_refused_request_is_not_waited_for(hurried: Running) -> None:
    errors = sum("Unhandled" in line or "Traceback" in line for line in hurried.log)
    async with wire(hurried) as slow:
        await slow.send(request("/v1/tickets", "Content-Length: 30", method="POST"))
        assert (await slow.answer()).status == 401
        assert await slow.is_closed_within(DEADLINE)
    assert sum("Unhandled" in line or "Traceback" in line for line in hurried.log) == errors


async def test_a_body_that_is_no_http_is_a_bad_request(hurried: Running) -> None:
    async with wire(hurried) as client:
        chunked = request("/v1/tickets", TOKEN, "Transfer-Encoding: chunked", method="POST")
        await client.send(chunked + b"zz\r\n\r\n")
        assert (await client.answer()).status == 400
    assert not [line for line in hurried.log if "unforeseen" in line or "Unhandled" in line]


async def test_what_may_wait_in_one_connection_is_answered_in_turn(service: Running) -> None:
    async with wire(service) as client:
        await client.send(request("/live") * 60)
        answers = [await client.answer() for _ in range(60)]
        assert {answer.status for answer in answers} == {200}


@pytest.mark.parametrize("target", ["/live", STREAM])
async def test_a_flood_is_dropped_at_a_bounded_price(hurried: Running, target: str) -> None:
    process = psutil.Process(hurried.pid)
    await get_a_page(hurried)
    before = process.memory_info().rss
    async with AsyncExitStack() as stack:
        for _ in range(20):
            flood = await stack.enter_async_context(wire(hurried))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(flood.flood(request(target, TOKEN) * 1_000, 20), DEADLINE)
        await get_a_page(hurried)
        assert process.memory_info().rss - before < 32 * 1_048_576


async def test_an_address_has_so_many_connections(crowded: Running) -> None:
    async with AsyncExitStack() as stack:
        office = [
            await stack.enter_async_context(wire(crowded, OFFICE)) for _ in range(PER_ADDRESS)
        ]
        for client in office:
            await client.send(request("/live"))
        assert {(await client.answer()).status for client in office} == {200}
        for _ in range(20):
            async with wire(crowded, OFFICE) as another:
                await another.send(request("/live"))
                answer = await another.answer()
                assert (answer.status, answer.json()["type"]) == (503, "/problems/unavailable")
                assert answer.headers["Retry-After"]
                assert answer.headers["Connection"] == "close"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
                assert await another.is_closed_within(DEADLINE)
        await get_a_page(crowded)
        await office[0].send(request("/live"))
        assert (await office[0].answer()).status == 200
    said = "server.connections_per_address"
    await until(lambda: any(said in line for line in crowded.log))
    refused = [line for line in crowded.log if said in line]
    assert len(refused) < 10
    assert not [line for line in crowded.log if OFFICE in line]


async def test_a_client_that_leaves_makes_room(crowded: Running) -> None:
    address = "127.0.0.78"

    def has_none() -> bool:
        connections = psutil.Process(crowded.pid).net_connections("tcp")
        return not any(c.raddr and c.raddr.ip == address for c in connections)

    for _ in range(3):
        async with AsyncExitStack() as stack:
            for _ in range(PER_ADDRESS):
                client = await stack.enter_async_context(wire(crowded, address))
                await client.send(request("/live"))
                assert (await client.answer()).status == 200
        await until(has_none)


async def test_a_trusted_proxy_has_as_many_connections_as_it_likes(crowded: Running) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(2 * PER_ADDRESS):
            client = await stack.enter_async_context(wire(crowded, PROXY))
            await client.send(request("/live"))
            assert (await client.answer()).status == 200


async def test_an_address_is_never_logged(hurried: Running) -> None:
    async with wire(hurried, "127.0.1.9") as proxy:
        await proxy.send(request("/live", "X-Forwarded-For: 203.0.113.99"))
        assert (await proxy.answer()).status == 200
        await proxy.send(b"nonsense\r\n\r\n")
        assert (await proxy.answer()).status == 400
    assert not [line for line in hurried.log if "203.0.113" in line or "127.0.1.9" in line]


@pytest.mark.parametrize("size", [20_000, 1_048_576])
@pytest.mark.parametrize("name", ["Authorization", "authorization"])
async def test_a_token_of_any_length_is_refused_as_a_token(
    service: Running, name: str, size: int
) -> None:
    async with wire(service) as client, wire(service) as usual:
        await client.send(request(PAGE, f"{name}: Bearer {'x' * size}"))
        await usual.send(request(PAGE, f"{name}: Bearer x"))
        answer, wanted = await client.answer(), await usual.answer()
        assert (answer.status, wanted.status) == (401, 401)
        assert answer.headers["WWW-Authenticate"] == wanted.headers["WWW-Authenticate"]
        own = {"instance", "request_id"}
        assert {k: v for k, v in answer.json().items() if k not in own} == {
            k: v for k, v in wanted.json().items() if k not in own
        }


async def test_a_long_token_is_known_by_its_name_in_whatever_pieces_it_comes(
    service: Running,
) -> None:
    async with wire(service) as client:
        head = request("/live", f"X-Long: {'y' * 9_000}", f"Authorization: Bearer {'x' * 40_000}")
        for start in range(0, len(head), 3_001):
            await client.send(head[start : start + 3_001])
            await asyncio.sleep(0.005)
        assert (await client.answer()).status == 401


@pytest.mark.parametrize("value", ["Bearer ", "Authorization: Bearer "])
async def test_another_header_is_no_token_whatever_it_says(service: Running, value: str) -> None:
    async with wire(service) as client:
        await client.send(request(PAGE, TOKEN, f"X-Long: {value}{'x' * 1_048_576}"))
        assert (await client.answer()).status == 431


@pytest.mark.parametrize(
    ("path", "option", "sent", "status"),
    [
        (PAGE, "-H", f"Authorization: Bearer {'x' * 1_000_000}\n", "401"),
        (PAGE, "-H", f"X-Long: {'x' * 1_000_000}\n", "431"),
        ("/v1/tickets", "--data-binary", "x" * 10_000_000, "401"),
    ],
    ids=["token", "header", "body"],
)
async def test_curl_reads_why_it_was_refused(
    service: Running, path: str, option: str, sent: str, status: str
) -> None:
    """From its input, for an argument can't be that long."""
    output = ("-o", os.devnull, "-w", "%{http_code}")
    for _ in range(5):
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sS", *output, option, "@-", service.url + path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await curl.communicate(sent.encode())
        assert (out.decode(), errors.decode()) == (status, "")
