"""Tracing where it is asked for: the packages of the extra are imported then, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from feedsvc.operations.spans import Spans
    from feedsvc.settings import Tracing


class TracingExtraMissingError(Exception):
    """Tracing is asked for, and its packages are not installed."""


def spans_of(given: Tracing, listener: socket.socket | None) -> Spans | None:
    """The observer that exports spans, not open yet; None where there is no `tracing.endpoint`.

    Raises TracingExtraMissingError.
    """
    if given.endpoint is None:
        return None
    try:
        from feedsvc.operations.spans import Spans  # noqa: PLC0415
    except ImportError as error:
        raise TracingExtraMissingError(
            f"tracing.endpoint: spans need {error.name or 'OpenTelemetry'}, which is not installed:"
            " pip install 'feedsvc[tracing]', or leave the endpoint out"
        ) from None
    return Spans(given, listener)
