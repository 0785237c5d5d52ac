"""The feeds as HTTP: methods, negotiation, conditions, links, and refusals that cost nothing."""

import asyncio
import csv
import json
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import asyncpg
import pytest
from multidict import CIMultiDict
from yarl import URL

from feedsvc.core.problems import problem_types
from tests.support import servers, sse
from tests.support.service import Running, bearer, serving

CLIENTS = "/v1/feeds/clients"
PAGE = f"{CLIENTS}?limit=3"
EXPORT = "c0ffee00-0000-4000-8000-00000000000f"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
# What no two answers have in common, and what tells one body's length.
OF_ONE_ANSWER = {"Date", "X-Request-ID", "Server-Timing", "Content-Length", "Transfer-Encoding"}


@dataclass(frozen=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    http: aiohttp.ClientSession, path: str, method: str = "GET", **headers: str
) -> Answer:
    """The answer to a member, who sends no header but these; `_` in a name stands for `-`."""
    sent = bearer() | {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(
        method,
        URL(path, encoded=True),
        headers=sent,
        skip_auto_headers=("Accept", "Accept-Encoding"),
    ) as answer:
        return Answer(answer.status, CIMultiDict(answer.headers), await answer.read())


async def ask_raw(service: Running, lines: Sequence[str | bytes]) -> Answer:
    """The answer of known length to what no client would send, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    token = f"Authorization: {bearer()['Authorization']}".encode()
    writer.write(b"\r\n".join([*encoded, b"Connection: close", token, b"", b""]))
    first, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    pairs = (field.partition(": ") for field in fields)
    headers = CIMultiDict({name: value for name, _, value in pairs})
    has_body = not encoded[0].startswith(b"HEAD")
    body = await reader.readexactly(int(headers["Content-Length"])) if has_body else b""
    writer.close()
    return Answer(int(first.split()[1]), headers, body)


def assert_problem(answer: Answer, status: int, name: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status, problem["status"]) == (status, status), problem
    assert problem["type"] == f"/problems/{name}"
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    return problem


@pytest.fixture(scope="module")
async def cut_off(world_admin_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A service that can have no connection any more: PostgreSQL has shut its login out."""
    login = f"shut_out_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(world_admin_url)
    await admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE {servers.LOGIN}")
    try:
        with serving(servers.as_login(world_admin_url, login, "x")) as running:
            await admin.execute(f"ALTER ROLE {login} NOLOGIN")
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", login
            )
            async with aiohttp.ClientSession(running.url) as session:
                assert (await ask(session, PAGE)).status == 503
                yield session
    finally:
        await admin.execute(f"DROP ROLE {login}")
        await admin.close()


BAD = [
    ("nope=1", "nope"), ("Limit=1", "Limit"), ("limit.eq=1", "limit.eq"), ("=1", ""),
    ("limit=1&limit=1", "limit"), ("limit=1&%6Cimit=2", "limit"),
    ("limit=-1", "limit"), (f"limit={2**70}", "limit"), (f"limit={2**63}", "limit"),
    ("limit=1e9", "limit"), ("limit=NaN", "limit"), ("limit=", "limit"), ("limit=%201", "limit"),
    ("limit=1.0", "limit"), ("limit=%D9%A1", "limit"), ("limit=1_0", "limit"),
    ("columns=", "columns"), ("columns=id,", "columns"), ("columns=id,id", "columns"),
    ("columns=nope", "columns"), ("columns=%22id%22", "columns"), ("columns=ID", "columns"),
    ("columns=id;DROP%20TABLE%20x", "columns"), ("columns=id%22%3B--", "columns"),
    ("order=", "order"), ("order=nope", "order"), ("order=-newest", "order"),
    ("order=id%22%3B--", "order"),
    ("after=", "after"), ("after=1,2", "after"), ("after=x", "after"), ("after=%25", "after"),
    ("after=%25FF", "after"), ("after=9223372036854775808", "after"),
    ("order=newest&after=1", "after"), ("order=newest&after=1,2026-01-01T00:00:00Z", "after"),
    ("order=newest&after=2026-02-30T00:00:00Z,1", "after"), ("order=name&after=a,b,1", "after"),
    ("id=x", "id"), ("id=", "id"), ("id=1&id.eq=1", "id.eq"), ("id.in=1,x", "id.in"),
    ("id.in=", "id.in"), ("venue.in=%22a", "venue.in"), ("venue.is=maybe", "venue.is"),
    ("status=unknown", "status"), ("wedding_date=2026-02-30", "wedding_date"),
    ("budget.gt=12,5", "budget.gt"), ("reference=0x12", "reference"),
    ("guests.lt=1e3", "guests.lt"),
    ("preferences=1", "preferences"), ("phone.prefix=1", "phone.prefix"), ("id.like=1", "id.like"),
    ("id.=1", "id."), ("id.eq.eq=1", "id.eq.eq"), ("tenant_id=lotus-and-vine", "tenant_id"),
    ("%22id%22=1", '"id"'), ("id%3BDROP=1", "id;DROP"),
    ("venue=%00", "venue"), ("venue=%FF", "venue"), ("venue=%ED%A0%80", "venue"),
    ("format=xml", "format"), ("format=", "format"), ("format=CSV", "format"),
    ("header=0", "header"), ("format=csv&header=no", "header"), ("bom=1", "bom"),
    ("format=csv&bom=2", "bom"), ("format=csv&delimiter=x", "delimiter"),
    ("format=csv&delimiter=", "delimiter"), ("format=csv&guard=1", "guard"),
    ("format=csv&decimal=comma", "decimal"), ("format=csv&delimiter=;&decimal=,", "decimal"),
    ("format=csv&datetime=iso8601", "datetime"), ("format=csv&tz=UTC", "tz"),
    ("format=csv&datetime=iso&tz=UTC", "tz"), ("format=csv&datetime=excel&tz=", "tz"),
    ("format=csv&datetime=excel&tz=Mars", "tz"), ("format=csv&datetime=excel&tz=%2B02:00", "tz"),
    ("format=csv&datetime=excel&tz=europe/berlin", "tz"), ("format=csv&quote=none", "quote"),
    ("format=csv&datetime=excel&tz=../zones", "tz"), ("format=csv&quote=", "quote"),
    ("format=json&decimal=comma", "decimal"), ("format=sse&quote=all", "quote"),
    ("format=ndjson&datetime=excel", "datetime"), ("format=ndjson&tz=UTC", "tz"),
    ("format=ndjson&guard=off", "guard"), ("format=csv&frames=1", "frames"),
    ("format=ndjson&frames=", "frames"), ("progress=1", "progress"),
    ("format=sse&progress=0", "progress"), ("format=sse&progress=61", "progress"),
    ("format=sse&progress=nan", "progress"), ("format=sse&progress=1_0", "progress"),
    ("export=7", "export"), ("export=", "export"), ("export=0x" + "0" * 30, "export"),
    ("last_event_id=1", "last_event_id"), ("format=sse&last_event_id=x", "last_event_id"),
    ("since=1", "since"), ("format=json&live=1", "format"), ("format=sse&live=2", "live"),
    ("format=sse&live=1&limit=1", "limit"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "parameter"), BAD)
async def test_a_bad_parameter_is_named_and_costs_no_connection(
    cut_off: aiohttp.ClientSession, query: str, parameter: str
) -> None:
    problem = assert_problem(await ask(cut_off, f"{CLIENTS}?{query}"), 400, "bad-parameter")
    assert problem["parameter"] == parameter
    assert problem["instance"] == CLIENTS
    assert "select" not in problem["detail"].lower()


async def test_a_bad_last_event_id_is_named(cut_off: aiohttp.ClientSession) -> None:
    answer = await ask(cut_off, f"{CLIENTS}?format=sse", Last_Event_ID="x")
    assert assert_problem(answer, 400, "bad-parameter")["parameter"] == "Last-Event-ID"


async def test_raw_bytes_that_are_no_utf8_are_refused(service: Running) -> None:
    for query in (b"venue=\xff", b"\xff=1"):
        line = b"GET /v1/feeds/clients?" + query + b" HTTP/1.1"
        assert (await ask_raw(service, [line, "Host: x"])).status == 400


@pytest.mark.parametrize(
    "path", [CLIENTS, f"{CLIENTS}?format=csv", f"{CLIENTS}/100000001", "/v1/feeds"]
)
async def test_a_head_is_answered_without_a_query(
    cut_off: aiohttp.ClientSession, http: aiohttp.ClientSession, path: str
) -> None:
    head = await ask(cut_off, path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers.get("Content-Length") in {None, str(len((await ask(http, path)).body))}


@pytest.mark.parametrize("form", ["json", "csv", "ndjson", "sse"])
@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
async def test_a_head_has_the_headers_of_its_get(
    http: aiohttp.ClientSession, form: str, coding: str
) -> None:
    path = f"{CLIENTS}?format={form}&export={EXPORT}&id.lt=100000003"
    both = [await ask(http, path, method, Accept_Encoding=coding) for method in ("HEAD", "GET")]
    # HEAD looks for no rows, not in the cache either.
    own = {*OF_ONE_ANSWER, "Cache-Status", "RateLimit"}
    head, get = ({k: v for k, v in a.headers.items() if k not in own} for a in both)
    assert head == get
    assert both[0].headers["Cache-Status"] == "feedsvc; fwd=bypass"
    assert "Content-Length" not in both[0].headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", ["/v1/feeds", CLIENTS, f"{CLIENTS}/1", "/live"])
async def test_another_method_is_refused_with_those_that_are_answered(
    http: aiohttp.ClientSession, path: str, method: str
) -> None:
    answer = await ask(http, path, method)
    problem = assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "GET, HEAD"
    assert problem["allowed"] == ["GET", "HEAD"]


async def test_an_unknown_method_is_refused(service: Running) -> None:
    answer = await ask_raw(service, [f"FOO {CLIENTS} HTTP/1.1", "Host: x"])
    assert 400 <= answer.status < 500
    assert answer.json()["status"] == answer.status


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("length", ["Content-Length: 2", "Transfer-Encoding: chunked"])
async def test_a_body_where_none_belongs_is_refused(
    service: Running, method: str, length: str
) -> None:
    answer = await ask_raw(service, [f"{method} {PAGE} HTTP/1.1", "Host: x", length])
    assert answer.status == 400


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/nowhere", 404, "not-found"),
        ("/v1/feeds/nowhere", 404, "not-found"),
        (f"{CLIENTS}/9", 404, "not-found"),
        (f"{CLIENTS}/x", 404, "not-found"),
        (f"{CLIENTS}/100000001,1", 404, "not-found"),
        (f"{CLIENTS}/x/100000001", 404, "not-found"),
        (f"{CLIENTS}/", 404, "not-found"),
        (f"{CLIENTS}?x={'y' * 20_000}", 414, "uri-too-long"),
    ],
)
async def test_what_is_not_there_is_a_problem(
    http: aiohttp.ClientSession, path: str, status: int, name: str
) -> None:
    assert_problem(await ask(http, path), status, name)


async def test_a_header_that_is_too_long_is_a_problem(http: aiohttp.ClientSession) -> None:
    assert_problem(await ask(http, PAGE, X_Long="y" * 20_000), 431, "headers-too-large")


@pytest.mark.parametrize("name", problem_types())
async def test_every_problem_has_a_page(http: aiohttp.ClientSession, name: str) -> None:
    answer = await ask(http, f"/problems/{name}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    ("accept", "sent"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        (FIREFOX, "application/json"),
        ("text/csv", "text/csv; charset=utf-8; header=present"),
        ("application/json;q=0.5, text/csv;q=0.4, text/event-stream;q=0.6", "text/event-stream"),
        ("application/ndjson", "application/x-ndjson"),
        ("application/jsonl, */*;q=0.1", "application/x-ndjson"),
    ],
)
async def test_accept_chooses_the_format(
    http: aiohttp.ClientSession, accept: str | None, sent: str
) -> None:
    answer = await ask(http, PAGE, **({} if accept is None else {"Accept": accept}))
    assert (answer.status, answer.headers["Content-Type"]) == (200, sent)
    assert {"Accept", "Accept-Encoding", "Authorization"} <= set(answer.headers["Vary"].split(", "))


async def test_the_parameter_wins_over_accept(http: aiohttp.ClientSession) -> None:
    answer = await ask(http, f"{PAGE}&format=json", Accept="text/csv")
    assert answer.headers["Content-Type"] == "application/json"


async def test_a_format_that_cannot_be_sent_is_not_acceptable(http: aiohttp.ClientSession) -> None:
    assert_problem(await ask(http, PAGE, Accept="image/png"), 406, "not-acceptable")
    assert_problem(await ask(http, PAGE, Accept_Encoding="identity;q=0"), 406, "not-acceptable")
    assert_problem(await ask(http, f"{CLIENTS}/1", Accept="text/csv"), 406, "not-acceptable")


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        (None, None),
        ("gzip", "gzip"),
        ("zstd, gzip;q=0.9", "zstd"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0", None),
        ("br, *;q=0.1, zstd;q=0", "gzip"),
        ("identity", None),
    ],
)
@pytest.mark.parametrize("path", [PAGE, f"{CLIENTS}?id.lt=100000004"])
async def test_accept_encoding_chooses_the_coding(
    http: aiohttp.ClientSession, path: str, accepted: str | None, sent: str | None
) -> None:
    answer = await ask(http, path, **({} if accepted is None else {"Accept_Encoding": accepted}))
    assert answer.headers.get("Content-Encoding") == sent
    assert [row["id"] for row in answer.json()] == [100_000_001, 100_000_002, 100_000_003]


@pytest.mark.parametrize("order", ["key", "newest", "oldest", "name"])
@pytest.mark.parametrize("form", ["json", "csv"])
async def test_next_links_lead_to_every_row_exactly_once(
    http: aiohttp.ClientSession, world: asyncpg.Connection, order: str, form: str
) -> None:
    """Created at one instant, some rows are told apart by their key alone."""
    by = {
        "newest": "created_at DESC, id DESC",
        "oldest": "created_at, id",
        "name": "partner_one, id",
    }
    wanted = await world.fetch(
        "SELECT id FROM wedding.clients WHERE tenant_id = 'rosewood' AND id < 100000200"
        f" ORDER BY {by.get(order, 'id')}"
    )
    url: str | None = f"{CLIENTS}?format={form}&order={order}&limit=23&columns=id&id.lt=100000200"
    seen: list[int] = []
    while url is not None:
        answer = await ask(http, url)
        assert answer.status == 200
        rows = (
            answer.json() if form == "json" else csv.DictReader(answer.body.decode().splitlines())
        )
        seen += [int(row["id"]) for row in rows]
        link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
        url = link[1] if link else None
    assert seen == [row["id"] for row in wanted]


async def test_a_page_with_nothing_behind_it_has_no_next(http: aiohttp.ClientSession) -> None:
    answer = await ask(http, f"{PAGE}&id.lt=100000004")
    assert len(answer.json()) == 3
    assert "Link" not in answer.headers


@pytest.mark.parametrize(
    ("form", "body"),
    [("json", b"[]\n"), ("csv", b"id\r\n"), ("ndjson", b""), ("csv&header=0", b"")],
)
async def test_limit_0_is_a_page_of_no_rows(
    http: aiohttp.ClientSession, form: str, body: bytes
) -> None:
    answer = await ask(http, f"{CLIENTS}?limit=0&columns=id&format={form}")
    assert (answer.status, answer.body) == (200, body)
    assert "Link" not in answer.headers


async def test_limit_0_behind_a_row_has_no_next_that_never_ends(
    http: aiohttp.ClientSession,
) -> None:
    assert "Link" not in (await ask(http, f"{CLIENTS}?limit=0&after=100000001")).headers


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
async def test_a_page_that_is_still_the_same_is_not_sent_again(
    http: aiohttp.ClientSession, coding: str
) -> None:
    page = await ask(http, PAGE, Accept_Encoding=coding)
    tag = page.headers["ETag"]
    again = await ask(http, PAGE, Accept_Encoding=coding, If_None_Match=f'"x", {tag}')
    assert (again.status, again.body) == (304, b"")
    for name in ("ETag", "Vary", "Cache-Control", "Link"):
        assert again.headers[name] == page.headers[name]
    other = await ask(http, f"{PAGE}&columns=id", Accept_Encoding=coding, If_None_Match=tag)
    assert other.status == 200
    assert other.headers["ETag"] != tag


async def test_a_stream_has_neither_tag_nor_length(http: aiohttp.ClientSession) -> None:
    headers = (await ask(http, f"{CLIENTS}?id.lt=100000004", If_None_Match="*")).headers
    assert not {"ETag", "Link", "Content-Length"} & headers.keys()


async def test_an_export_is_called_what_it_was_asked_to_be(http: aiohttp.ClientSession) -> None:
    assert (await ask(http, f"{PAGE}&export={EXPORT}")).headers["Feed-Export"] == EXPORT
    made = {(await ask(http, PAGE)).headers["Feed-Export"] for _ in range(2)}
    assert len({uuid.UUID(name) for name in made}) == 2


@pytest.mark.parametrize("given", ["a", "7f-A.b_c:d", "x" * 128])
async def test_a_well_formed_request_id_is_kept(http: aiohttp.ClientSession, given: str) -> None:
    assert (await ask(http, PAGE, X_Request_ID=given)).headers["X-Request-ID"] == given
    problem = await ask(http, "/v1/feeds/nowhere", X_Request_ID=given)
    assert problem.json()["request_id"] == problem.headers["X-Request-ID"] == given


@pytest.mark.parametrize(
    "given", [b"", b"x" * 129, b"a b", b"-a", b"\xff", b"a\tb", b"a%0d%0aX-Forged:1", b'a"b']
)
async def test_another_request_id_is_replaced(service: Running, given: bytes) -> None:
    lines: list[str | bytes] = [f"GET {PAGE} HTTP/1.1", "Host: x"]
    lines.append(b"X-Request-ID: " + given)
    answer = await ask_raw(service, lines)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert "X-Forged" not in answer.headers


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("form", ["json", "csv", "ndjson", "sse"])
async def test_a_page_is_whole_in_every_version_of_http(
    service: Running, form: str, version: str
) -> None:
    lines: list[str | bytes] = [f"GET {PAGE}&format={form} HTTP/{version}", "Host: x"]
    answer = await ask_raw(service, lines)
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(answer.body)))


async def test_http_1_0_is_sent_no_stream(service: Running) -> None:
    for method in ("GET", "HEAD"):
        answer = await ask_raw(service, [f"{method} {CLIENTS} HTTP/1.0"])
        assert answer.status == 426
        assert answer.headers["Upgrade"] == "HTTP/1.1"


async def test_an_ended_event_stream_is_not_begun_again(cut_off: aiohttp.ClientSession) -> None:
    """So the answer costs no connection either."""
    path = f"{CLIENTS}?format=sse"
    for again in (
        await ask(cut_off, path, Last_Event_ID="end"),
        await ask(cut_off, f"{path}&last_event_id=end"),
        await ask(cut_off, f"{path}&last_event_id=100000001", Last_Event_ID="end"),
    ):
        assert (again.status, again.body) == (204, b"")


@pytest.mark.parametrize(
    ("query", "header"),
    [
        ("", "100000002"),
        ("&last_event_id=100000002", None),
        ("&last_event_id=end", "100000002"),
        ("&last_event_id=100000001&after=100000000", "100000002"),
        ("&last_event_id=100000002&after=100000000", None),
        ("&after=100000002", None),
    ],
)
async def test_an_event_stream_resumes_behind_what_its_client_has_seen(
    http: aiohttp.ClientSession, query: str, header: str | None
) -> None:
    path = f"{CLIENTS}?format=sse&columns=id&id.lt=100000005{query}"
    answer = await ask(http, path, **({} if header is None else {"Last_Event_ID": header}))
    stream = sse.parse(answer.body)
    assert [event.type for event in stream.events] == ["open", "rows", "end"]
    assert json.loads(stream.events[0].data)["after"] == "100000002"
    assert json.loads(stream.events[1].data) == [{"id": 100_000_003}, {"id": 100_000_004}]
    assert stream.events[-1].last_id == "end"


async def test_a_last_event_id_means_nothing_to_other_formats(http: aiohttp.ClientSession) -> None:
    answer = await ask(http, PAGE, Last_Event_ID="end")
    assert [row["id"] for row in answer.json()] == [100_000_001, 100_000_002, 100_000_003]


async def test_a_download_is_called_what_its_dataset_says(world_url: str, tmp_path: Path) -> None:
    declared = tmp_path / "datasets.toml"
    declared.write_text(
        '[couples]\nrelation = "wedding.clients"\nkey = ["id"]\ntenant = "tenant_id"\n'
        'filename = "Pärchen \\"2026\\"\\r\\nX-Forged: 1"\n'
    )
    with serving(world_url, datasets=declared) as running:
        async with aiohttp.ClientSession(running.url) as session:
            answer = await ask(session, "/v1/feeds/couples?format=csv&limit=1")
    assert "X-Forged" not in answer.headers
    parts = re.fullmatch(
        r"""attachment; filename="([^"]+)"; filename\*=UTF-8''(\S+)""",
        answer.headers["Content-Disposition"],
    )
    assert parts is not None
    assert parts[1] == "Parchen _2026_X-Forged_ 1.csv"
    assert unquote(parts[2]) == "Pärchen _2026_X-Forged_ 1.csv"
