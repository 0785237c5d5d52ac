"""Requests that follow each other on one connection without waiting for an answer.

Answers leave in the order of their requests, whichever way each takes: a page from memory is ready
long before an earlier request has reached its handler. Tenants share these connections, as they do
behind a gateway that pipelines, so an answer out of order is another tenant's.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from tests.support.drawn import DRAWN, share
from tests.support.raw import Wire, request, wire
from tests.support.service import Running, bearer, serving

TENANTS = ("rosewood", "atelier-blanc", "lotus-and-vine")
PAIRS = share(3_000, 10)
CONNECTIONS = 12
PIPELINES = share(48, 8)  # on each of them
LONGEST_GAP = 0.000_2  # seconds between the two requests of a pair

_numbers = itertools.count()
_warm = "/v1/feeds/clients?limit=3&columns=id,tenant_id"


@dataclass(frozen=True)
class Sent:
    """A request, and what identifies its answer."""

    target: str
    tenant: str
    status: int = 200
    method: str = "GET"
    name: str = field(default_factory=lambda: f"pipelined-{next(_numbers)}")

    @property
    def head(self) -> bytes:
        fields = [f"{name}: {value}" for name, value in bearer(self.tenant).items()]
        return request(self.target, *fields, f"X-Request-ID: {self.name}", method=self.method)


@pytest.fixture(scope="module")
def service(world_url: str) -> Iterator[Running]:
    generous = {
        f"FEEDSVC_LIMITS__{role}__{what}": "1000000"
        for role in ("MEMBER", "ADMIN")
        for what in ("REQUESTS_PER_SECOND", "BURST")
    }
    with serving(world_url, settings=generous) as running:
        yield running


def warm(tenant: str) -> Sent:
    """A page that is answered from memory once it was asked for."""
    return Sent(_warm, tenant)


def cold(draw: random.Random, tenant: str) -> Sent:
    """A request that needs a handler."""
    filtered = f"id.gt={next(_numbers)}"
    return draw.choice([
        Sent(f"{_warm}&{filtered}", tenant),
        Sent("/v1/feeds", tenant),
        Sent("/live", tenant),
        Sent("/v1/feeds/clients/1", tenant, status=404),
        Sent(f"/v1/feeds?unknown={next(_numbers)}", tenant, status=400),
        Sent("/v1/nothing", tenant, status=404),
        Sent("/v1/tickets", tenant, status=405),
        Sent(_warm, tenant, method="HEAD"),
    ])  # fmt: skip


async def receive(connection: Wire, sent: Sequence[Sent]) -> None:
    """The answers, each of which must be that of the request in its place."""
    for expected in sent:
        answer = await connection.answer(has_body=expected.method != "HEAD")
        assert answer.headers["X-Request-ID"] == expected.name
        assert answer.status == expected.status
        if expected.target.startswith(_warm) and expected.method == "GET":
            assert {row["tenant_id"] for row in answer.json()} == {expected.tenant}


def _spin(seconds: float) -> None:
    """Let so little time pass that no sleep can: the service reads in turns of microseconds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def warmed(connection: Wire) -> None:
    """Ask until each tenant's page comes from memory without a handler."""
    async with asyncio.timeout(60):
        for tenant in TENANTS:
            while True:
                await connection.send(warm(tenant).head)
                if "limits;" not in (await connection.answer()).headers["Server-Timing"]:
                    break


@DRAWN
@pytest.mark.parametrize("seed", [1])
async def test_a_page_from_memory_never_overtakes_an_earlier_request(
    service: Running, seed: int
) -> None:
    draw = random.Random(seed)
    async with wire(service) as connection, asyncio.timeout(100):
        await warmed(connection)
        for _ in range(PAIRS):
            first, second = draw.sample(TENANTS, 2)
            pair = cold(draw, first), warm(second)
            await connection.send(pair[0].head)
            _spin(draw.uniform(0, LONGEST_GAP))
            await connection.send(pair[1].head)
            await receive(connection, pair)


@DRAWN
@pytest.mark.parametrize("seed", [2])
async def test_answers_of_several_tenants_keep_their_order(service: Running, seed: int) -> None:
    async with wire(service) as connection:
        await warmed(connection)
    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            group.create_task(_pipelines(service, random.Random(f"{seed}-{number}")))


async def _pipelines(service: Running, draw: random.Random) -> None:
    async with wire(service) as connection:
        for _ in range(PIPELINES):
            sent = [
                warm(tenant) if draw.random() < 0.6 else cold(draw, tenant)
                for tenant in draw.choices(TENANTS, k=draw.randint(2, 8))
            ]
            receiving = asyncio.create_task(receive(connection, sent))
            for piece in _split(draw, b"".join(each.head for each in sent)):
                await connection.send(piece)
                if draw.random() < 0.3:
                    await asyncio.sleep(0)
            await receiving


def _split(draw: random.Random, data: bytes) -> Iterator[bytes]:
    """The bytes in pieces that end anywhere, more often than not where a request ends."""
    ends = [at + 4 for at in range(len(data)) if data.startswith(b"\r\n\r\n", at)]
    cuts = {end for end in ends if draw.random() < 0.8}
    cuts |= {draw.randrange(len(data)) for _ in range(draw.randint(0, 3))}
    for start, end in itertools.pairwise(sorted({0, len(data), *cuts})):
        yield data[start:end]
