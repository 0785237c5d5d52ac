"""A span for each request whose trace is sampled, exported by OpenTelemetry's SDK over OTLP.

Requests only fill a bounded queue. A thread of the SDK's sends what is in it, so a collector that
is slow or away delays none of them; what does not fit is dropped, with a line in the log.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from feedsvc.core.cause import Trace
from feedsvc.core.events import RequestEnded
from feedsvc.settings import Tracing

logger = logging.getLogger(__name__)

# Others are whatever a client has made up.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNROUTED: Final = "unknown"
_NAMELESS: Final = "unknown_service"  # how the SDK's name begins where nothing names the service
_NAME: Final = "service.name"
_NO_PARENT: Final = Context()


class _GivenIds(IdGenerator):
    """The ids that a request has already been known by, in SQL comments and in the log."""

    trace = ""
    span = ""

    def generate_trace_id(self) -> int:
        """The trace's id; asked for where it begins here."""
        return int(self.trace, 16)

    def generate_span_id(self) -> int:
        """The span's id."""
        return int(self.span, 16)


class _ToLoop(logging.Handler):
    """Passes what a thread logs on to the event loop, where lines are written."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on; at the very end there is no loop for it any more."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(logger.handle, record)


class Spans:
    """Observes the ends of requests."""

    def __init__(self, given: Tracing, listener: socket.socket | None) -> None:
        """`given` has an endpoint; `listener` is where the requests arrive."""
        self._given = given
        self._server = {} if listener is None else _address(listener)
        self._ids = _GivenIds()
        self._exporter: OTLPSpanExporter | None = None
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    async def open(self) -> None:
        """Start the thread that exports."""
        given, relay = self._given, _ToLoop(asyncio.get_running_loop())
        for name in ("opentelemetry", "urllib3"):
            of_the_thread = logging.getLogger(name)
            of_the_thread.handlers[:], of_the_thread.propagate = [relay], False
        self._exporter = OTLPSpanExporter(_traces(given.endpoint or ""), timeout=given.timeout)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is not sampled does not get so far
            resource=_resource(given.service_name),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("feedsvc")

    def observe(self, ended: RequestEnded) -> None:
        """Queue the request's span, where its trace is sampled."""
        trace = ended.trace
        if self._tracer is None or trace is None or not trace.is_sampled:
            return
        self._ids.trace, self._ids.span = trace.trace, trace.span
        method = ended.method if ended.method in _METHODS else "HTTP"
        end = int(ended.at * 1e9)
        span = self._tracer.start_span(
            method if ended.route == _UNROUTED else f"{method} {ended.route}",
            context=_context(trace),
            kind=SpanKind.SERVER,
            attributes={**self._server, **_attributes(ended)},
            start_time=end - int(ended.seconds * 1e9),
        )
        if ended.result == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    async def close(self) -> None:
        """Export what waits, for as long as `tracing.timeout` at most."""
        if self._provider is None or self._exporter is None:
            return
        provider = self._provider
        loop, is_done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed, for this took too long
                loop.call_soon_threadsafe(is_done.set)

        # Not asyncio's thread for such things, whose end the process would wait for.
        threading.Thread(target=shut_down, name="tracing's last export", daemon=True).start()
        try:
            async with asyncio.timeout(self._given.timeout):
                await is_done.wait()
        except TimeoutError:
            logger.warning("the collector took too long, so the last spans are lost")
            self._exporter.shutdown()


def _context(trace: Trace) -> Context:
    if not trace.parent:
        return _NO_PARENT
    sampled = TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(int(trace.trace, 16), int(trace.parent, 16), is_remote=True,
                         trace_flags=sampled)  # fmt: skip
    return set_span_in_context(NonRecordingSpan(parent), _NO_PARENT)


def _attributes(ended: RequestEnded) -> Mapping[str, AttributeValue]:
    """OpenTelemetry's names where it has any. No value that a client has sent but the id."""
    found: dict[str, AttributeValue | None] = {
        "http.request.method": ended.method if ended.method in _METHODS else "_OTHER",
        "http.route": None if ended.route == _UNROUTED else ended.route,
        # A client that left may have got a head or not; 499 is what the log has for it.
        "http.response.status_code": None if ended.result == "cancelled" else ended.status,
        "url.scheme": "http",  # of this hop: TLS ends before it
        "feedsvc.request_id": ended.request_id,
        "feedsvc.result": ended.result,
        "feedsvc.problem": ended.why,
        "feedsvc.dataset": ended.dataset,
        "feedsvc.format": ended.format,
        "feedsvc.rows": ended.rows,
        "feedsvc.bytes": ended.size,
        "feedsvc.source": ended.source,
    }
    if ended.result == "failed":
        found["error.type"] = ended.why or str(ended.status)
    for stage, seconds in ended.stages.items():
        found[f"feedsvc.stage.{stage}"] = seconds
    return {name: value for name, value in found.items() if value is not None}


def _address(listener: socket.socket) -> dict[str, AttributeValue]:
    """The address of the service as far as it is known: a wildcard is none."""
    host, port = listener.getsockname()[:2]
    known: dict[str, AttributeValue] = {"server.port": port}
    return known if host in {"0.0.0.0", "::"} else {"server.address": host, **known}  # noqa: S104


def _traces(endpoint: str) -> str:
    bare = urlsplit(endpoint).path in {"", "/"}
    return f"{endpoint.rstrip('/')}/v1/traces" if bare else endpoint


def _resource(name: str | None) -> Resource:
    """The service, as the settings or else OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say."""
    found = Resource.create()
    default = str(found.attributes.get(_NAME, _NAMELESS))
    named = name or ("feedsvc" if default.startswith(_NAMELESS) else default)
    return found.merge(Resource({_NAME: named}))
