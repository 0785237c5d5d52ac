"""Readers of every tenant at once, who cancel what they asked for at random moments.

They share one pool of keep-alive connections, as whoever stands behind a proxy does, so that on
each connection one tenant's request follows another's.
"""

import asyncio
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias
from urllib.parse import quote, urlsplit

import aiohttp
import orjson
from yarl import URL

from tests.support.canaries.answers import Answer, Ask, amiss, foreign, unchunked
from tests.support.canaries.world import (
    CLIENTS,
    NAMES,
    NOBODY,
    Caller,
    Name,
    Order,
    Row,
    World,
)

FORMS: Final = ("json", "csv", "ndjson", "ndjson&frames=1", "sse", "csv&bom=1&delimiter=;")
CODINGS: Final = ("identity", "gzip", "zstd")
ORDERS: Final[Sequence[Order]] = ("key", "sorted")
NARROWED: Final[Sequence[Name]] = ("letters", "stamps")  # of which a couple has rows of its own
# With `mark`, so that each row can be told.
COLUMNS: Final = ("", "&columns=mark", "&columns=extra,mark,tenant_id")
SETTINGS: Final[Mapping[str, str]] = {
    "FEEDSVC_SERVER__WORKERS": "2",
    # Far fewer connections than readers, so that each is passed on from tenant to tenant.
    "FEEDSVC_POOLS__READ__SIZE": "3",
    "FEEDSVC_POOLS__BULK__SIZE": "3",
    "FEEDSVC_POOLS__ANALYTICS__SIZE": "2",
    "FEEDSVC_POOLS__WRITE__SIZE": "2",
    # On a machine that has other things to do, nobody is sent away for being late.
    "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "90",
    "FEEDSVC_POOLS__BULK__ACQUIRE_TIMEOUT": "90",
    "FEEDSVC_POOLS__ANALYTICS__ACQUIRE_TIMEOUT": "90",
    "FEEDSVC_POOLS__WRITE__ACQUIRE_TIMEOUT": "90",
    "FEEDSVC_POOLS__READ__QUERY_TIMEOUT": "60",
    "FEEDSVC_POOLS__READ__LOCK_TIMEOUT": "50",
    "FEEDSVC_SERVER__HEADER_TIMEOUT": "90",
    "FEEDSVC_SERVER__BODY_TIMEOUT": "90",
    "FEEDSVC_REDIS__TIMEOUT": "5",
    # Bodies of a hundred kilobytes must be enough for a client to fall behind.
    "FEEDSVC_SERVER__SEND_BUFFER": "16384",
    "FEEDSVC_STREAMS__PATIENCE": "0.02",
    "FEEDSVC_LIMITS__CLIENT__REQUESTS_PER_SECOND": "100000",
    "FEEDSVC_LIMITS__CLIENT__BURST": "1000000",
    "FEEDSVC_LIMITS__CLIENT__TICKETS_PER_SECOND": "100000",
    "FEEDSVC_LIMITS__CLIENT__TICKETS_BURST": "1000000",
    "FEEDSVC_LIMITS__CLIENT__STREAMS": "100000",
    "FEEDSVC_LOG__LEVEL": "WARNING",
}
"""Settings of a service that is to be read in this way."""

_SEVERAL: Final = re.compile(rb'"snapshots":(?!1\b)')
_LONGEST: Final = 120.0  # seconds that no request takes on any machine
_REPORTED: Final = 20
_EACH: Final = 3  # how often each kind of request must have been received whole
# The shares of requests whose whole answer is waited for, and of those that end in their body.
_PATIENT, _IN_BODY = 0.5, 0.2

Ending: TypeAlias = Callable[["Findings"], bool]


@dataclass
class Findings:
    """Counts of all readers together."""

    foreign: list[str] = field(default_factory=list)
    amiss: list[str] = field(default_factory=list)
    whole: Counter[str] = field(default_factory=Counter)
    cut_before_head: int = 0
    cut_in_body: int = 0
    reset: int = 0
    resumed: int = 0
    """Bodies whose cursor had been given up, so that they came from several snapshots."""
    reused: int = 0
    """Requests on a connection that had served another before."""
    marks: int = 0
    satisfied: set[str] = field(default_factory=set)
    """Tenants that have received rows, and all of them."""

    def note(self, ask: Ask, answer: Answer) -> None:
        """Judges an answer, or as much of it as there is."""
        body = answer.body()
        who = f"{ask.caller} {ask.method} {ask.target} {dict(ask.headers)}: {answer.status}"
        if (found := foreign(ask, answer, body)) and len(self.foreign) < _REPORTED:
            self.foreign.append(f"{who}: {found[:3]}")
        if not answer.status:
            self.cut_before_head += 1
            return
        if (wrong := amiss(ask, answer, body)) and len(self.amiss) < _REPORTED:
            self.amiss.append(f"{who}: {wrong}: {body[-300:]!r}")
        if not answer.whole:
            self.cut_in_body += 1
            return
        self.whole[ask.what] += 1
        self.resumed += _SEVERAL.search(body) is not None
        if ask.marks and answer.status == 200 and ask.method == "GET":
            self.marks += len(ask.marks)
            self.satisfied.add(ask.caller.tenant)


async def read_all(
    url: str,
    world: World,
    seconds: float,
    *,
    rows_at_all: bool = True,
) -> Findings:
    """Every tenant reads for so long, and then until nothing was left out by chance.

    Without `rows_at_all` each is to see no row.
    """
    async with _reading(url, world, seconds, world.tenants, rows_at_all=rows_at_all) as (found, _):
        pass
    return found


async def read_until(url: str, world: World, seconds: float, over: Ending) -> Findings:
    """A few tenants read until this is so, or for so long.

    Few, because each may be sent everything that all of them have.
    """
    few = world.tenants[:: min(20, len(world.tenants) // 2)]
    async with _reading(url, world, seconds, few) as (found, readers):
        while not (over(found) or all(reader.done() for reader in readers)):
            await asyncio.sleep(0.05)
        for reader in readers:
            reader.cancel()
    return found


@asynccontextmanager
async def _reading(
    url: str, world: World, seconds: float, tenants: Sequence[str], *, rows_at_all: bool = True
) -> AsyncIterator[tuple[Findings, Sequence[asyncio.Task[None]]]]:
    """The readers of these tenants at work; the block's end waits for theirs."""
    findings = Findings()
    crowd = _Crowd(url, world, findings, rows_at_all=rows_at_all)
    began = time.monotonic()

    def ended() -> bool:
        spent = time.monotonic() - began
        return spent >= seconds and (crowd.is_content() or spent > seconds + 90)

    tracing = aiohttp.TraceConfig()

    async def count(*_: object) -> None:
        findings.reused += 1

    tracing.on_connection_reuseconn.append(count)
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=_LONGEST),
            auto_decompress=False,
            trace_configs=[tracing],
        ) as http,
        asyncio.TaskGroup() as group,
    ):
        yield findings, [group.create_task(crowd.read(http, who, ended)) for who in tenants]


class _Crowd:
    """State that the readers share."""

    def __init__(self, url: str, world: World, findings: Findings, *, rows_at_all: bool) -> None:
        self.url = url
        self.world = world
        self.findings = findings
        self.rows_at_all = rows_at_all
        self.usual = 0.05  # seconds that an answer took of late

    def is_content(self) -> bool:
        """Return whether nothing was left out by chance."""
        found = self.findings
        return (
            len(found.satisfied) == (len(self.world.tenants) if self.rows_at_all else 0)
            and all(found.whole[what.__name__] >= _EACH for what in _Reader.KINDS)
            and min(found.cut_before_head, found.cut_in_body, found.reset) >= _EACH
            and (found.resumed > 0 or not self.rows_at_all)
        )

    async def read(
        self, http: aiohttp.ClientSession, tenant: str, ended: Callable[[], bool]
    ) -> None:
        """One tenant's people, who ask one thing after another."""
        reader = _Reader(self, http, tenant)
        while not ended():
            await reader.ask_something()


class _Reader:
    """One tenant's people."""

    def __init__(self, crowd: _Crowd, http: aiohttp.ClientSession, tenant: str) -> None:
        self._crowd = crowd
        self._http = http
        self._tenant = tenant
        self._world = crowd.world
        self._dice = random.Random(tenant)
        # All of them once and in another order for each tenant, for a machine may be slow.
        self._kinds = self._dice.sample(self.KINDS, len(self.KINDS))

    async def ask_something(self) -> None:
        """The next kind of request, with whatever else is drawn for it."""
        kind = self._kinds.pop() if self._kinds else self._dice.choice(self.KINDS)
        await kind(self)

    # The kinds of requests.

    async def all_rows(self) -> None:
        caller, name, order = self._draw()
        rows = self._world.rows(caller, name, order)
        await self._exchange(self._feed("all_rows", caller, name, order, rows))

    async def cut_by_reset(self) -> None:
        """All rows, over a connection that ends with an RST."""
        caller, name, order = self._draw()
        ask = self._feed("cut_by_reset", caller, name, order, self._world.rows(caller, name, order))
        await self._slowly(ask, 0.0, self._dice.choice((self._sometime(), None)))

    async def slowly(self) -> None:
        """A large body, so slowly that its cursor is given up, and its connection with it."""
        caller, order = Caller(self._tenant), self._dice.choice(ORDERS)
        marks = [row.mark for row in self._world.rows(caller, "letters", order)]
        form = self._dice.choice(("ndjson&frames=1", "sse"))
        target = f"/v1/feeds/letters?format={form}&order={order}"
        await self._slowly(Ask("slowly", caller, target, marks), 0.01, None)

    async def _slowly(self, ask: Ask, pause: float, patience: float | None) -> None:
        """Ask over a connection of its own with hardly a buffer, that ends with an RST."""
        ask, answer = self._expected(ask), Answer()
        reader, writer = await _hardly_buffered(self._crowd.url)
        try:
            async with asyncio.timeout(patience):
                fields = [f"{n}: {value}" for n, value in ask.all_headers().items()]
                head = [f"GET {ask.target} HTTP/1.1", "Host: x", *fields, "", ""]
                writer.write("\r\n".join(head).encode())
                await _receive(reader, answer, pause)
        except TimeoutError:
            self._crowd.findings.reset += 1
        finally:
            _reset(writer)
        self._crowd.findings.note(ask, answer)

    async def a_page_and_again(self) -> None:
        """A page, the same page, the same with its own tag, and with its tag by another tenant."""
        caller, name, order = self._draw()
        most = self._dice.choice((1, 3, 40))
        rows = self._world.rows(caller, name, order)[:most]
        ask = self._feed("a_page_and_again", caller, name, order, rows, f"&limit={most}")
        tag = None
        for _ in range(2):
            answer = await self._exchange(ask)
            tag = answer.headers.get("ETag") if answer.whole else tag
        if tag is not None:
            known = {**ask.headers, "If-None-Match": tag}
            statuses = {200, 304} if "sse" in ask.target else {304}
            await self._exchange(replace(ask, headers=known, statuses=frozenset(statuses)))
            other = Caller(self._other_tenant(), caller.role, caller.client)
            theirs = self._world.rows(other, name, order)[:most]
            marks = [row.mark for row in theirs]
            await self._exchange(replace(ask, caller=other, headers=known, marks=marks))

    async def behind_own_row(self) -> None:
        caller, name, order = self._draw()
        await self._behind("behind_own_row", caller, self._any_row(caller, name), order)

    async def behind_anothers_row(self) -> None:
        """A token from another tenant names a place in the order, and nothing more."""
        caller, name, order = self._draw()
        await self._behind(
            "behind_anothers_row", caller, self._any_row(self._another(), name), order
        )

    async def behind_an_edited_token(self) -> None:
        caller, name, order = self._draw()
        token = self._any_row(self._dice.choice((caller, self._another())), name).token(order)
        at = self._dice.randrange(len(token))
        junk = self._dice.choice(("'", "%00", ",", "9", "%", "", "\N{PILE OF POO}", "' OR 1=1--"))
        edited = quote(token[:at] + junk + token[at + self._dice.randrange(3) :], safe="")
        ask = self._feed("behind_an_edited_token", caller, name, order, (), f"&after={edited}")
        # Whether it still means a place, and which, is no matter here.
        await self._exchange(replace(ask, marks=None, statuses=frozenset({200, 400})))

    async def last_event_id(self) -> None:
        caller, name, order = self._draw()
        row = self._any_row(self._dice.choice((caller, self._another())), name)
        target = f"/v1/feeds/{name}?format=sse&order={order}"
        marks = [seen.mark for seen in self._world.behind(caller, row, order)]
        headers = {"Last-Event-ID": row.token(order)}
        await self._exchange(Ask("last_event_id", caller, target, marks, headers=headers))

    async def own_row(self) -> None:
        caller, name, _ = self._draw()
        row = self._any_row(caller, name)
        await self._exchange(self._one_row("own_row", caller, row))

    async def anothers_row(self) -> None:
        """With keys alike in every tenant, the same address is the caller's own row."""
        caller, name, _ = self._draw()
        row = self._any_row(self._another(), name)
        await self._exchange(self._one_row("anothers_row", caller, row))

    async def another_clients_row(self) -> None:
        client, other = self._dice.sample(CLIENTS, 2)
        row = self._any_row(Caller(self._tenant, client=other), "stamps")
        couple = Caller(self._tenant, client=client)
        await self._exchange(self._one_row("another_clients_row", couple, row))

    async def filtered_by_another(self) -> None:
        """Filters that name another client or another tenant's canary."""
        caller, _, order = self._draw()
        name: Name = self._dice.choice(NARROWED)
        client = self._dice.choice(CLIENTS)
        mark = self._any_row(self._another(), name).mark
        own = self._world.rows(caller, name, order)
        extra, rows = self._dice.choice(
            (
                (f"&client_id={client}", [row for row in own if row.client == client]),
                ("&client_id.in=1,2,3", own),
                (f"&mark={mark}", []),
                (f"&mark.prefix={mark[:11]}", []),
                ("&mark.prefix=canary", own),
            )
        )
        await self._exchange(self._feed("filtered_by_another", caller, name, order, rows, extra))

    async def naming_a_tenant(self) -> None:
        """A tenant in the query is refused, and one that nobody knows has no rows."""
        caller, name, order = self._draw()
        other = f"&tenant_id={self._other_tenant()}"
        ask = self._feed("naming_a_tenant", caller, name, order, (), other)
        await self._exchange(replace(ask, statuses=frozenset({400})))
        nobody = Caller(NOBODY, caller.role, caller.client)
        await self._exchange(self._feed("naming_a_tenant", nobody, name, order, ()))

    async def by_ticket(self) -> None:
        """A ticket on a connection on which others have sent their tokens."""
        caller, name, order = self._draw()
        rows = self._world.rows(caller, name, order)
        ask = self._feed("by_ticket", caller, name, order, rows)
        body = orjson.dumps({"path": f"/v1/feeds/{name}"})
        asked = Ask("a_ticket", caller, "/v1/tickets", None, frozenset({201}), {}, "POST", body)
        answer = await self._exchange(asked, patient=True)
        if answer.status != 201:
            return
        ticket = orjson.loads(answer.raw)["ticket"]
        by_it = replace(ask, target=f"{ask.target}&ticket={ticket}", with_token=False)
        used = await self._exchange(by_it)
        if used.status:
            again = replace(by_it, what="a_ticket", statuses=frozenset({401}), marks=None)
            await self._exchange(again)

    async def heads(self) -> None:
        caller, name, order = self._draw()
        ask = self._feed("heads", caller, name, order, ())
        await self._exchange(replace(ask, method="HEAD"))

    async def catalogue(self) -> None:
        await self._exchange(Ask("catalogue", self._draw()[0], "/v1/feeds", ()))

    KINDS: Final[Sequence[Callable[["_Reader"], Awaitable[None]]]] = (
        all_rows,
        cut_by_reset,
        slowly,
        a_page_and_again,
        behind_own_row,
        behind_anothers_row,
        behind_an_edited_token,
        last_event_id,
        own_row,
        anothers_row,
        another_clients_row,
        filtered_by_another,
        naming_a_tenant,
        by_ticket,
        heads,
        catalogue,
    )

    # What they are made of.

    def _draw(self) -> tuple[Caller, Name, Order]:
        dice = self._dice
        couples = (Caller(self._tenant, client=client) for client in CLIENTS)
        everybody = (Caller(self._tenant), Caller(self._tenant, "admin"), *couples)
        return dice.choice(everybody), dice.choice(NAMES), dice.choice(ORDERS)

    def _other_tenant(self) -> str:
        others = [tenant for tenant in self._world.tenants if tenant != self._tenant]
        return self._dice.choice(others)

    def _another(self) -> Caller:
        return Caller(self._other_tenant())

    def _any_row(self, caller: Caller, name: Name) -> Row:
        return self._dice.choice(self._world.rows(caller, name))

    def _feed(
        self,
        what: str,
        caller: Caller,
        name: Name,
        order: Order,
        rows: Sequence[Row],
        extra: str = "",
    ) -> Ask:
        form, columns = self._dice.choice(FORMS), self._dice.choice(COLUMNS)
        target = f"/v1/feeds/{name}?format={form}&order={order}{columns}{extra}"
        marks = [row.mark for row in rows]
        headers = {"Accept-Encoding": self._dice.choice(CODINGS)}
        return Ask(what, caller, target, marks, headers=headers)

    async def _behind(self, what: str, caller: Caller, row: Row, order: Order) -> None:
        rows, most = self._world.behind(caller, row, order), self._dice.choice((None, 2, 70))
        extra = f"&after={quote(row.token(order), safe='')}"
        if most is not None:
            rows, extra = rows[:most], f"{extra}&limit={most}"
        await self._exchange(self._feed(what, caller, row.name, order, rows, extra))

    def _one_row(self, what: str, caller: Caller, row: Row) -> Ask:
        """A row's address, and the caller's own row that has it, if there is one."""
        own = self._world.rows(caller, row.name)
        marks = [seen.mark for seen in own if seen.address == row.address]
        return Ask(what, caller, row.address, marks, frozenset({200 if marks else 404}))

    def _expected(self, ask: Ask) -> Ask:
        """The request with what must come of it where nobody sees a row at all."""
        if self._crowd.rows_at_all or not ask.marks:
            return ask
        is_row = "?" not in ask.target
        # One empty page is like the other, so that another tenant's tag fits.
        statuses = (
            {404} if is_row else ask.statuses | ({304} if "If-None-Match" in ask.headers else set())
        )
        return replace(ask, marks=(), statuses=frozenset(statuses))

    def _sometime(self) -> float:
        """A moment at which the answer may be anywhere, from not begun to nearly received."""
        return self._dice.random() * self._crowd.usual * self._dice.choice((0.1, 0.5, 1.2))

    async def _exchange(self, ask: Ask, *, patient: bool = False) -> Answer:
        """Asks, and gives up at some moment or waits for all of it. What came of it is judged."""
        ask, answer, drawn = self._expected(ask), Answer(), self._dice.random()
        if patient or drawn < _PATIENT:
            began = time.monotonic()
            await self._request(ask, answer)
            self._crowd.usual += (time.monotonic() - began - self._crowd.usual) / 50
        elif drawn < _PATIENT + _IN_BODY:
            await self._request(ask, answer, self._dice.choice((0, 100, 5_000, 30_000)))
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sometime()):
                    await self._request(ask, answer)
        self._crowd.findings.note(ask, answer)
        return answer

    async def _request(self, ask: Ask, answer: Answer, most: int = 2**62) -> None:
        """Receives an answer, or of its body so many bytes."""
        url = URL(self._crowd.url + ask.target, encoded=True)
        async with self._http.request(
            ask.method, url, headers=ask.all_headers(), data=ask.body
        ) as response:
            answer.status, answer.headers = response.status, response.headers
            while len(answer.raw) < most:
                piece = await response.content.readany()
                if not piece:
                    answer.whole = True
                    return
                answer.raw += piece[: most - len(answer.raw)]


async def _receive(reader: asyncio.StreamReader, answer: Answer, pause: float) -> None:
    """As much as comes, taken apart as far as it came, until the caller has had enough."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *fields = head.decode().strip().split("\r\n")
    answer.headers = dict(field.split(": ", 1) for field in fields)
    answer.status = int(first.split()[1])
    raw = b""
    while piece := await reader.read(8_192):
        raw += piece
        await asyncio.sleep(pause)
        answer.raw[:] = unchunked(raw)
        if raw.endswith(b"\r\n0\r\n\r\n"):
            answer.whole = True
            return


async def _hardly_buffered(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose kernel and whose reader keep a few kilobytes."""
    parts = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(client, (parts.hostname, parts.port))
    except BaseException:
        client.close()  # the reader may be told to stop just here
        raise
    return await asyncio.open_connection(sock=client, limit=8_192)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with an RST."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
