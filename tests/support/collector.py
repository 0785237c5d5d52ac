"""A collector of OpenTelemetry's spans: OTLP over HTTP, on a socket of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.http_server import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

Value = str | int | float


@dataclass
class Collector:
    """Keeps every payload; one that hangs answers none of them."""

    url: str = ""
    hangs: bool = False
    payloads: list[bytes] = field(default_factory=list)

    def exports(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(payload) for payload in self.payloads]

    def spans(self) -> list[Span]:
        return [
            span
            for export in self.exports()
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of(self, request: str) -> list[Span]:
        """The spans of the request that has this id."""
        return [s for s in self.spans() if attributes(s)["feedsvc.request_id"] == request]

    async def receive(self, request: web.Request) -> web.Response:
        self.payloads.append(await request.read())
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


def attributes(span: Span) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        assert kind is not None
        found[each.key] = getattr(each.value, kind)
    return found


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """One, on a free port."""
    collector = Collector()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/traces", collector.receive)
    async with listening(app) as url:
        collector.url = url
        yield collector
