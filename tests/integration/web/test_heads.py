"""Heads of requests that are refused before anything is read for them, and what they cost."""

import asyncio
import importlib
import time
import zlib
from typing import NamedTuple

import pytest

from tests.support.raw import RawAnswer, Wire, request, wire
from tests.support.service import Running, bearer

psutil = importlib.import_module("psutil")  # it has no type stubs

TOKEN = f"Authorization: {bearer()['Authorization']}"
INFLATED = 150_000_000  # bytes of zeros, which are a thousandth of that as gzip


class Bomb(NamedTuple):
    """A small body that inflates to a large one, and the processor time that this takes."""

    packed: bytes
    seconds: float


@pytest.fixture(scope="module")
def bomb() -> Bomb:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1_000_000)
    pieces = [packer.compress(zeros) for _ in range(INFLATED // len(zeros))]
    packed = b"".join(pieces) + packer.flush()
    return Bomb(packed, seconds_to_inflate(packed))


def seconds_to_inflate(packed: bytes) -> float:
    """Seconds of processor time that it takes here."""
    began, inflating = time.process_time(), zlib.decompressobj(wbits=31)
    while packed:
        inflating.decompress(packed, 1_048_576)
        packed = inflating.unconsumed_tail
    return time.process_time() - began


def assert_refused(answer: RawAnswer, status: int, name: str) -> None:
    assert (answer.status, answer.json()["type"]) == (status, f"/problems/{name}")
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("target", ["/nope", "/live", "/v1/feeds", "/v1/tickets"])
async def test_a_compressed_body_is_not_inflated(service: Running, bomb: Bomb, target: str) -> None:
    process = psutil.Process(service.pid)
    before = sum(process.cpu_times()[:2])
    async with wire(service) as client:
        length = f"Content-Length: {len(bomb.packed)}"
        head = request(target, length, "Content-Encoding: gzip", method="POST")
        await client.send(head + bomb.packed)
        assert_refused(await client.answer(), 415, "unsupported-content-coding")
    async with wire(service) as another:
        await another.send(request("/live"))
        assert (await another.answer()).status == 200
    spent = sum(process.cpu_times()[:2]) - before
    assert spent < bomb.seconds / 2


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, zstd", "x-unknown"])
async def test_a_coding_of_a_body_is_refused_with_what_may_stand_there(
    service: Running, coding: str
) -> None:
    async with wire(service) as client:
        fields = (TOKEN, "Content-Length: 2", f"Content-Encoding: {coding}")
        await client.send(request("/v1/tickets", *fields, method="POST") + b"{}")
        answer = await client.answer()
        assert_refused(answer, 415, "unsupported-content-coding")
        assert answer.headers["Accept-Encoding"] == "identity"


async def test_a_body_as_it_is_may_say_so(service: Running) -> None:
    body = b'{"path": "/v1/feeds/clients"}'
    async with wire(service) as client:
        fields = (TOKEN, f"Content-Length: {len(body)}", "Content-Encoding: identity")
        await client.send(request("/v1/tickets", *fields, method="POST") + body)
        assert (await client.answer()).status == 201


async def test_a_refused_body_without_end_is_not_read_on(service: Running) -> None:
    """The connection ends behind the answer, as soon as its client pauses."""
    async with wire(service) as client:
        fields = (TOKEN, "Transfer-Encoding: chunked")
        await client.send(request("/v1/nope", *fields, method="POST") + b"5\r\nhello\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["Connection"]) == (404, "close")
        async with asyncio.timeout(30):
            assert await client.is_closed_within(30)


LONG_HEAD = tuple(f"X-Long-{number}: {'x' * 16_000}" for number in range(5))


async def test_a_head_is_bounded_as_a_whole(service: Running) -> None:
    async with wire(service) as client:
        await client.send(request("/live", *LONG_HEAD[:4]))
        assert (await client.answer()).status == 200
        await client.send(request("/live", *LONG_HEAD))
        assert_refused(await client.answer(), 431, "headers-too-large")


async def test_half_a_head_is_refused_as_soon_as_it_is_too_long(service: Running) -> None:
    half = request("/live", *LONG_HEAD).removesuffix(b"\r\n\r\n")
    async with wire(service) as client:
        for start in range(0, len(half), 8_000):
            await client.send(half[start : start + 8_000])
            await asyncio.sleep(0.001)
        assert_refused(await client.answer(), 431, "headers-too-large")


@pytest.mark.parametrize("name", ["Accept", "Accept-Encoding"])
@pytest.mark.parametrize("lines", [1, 40])
async def test_a_list_of_what_is_accepted_is_short(service: Running, name: str, lines: int) -> None:
    item = "*;q=0.5" if name == "Accept-Encoding" else "*/*"
    fits = ", ".join([item] * (900 // len(item) // 2 // lines))
    async with wire(service) as client:
        await client.send(request("/v1/feeds", TOKEN, *[f"{name}: {fits}"] * lines))
        assert (await client.answer()).status == 200
        long = ", ".join([fits] * 5)
        await client.send(request("/v1/feeds", TOKEN, *[f"{name}: {long}"] * lines))
        answer = await client.answer()
        assert_refused(answer, 431, "headers-too-large")
        assert answer.json()["detail"].startswith(f"{name} is longer than 1024 bytes")


async def test_what_waits_in_one_connection_is_bounded_in_bytes(service: Running) -> None:
    """As many requests as may wait are too many where their heads are long."""
    stream = request("/v1/feeds/clients?format=ndjson&columns=id,email", TOKEN)
    heads = request("/live", *LONG_HEAD[:3]) * 20
    async with wire(service, receive_buffer=4_096) as client:
        await client.send(stream)
        assert (await client.answer()).status == 200
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(30):
                await client.flood(heads, 1)
    async with wire(service) as client:
        await client.send(request("/live", *LONG_HEAD[:1]) * 10)
        assert {(await client.answer()).status for _ in range(10)} == {200}


async def test_a_long_path_is_refused_before_it_is_routed(service: Running) -> None:
    async with wire(service) as client:
        await client.send(request("/" * 2_048))
        assert (await client.answer()).status == 404
        await client.send(request(f"/live?{'x' * 8_000}=1"))
        assert (await client.answer()).status == 200
        await client.send(request("/" * 2_049))
        assert_refused(await client.answer(), 414, "uri-too-long")


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.2", "h2c, websocket"])
@pytest.mark.parametrize("body", [b"", b'{"path": "/v1/feeds/clients"}'])
async def test_what_follows_an_upgrade_is_never_a_request(
    service: Running, upgrade: str, body: bytes
) -> None:
    """In the same piece or behind it, and with any body of the request's own."""
    fields = [TOKEN, "Connection: upgrade", f"Upgrade: {upgrade}"]
    if body:
        first = request("/v1/tickets", *fields, f"Content-Length: {len(body)}", method="POST")
    else:
        first = request("/live", *fields)
    sent = first + body + request("/v1/feeds", TOKEN) * 2
    for split in (len(first), len(first + body) - 1, len(first + body), len(sent) - 50, len(sent)):
        async with wire(service) as client:
            await client.send(sent[:split])
            await asyncio.sleep(0.02)
            await client.send(sent[split:])
            answer = await client.answer()
            assert (answer.status, answer.headers["Connection"]) == (201 if body else 200, "close")
            assert await client.is_closed_within(30)


async def test_an_upgrade_that_is_not_made_is_answered(service: Running) -> None:
    async with wire(service) as client:
        await client.send(request("/live", "Connection: Upgrade", "Upgrade: h2c"))
        answer = await client.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert await client.is_closed_within(30)


@pytest.mark.parametrize("target", ["/live", "/v1/feeds/clients?limit=1"])
async def test_a_request_before_garbage_is_answered(service: Running, target: str) -> None:
    async with wire(service) as client:
        await client.send(request(target, TOKEN) * 2 + b"\x00nonsense\r\n\r\n")
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
        assert await client.is_closed_within(30)


@pytest.mark.parametrize(
    ("head", "status", "name"),
    [
        (request("/v1/feeds", TOKEN, TOKEN), 400, "bad-request"),
        (request("/v1/feeds", TOKEN, "authorization: Bearer x"), 400, "bad-request"),
        (b"GET /live HTTP/1.1\r\nHost: a b/c\r\n\r\n", 400, "bad-request"),
        (b"GET /live HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, "bad-request"),
        (b"GET  /live HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
        (b"GET /live  HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
        (
            request("/v1/tickets", TOKEN, "Transfer-Encoding: gzip, chunked", method="POST"),
            501,
            "unknown-transfer-coding",
        ),
    ],
)
async def test_what_another_would_read_in_another_way_is_refused(
    service: Running, head: bytes, status: int, name: str
) -> None:
    async with wire(service) as client:
        await client.send(request("/live"))
        assert (await client.answer()).status == 200
        await client.send(head)
        assert_refused(await client.answer(), status, name)


async def answered_before_its_body(client: Wire, body: bytes) -> None:
    """Send a request that is refused by its head alone, and nothing of its body yet."""
    head = request("/v1/feeds", TOKEN, f"Content-Length: {len(body)}", method="PUT")
    await client.send(head)
    assert (await client.answer()).status == 405


async def test_a_request_behind_the_rest_of_a_refused_body_is_answered(service: Running) -> None:
    """A client that has its answer early writes its body all the same, and goes on."""
    async with wire(service) as client:
        for _ in range(3):
            body = b'{"tags": ["a", "b", "c d"]}'
            await answered_before_its_body(client, body)
            await client.send(body + request("/v1/feeds", TOKEN) + request("/live"))
            assert [(await client.answer()).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_rules_hold_for_each_head_behind_the_rest_of_a_body(
    service: Running, place: int
) -> None:
    async with wire(service) as client:
        body = b"{}"
        await answered_before_its_body(client, body)
        sent = [request("/live")] * place + [request("/v1/feeds", TOKEN, TOKEN)]
        await client.send(body + b"".join(sent) + request("/live") * 2)
        for _ in range(place):
            assert (await client.answer()).status == 200
        assert_refused(await client.answer(), 400, "bad-request")
        assert await client.is_closed_within(30)


@pytest.mark.parametrize("host", ["", "x", "a.example:80", "[::1]:8080", "10.0.0.1", "a_b-c"])
async def test_every_host_that_may_be_is_answered(service: Running, host: str) -> None:
    async with wire(service) as client:
        await client.send(f"\r\nGET /live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await client.answer()).status == 200


async def test_a_body_that_turns_out_to_be_no_http_is_a_bad_request(service: Running) -> None:
    """Its head came before it, so that a handler waits for it."""
    async with wire(service) as client:
        await client.send(
            request("/v1/tickets", TOKEN, "Transfer-Encoding: chunked", method="POST")
        )
        await asyncio.sleep(0.05)
        await client.send(b"5\r\nhello\r\nzz\r\n\r\n")
        assert (await client.answer()).status == 400
        assert await client.is_closed_within(30)
