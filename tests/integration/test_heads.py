"""Heads of requests that are refused before anything is read for them, and what they cost."""

import asyncio
import importlib
import time
import zlib

import pytest

from tests.support.raw import RawAnswer, request, wire
from tests.support.service import Running, bearer

psutil = importlib.import_module("psutil")  # it has no type stubs

TOKEN = f"Authorization: {bearer()['Authorization']}"
INFLATED = 300_000_000  # bytes of zeros, which are a thousandth of that as gzip


@pytest.fixture(scope="module")
def bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1_000_000)
    return b"".join(packer.compress(zeros) for _ in range(INFLATED // len(zeros))) + packer.flush()


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
async def test_a_compressed_body_is_not_inflated(
    service: Running, bomb: bytes, target: str
) -> None:
    process = psutil.Process(service.pid)
    before = sum(process.cpu_times()[:2])
    async with wire(service) as client:
        length = f"Content-Length: {len(bomb)}"
        head = request(target, length, "Content-Encoding: gzip", method="POST")
        await client.send(head + bomb)
        assert_refused(await client.answer(), 415, "unsupported-content-coding")
    async with wire(service) as another:
        await another.send(request("/live"))
        assert (await another.answer()).status == 200
    spent = sum(process.cpu_times()[:2]) - before
    assert spent < seconds_to_inflate(bomb) / 2


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
