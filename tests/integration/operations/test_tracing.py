"""Spans of requests, as a collector gets them over its socket."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.ailing import DATASETS, LOGIN, SCHEMA, until, url_of
from tests.support.collector import attributes, collecting
from tests.support.service import NO_REDIS, Running, serving, token
from tests.support.standby import lay_out, primary_running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer
    from tests.support.collector import Collector

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
TOKEN = token()
SECRET = "417"
PAGE = f"/v1/feeds/things?limit=7&columns=id&after={SECRET}"
DIVIDES = """
CREATE TABLE app.long (n int PRIMARY KEY);
INSERT INTO app.long SELECT generate_series(1, 40000);
ANALYZE app.long;
CREATE VIEW app.breaks AS SELECT n, 1 / (30000 - n) AS part FROM app.long;
GRANT SELECT ON app.breaks TO reader;
"""
BREAKS = '[breaks]\nrelation = "app.breaks"\nkey = ["n"]\nshared = true\nnot_null = ["n"]\n'
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50", "FEEDSVC_TRACING__SAMPLE": "0", **NO_REDIS}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with primary_running(log_min_duration_statement="0") as server:
        yield server


@pytest.fixture(scope="module")
async def datasets(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tracing") / "datasets.toml"
    file.write_text(DATASETS + BREAKS)
    await lay_out(postgres, SCHEMA + DIVIDES, file, LOGIN)
    return file


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as found:
        yield found


async def ask(service: Running, path: str, name: str, **headers: str) -> tuple[int, bytes]:
    """Status and what came of the body, also of one that broke off."""
    given = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": name, **headers}
    body = b""
    async with aiohttp.ClientSession(service.url, headers=given) as http, http.get(path) as answer:
        try:
            async for chunk in answer.content.iter_any():
                body += chunk
        except aiohttp.ClientPayloadError:
            body += b" [broken off]"
    return answer.status, body


async def span_of(collector: Collector, name: str) -> Span:
    async def is_there() -> bool:
        return bool(collector.of(name))

    await until(is_there, 30)
    [span] = collector.of(name)
    return span


def traced(
    postgres: PostgresServer, datasets: Path, collector: Collector, **settings: str
) -> Mapping[str, object]:
    given = {**QUICK, "FEEDSVC_TRACING__ENDPOINT": collector.url, **settings}
    return {"database_url": url_of(postgres), "datasets": datasets, "settings": given}


async def test_a_span_continues_the_callers_trace_and_is_named_to_postgresql(
    postgres: PostgresServer, datasets: Path, collector: Collector
) -> None:
    with serving(**traced(postgres, datasets, collector)) as service:  # type: ignore[arg-type]
        assert (await ask(service, PAGE, "a-page", **SAMPLED))[0] == 200
        span = await span_of(collector, "a-page")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.name == "GET /v1/feeds/{dataset}"
    assert span.status.code == Status.STATUS_CODE_UNSET
    log = (postgres.cluster.data.parent / "postgres.log").read_text()
    comment = rf"request_id='a-page',traceparent='00-{TRACE}-([0-9a-f]{{16}})-01'"
    reported = set(re.findall(comment, log))
    assert reported == {span.span_id.hex()}
    found = attributes(span)
    assert found["http.request.method"] == "GET"
    assert found["http.route"] == "/v1/feeds/{dataset}"
    assert found["http.response.status_code"] == 200
    assert found["url.scheme"] == "http"
    assert (found["server.address"], found["server.port"]) == ("127.0.0.1", service.port)
    assert (found["feedsvc.dataset"], found["feedsvc.rows"]) == ("things", 7)
    took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert took >= sum(v for k, v in found.items() if k == "feedsvc.stage.db")  # type: ignore[misc]
    [resource] = {
        each.value.string_value
        for export in collector.exports()
        for part in export.resource_spans
        for each in part.resource.attributes
        if each.key == "service.name"
    }
    assert resource == "feedsvc"


async def test_answers_from_memory_have_spans_of_their_own(
    postgres: PostgresServer, datasets: Path, collector: Collector
) -> None:
    given = traced(postgres, datasets, collector, OTEL_SERVICE_NAME="feeds-of-ours")
    with serving(**given) as service:  # type: ignore[arg-type]
        spans: list[Any] = []
        async with asyncio.timeout(60):  # until one is of memory, which waits for the change log
            while not spans or "feedsvc.stage.db" in attributes(spans[-1]):
                name = f"again-{len(spans)}"
                assert (await ask(service, "/v1/feeds/things?limit=3", name, **SAMPLED))[0] == 200
                spans.append(await span_of(collector, name))
    assert len({span.span_id for span in spans}) == len(spans) > 1
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in spans} == {(TRACE, SPAN)}
    assert b"feeds-of-ours" in collector.payloads[0]


async def test_failures_and_streams_that_break_off_are_errors_and_refusals_none(
    postgres: PostgresServer, datasets: Path, collector: Collector
) -> None:
    with serving(**traced(postgres, datasets, collector)) as service:  # type: ignore[arg-type]
        status, body = await ask(service, "/v1/feeds/breaks?format=ndjson", "broken", **SAMPLED)
        assert status == 200
        assert body.endswith(b"[broken off]")
        broken = await span_of(collector, "broken")
        assert (await ask(service, "/v1/feeds/none", "refused", **SAMPLED))[0] == 404
        refused = await span_of(collector, "refused")
    assert broken.status.code == Status.STATUS_CODE_ERROR
    assert attributes(broken)["http.response.status_code"] == 200
    assert attributes(broken)["error.type"] == attributes(broken)["feedsvc.problem"]
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert attributes(refused)["feedsvc.problem"] == "not-found"


async def test_no_secret_is_in_anything_that_is_exported(
    postgres: PostgresServer, datasets: Path, collector: Collector
) -> None:
    ticket, key = "r" + "Zq7_" * 13 + "abc", "98989898"
    with serving(**traced(postgres, datasets, collector)) as service:  # type: ignore[arg-type]
        paths = [PAGE.replace(SECRET, key), f"/v1/feeds/things/{key}", f"/nowhere/{key}",
                 f"/v1/feeds/{key}", f"/v1/feeds/things?ticket={ticket}",
                 f"/v1/feeds/things?id={key}&format=ndjson"]  # fmt: skip
        for index, path in enumerate(paths):
            await ask(service, path, f"hidden-{index}", **SAMPLED)
            await span_of(collector, f"hidden-{index}")
    payload = b"".join(collector.payloads)
    for secret in (TOKEN, TOKEN.split(".")[2], ticket, key, "SELECT", "app.things", "rosewood"):
        assert secret.encode() not in payload


async def test_a_parents_flag_decides_and_the_ratio_where_there_is_none(
    postgres: PostgresServer, datasets: Path, collector: Collector
) -> None:
    given = traced(postgres, datasets, collector, FEEDSVC_TRACING__SAMPLE="1")
    with serving(**given) as service:  # type: ignore[arg-type]
        for path in (PAGE, "/v1/feeds/things?limit=3", "/v1/feeds/things?limit=3"):
            await ask(service, path, "unsampled", **UNSAMPLED)
        await ask(service, "/v1/feeds/things?format=ndjson", "begun")
        begun = await span_of(collector, "begun")
    # Behind the service's end, which exports what waits.
    assert collector.of("unsampled") == []
    assert begun.parent_span_id == b""
    log = (postgres.cluster.data.parent / "postgres.log").read_text()
    traceparent = f"00-{begun.trace_id.hex()}-{begun.span_id.hex()}-01"
    assert f"request_id='begun',traceparent='{traceparent}'" in log


async def test_a_collector_that_never_answers_holds_up_neither_requests_nor_the_stop(
    postgres: PostgresServer, datasets: Path, collector: Collector
) -> None:
    collector.hangs = True
    # One batch is with the collector, two wait, and each further span drops one.
    given = traced(postgres, datasets, collector, OTEL_BSP_MAX_QUEUE_SIZE="4",
                   OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2", FEEDSVC_TRACING__TIMEOUT="2")  # fmt: skip
    with serving(**given) as service:  # type: ignore[arg-type]
        for n in range(30):
            assert (await ask(service, PAGE, f"held-{n}", **SAMPLED))[0] == 200

        async def has_dropped() -> bool:
            return any("Queue full" in line for line in service.log)

        await until(has_dropped, 30)
        assert collector.payloads, "it hangs with an export"
        service.terminate()
        await asyncio.to_thread(service.process.wait, 60)
        assert service.process.returncode == 0
        assert any("the last spans are lost" in line for line in service.log)
        assert any("drained" in line for line in service.log)


async def test_a_stop_exports_what_waits(
    postgres: PostgresServer, datasets: Path, collector: Collector
) -> None:
    # No export is due by itself within a day.
    given = traced(postgres, datasets, collector, OTEL_BSP_SCHEDULE_DELAY="86400000")
    with serving(**given, is_forked=False) as service:  # type: ignore[arg-type]
        await ask(service, PAGE, "last", **SAMPLED)
        assert collector.payloads == []
        service.terminate()
        await asyncio.to_thread(service.process.wait, 60)
    assert len(collector.of("last")) == 1
