"""One line in the log for each request, when it has ended."""

import logging
from typing import Final

from feedsvc import logs
from feedsvc.observations import Observation, RequestEnded

_LOGGER: Final = logging.getLogger("feedsvc.access")


class AccessLog:
    """Observes the ends of requests."""

    def observe(self, ended: Observation) -> None:
        """Adds the line. Nothing in it is anybody's: a route's pattern, no path and no address."""
        if not isinstance(ended, RequestEnded) or not _LOGGER.isEnabledFor(logging.INFO):
            return
        status = "gone" if ended.result == "cancelled" else ended.status
        took = f"{ended.seconds * 1e3:.1f}"
        message = f"{ended.method} {ended.route} {status} {took} ms {ended.request_id}"
        logs.add_line(logging.INFO, _LOGGER.name, ended.at, message, _fields(ended))


def _fields(ended: RequestEnded) -> dict[str, object]:
    return {
        "request_id": ended.request_id,
        "method": ended.method,
        "route": ended.route,
        "status": ended.status,
        "result": ended.result,
        "why": ended.why,
        "ms": round(ended.seconds * 1e3, 3),
        "first_byte_ms": None if ended.first_byte is None else round(ended.first_byte * 1e3, 3),
        "stages_ms": {stage: round(seconds * 1e3, 3) for stage, seconds in ended.stages.items()},
        "dataset": ended.dataset,
        "format": ended.format,
        "rows": ended.rows,
        "bytes": ended.size,
    }
