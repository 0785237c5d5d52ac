"""The extra `tracing`: nothing of it without an endpoint, and a clear word where it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from feedsvc.core.cause import trace_of
from feedsvc.operations.tracing import TracingExtraMissingError, spans_of
from feedsvc.settings import Tracing

ENDPOINT = "http://collector:4318"


def test_without_an_endpoint_nothing_is_imported_or_begun() -> None:
    assert spans_of(Tracing(), None) is None
    assert Tracing(sample=1).begun == 0.0
    # Others, such as redis-py, import OpenTelemetry's metrics where they find them.
    ours = {"feedsvc.operations.spans", "opentelemetry.sdk.trace", "opentelemetry.exporter"}
    asked = f"import sys, feedsvc.server.app; sys.exit(not {ours!r}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def test_an_endpoint_without_the_extra_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "feedsvc.operations.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(TracingExtraMissingError, match=r"pip install 'feedsvc\[tracing\]'"):
        spans_of(Tracing(endpoint=ENDPOINT), None)


def test_a_trace_begins_for_the_given_part_of_the_requests() -> None:
    assert trace_of(None, 0.0) is None
    begun_of_many = sum(trace_of(None, 0.25) is not None for _ in range(4_000))
    assert begun_of_many == pytest.approx(1_000, rel=0.25)
    begun = trace_of("malformed", 1.0)
    assert begun is not None
    assert (begun.parent, begun.is_sampled) == ("", True)
    assert begun.trace != begun.span
