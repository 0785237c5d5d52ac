"""A body cut at any byte, in any format, is continued from its last complete record.

In `make test` a quarter of the bytes are tried, in `make soak` every one.

The client here knows the contract alone: it finds the last complete record by the rules of the
format, and builds the token from that record's columns by hand.
"""

import asyncio
import csv
import io
import json
import random
import re
import shutil
import zlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import aiohttp
import pytest
from backports import zstd
from yarl import URL

from feedsvc.datasets.dataset import SourceName
from tests.support import sse
from tests.support.drawn import DRAWN, share
from tests.support.proxy import Fault, proxied
from tests.support.servers import DATASETS
from tests.support.service import Running, bearer, serving
from tests.support.sources import COPY_AT_ONCE, SOURCES, by_source

Row = dict[str, str | None]

FORMATS = ("json", "csv", "ndjson", "sse")
AT_ONCE = 12
DIFFERS = 96
"""Bytes by which two SSE bodies of the same rows may differ: the digits of times, and twice the
cursor, which has a snapshot with the transactions of all tests that run meanwhile."""
_BEGUN_OBJECT = re.compile(r"[\[,\s]*\{")


@dataclass(frozen=True)
class Feed:
    """A feed in one format, and the columns that its order goes by."""

    form: str
    query: str
    order: tuple[str, ...]
    dataset: str = "clients"

    def url(self, after: str | None = None) -> str:
        """Its address; a CSV is asked for without its guard, which would change a token's text."""
        url = f"/v1/feeds/{self.dataset}?format={self.form}&{self.query}"
        url += "&guard=off" * (self.form == "csv")
        if after is None:
            return url
        return url + "&header=0" * (self.form == "csv") + f"&after={quote(after, safe='')}"

    def token(self, row: Row) -> str:
        """Order columns and key, each percent-encoded, joined with commas."""
        return ",".join(quote(str(row[name]), safe="") for name in self.order)


# Couples whose notes hold what is awkward: line breaks, quotes, commas, emoji, a forged event.
IDS = ",".join(str(100_000_000 + n) for n in (20, 21, 22, 25, 30, 40))
SMALL = {
    form: Feed(form, f"order=name&columns=partner_one,notes,id&id.in={IDS}", ("partner_one", "id"))
    for form in FORMATS
}
LARGE = {
    form: Feed(form, "order=newest&columns=created_at,notes,venue,id", ("created_at", "id"))
    for form in FORMATS
}


@dataclass(frozen=True)
class Received:
    """The reliable part of a body: its bytes up to the last complete record, and the rows."""

    kept: bytes
    rows: list[Row]


def complete(form: str, body: bytes) -> Received:
    """The complete records of a body that may be cut anywhere."""
    match form:
        case "ndjson":
            kept = body[: body.rfind(b"\n") + 1]
            lines = kept.decode().split("\n")[:-1]
            return Received(kept, [json.loads(line, parse_int=str) for line in lines])
        case "csv":
            return _complete_csv(body)
        case "json":
            return Received(b"", _complete_objects(body.decode("utf-8", "ignore")))
        case _:
            arrays = (json.loads(event.data, parse_int=str) for event in _rows_events(body))
            return Received(b"", [row for array in arrays for row in array])


def _complete_csv(body: bytes) -> Received:
    """A record ends with CRLF outside quotes; the first one is the header."""
    end = position = quotes = 0
    while (found := body.find(b"\r\n", position)) >= 0:
        quotes += body.count(b'"', position, found)
        position = found + 2
        if quotes % 2 == 0:
            end = position
    text = io.StringIO(body[:end].decode(), newline="")
    header, *records = list(csv.reader(text, strict=True)) or [[]]
    return Received(body[:end], [dict(zip(header, r, strict=True)) for r in records])


def _complete_objects(text: str) -> list[Row]:
    rows, decoder = list[Row](), json.JSONDecoder(parse_int=str)
    end = 0
    while begun := _BEGUN_OBJECT.match(text, end):
        try:
            row, end = decoder.raw_decode(text, begun.end() - 1)
        except json.JSONDecodeError:
            break
        rows.append(row)
    return rows


def _rows_events(body: bytes) -> list[sse.Event]:
    return sse.parse(body).of_type("rows")


@dataclass
class Client:
    """Downloads through a proxy that cuts, and continues from the service itself."""

    http: aiohttp.ClientSession
    cutting: aiohttp.ClientSession
    port: int
    _answers: dict[str, asyncio.Task[bytes]] = field(default_factory=dict)

    async def get(self, url: str) -> bytes:
        """The whole of an answer; the same is asked for only once."""
        if url not in self._answers:
            self._answers[url] = asyncio.create_task(self._get(url))
        return await self._answers[url]

    async def _get(self, url: str) -> bytes:
        headers = {**bearer(), "Accept-Encoding": "identity"}
        async with self.http.get(URL(url, encoded=True), headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def length(self, url: str) -> int:
        """The number of bytes behind the head, with those that HTTP puts around chunks."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = {**bearer(), "Host": "test", "Connection": "close"}
        lines = [f"GET {url} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = await reader.read()
        writer.close()
        return len(answer.partition(b"\r\n\r\n")[2])

    async def download(
        self, url: str, fault: Fault, coding: str = "identity"
    ) -> tuple[bytes, bool]:
        """The bytes of a body that arrived, as sent, and whether aiohttp took it for whole."""
        headers, body = {**bearer(), "Accept-Encoding": coding}, b""
        async with proxied(self.port, fault) as proxy:
            try:
                async with self.cutting.get(
                    URL(proxy.url + url, encoded=True), headers=headers
                ) as answer:
                    assert answer.headers.get("Content-Encoding", "identity") == coding
                    async for piece in answer.content.iter_any():
                        body += piece
            except aiohttp.ClientPayloadError:
                return body, False
            except aiohttp.ClientConnectionError:  # an RST may overtake the head
                assert fault.how == "rst"
                return body, False
        return body, True

    async def continued(self, feed: Feed, body: bytes) -> None:
        """Asserts that a cut body and its continuation are the uncut feed."""
        received, uncut = complete(feed.form, body), await self.get(feed.url())
        after = feed.token(received.rows[-1]) if received.rows else None
        rest = await self.get(feed.url(after))
        if feed.form in {"csv", "ndjson"}:
            assert (received.kept if received.rows else b"") + rest == uncut
        else:
            continuation = complete(feed.form, rest).rows
            assert received.rows + continuation == complete(feed.form, uncut).rows


@pytest.fixture
async def client(service: Running, http: aiohttp.ClientSession) -> AsyncIterator[Client]:
    once = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=once, auto_decompress=False) as cutting:
        yield Client(http, cutting, service.port)


@pytest.fixture(scope="module")
async def by_sources(
    world_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Client]:
    """Of a service that has the clients once by each source."""
    file = tmp_path_factory.mktemp("resume") / "datasets.toml"
    behind = DATASETS.read_text().split("\n[clients]\n")[1]
    clients = f"[clients]\n{behind.split(chr(10) + '[budgets]')[0]}\n"
    file.write_text(
        "".join(
            by_source(clients, source).replace("[clients", f"[clients-{source}")
            for source in SOURCES
        )
    )
    once = aiohttp.TCPConnector(force_close=True)
    with serving(world_url, datasets=file, settings=COPY_AT_ONCE) as service:
        async with (
            aiohttp.ClientSession(service.url) as http,
            aiohttp.ClientSession(connector=once, auto_decompress=False) as cutting,
        ):
            yield Client(http, cutting, service.port)


async def for_each(client: Client, cuts: Iterable[tuple[Feed, Fault, bool | None]]) -> None:
    """Cut each feed as the fault says, and continue it; the flag says whether all arrives.

    None: it may or may not.
    """
    free = asyncio.Semaphore(AT_ONCE)

    async def cut(feed: Feed, fault: Fault, whole: bool | None) -> None:
        async with free:
            body, looked_whole = await client.download(feed.url(), fault)
        assert whole in (None, looked_whole), fault
        await client.continued(feed, body)

    async with asyncio.TaskGroup() as group:
        for feed, fault, whole in cuts:
            group.create_task(cut(feed, fault, whole))


@DRAWN
@pytest.mark.parametrize("form", FORMATS)
async def test_a_small_feed_is_continued_from_every_byte(client: Client, form: str) -> None:
    feed = SMALL[form]
    assert len(complete(form, await client.get(feed.url())).rows) == 6
    length = await client.length(feed.url())
    certain = length - (DIFFERS if form == "sse" else 0)
    at_places = sorted(random.Random(form).sample(range(length), share(length, 8)))
    cuts: list[tuple[Feed, Fault, bool | None]] = [
        (feed, Fault(at, behind_head=True), False if at < certain else None) for at in at_places
    ]
    await for_each(client, [*cuts, (feed, Fault(length + DIFFERS, behind_head=True), True)])


@DRAWN
@pytest.mark.parametrize("source", SOURCES)
async def test_a_large_feed_is_continued_from_anywhere(
    by_sources: Client, source: SourceName
) -> None:
    client, dice = by_sources, random.Random(source)
    cuts = []
    for feed in [replace(feed, dataset=f"clients-{source}") for feed in LARGE.values()]:
        length = await client.length(feed.url())
        for how in ("fin", "rst") * share(8):
            at = dice.randrange(length - DIFFERS)
            cuts.append((feed, Fault(at, behind_head=True, how=how), False))
    await for_each(client, cuts)


@pytest.mark.either_way
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("form", ["csv", "sse"])
async def test_a_compressed_feed_is_continued_from_what_could_be_unpacked(
    client: Client, form: str, coding: str
) -> None:
    dice, feed = random.Random(7), LARGE[form]
    whole, _ = await client.download(feed.url(), Fault(), coding)
    shown = set()
    for at in dice.sample(range(len(whole)), 5):
        body, looked_whole = await client.download(feed.url(), Fault(at, behind_head=True), coding)
        assert not looked_whole
        unpacked = _unpacked(body, coding)
        shown.add(len(complete(form, unpacked).rows))
        await client.continued(feed, unpacked)
    assert len(shown) > 1


def _unpacked(body: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body)
    return zstd.ZstdDecompressor().decompress(body)


@pytest.mark.either_way
async def test_the_id_of_an_sse_event_is_the_token_that_its_last_row_gives(
    client: Client,
) -> None:
    events = _rows_events(await client.get(LARGE["sse"].url()))
    assert len(events) > 1
    for event in events:
        rows = json.loads(event.data, parse_int=str)
        assert event.last_id == LARGE["sse"].token(rows[-1])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("how", "code"), [("fin", 18), ("rst", 56)])
async def test_curl_distinguishes_a_cut_body_from_a_whole_one(
    client: Client, form: str, how: str, code: int
) -> None:
    feed = SMALL[form]
    length = await client.length(feed.url())
    for at in (1, length // 2, length - (DIFFERS if form == "sse" else 12)):
        fault = Fault(at, behind_head=True, how="fin" if how == "fin" else "rst")
        assert await _curl(client, feed, fault) == code
    assert await _curl(client, feed, Fault()) == 0


async def _curl(client: Client, feed: Feed, fault: Fault) -> int:
    async with proxied(client.port, fault) as proxy:
        (header,) = (f"{name}: {value}" for name, value in bearer().items())
        process = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--output", "/dev/null", "--header", header, proxy.url + feed.url()
        )
        return await process.wait()
