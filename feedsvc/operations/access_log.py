"""One line in the log for each request, when it has ended."""

import logging
from functools import partial
from typing import Final

from feedsvc.core import logs
from feedsvc.core.events import RequestEnded

_LOGGER: Final = logging.getLogger("feedsvc.access")
_SHOWN: Final = "%(method)s %(route)s %(status)d %(result)s %(us)d us %(request_id)s"


class AccessLog:
    """Observes the ends of requests."""

    def observe(self, ended: RequestEnded) -> None:
        """Add the line, which has no path, address or id: a route's pattern instead."""
        if _LOGGER.isEnabledFor(logging.INFO):
            logs.add_line(partial(_line, ended))


def _line(ended: RequestEnded) -> logs.Line:
    took = int(ended.seconds * 1e6)
    return logs.Line(
        at=ended.at,
        level=logging.INFO,
        logger=_LOGGER.name,
        message="request",
        shown=_SHOWN if ended.reason is None else f"{_SHOWN}: %(reason)s",
        fields={
            "request_id": ended.request_id,
            "method": ended.method,
            "route": ended.route,
            "status": ended.status,
            "result": ended.result,
            "why": ended.why,
            **({} if ended.reason is None else {"reason": ended.reason}),
            "us": took,
            "first_byte_us": None if ended.first_byte is None else int(ended.first_byte * 1e6),
            "stages_us": {stage: int(seconds * 1e6) for stage, seconds in ended.stages.items()},
            "dataset": ended.dataset,
            "format": ended.format,
            "rows": ended.rows,
            "bytes": ended.size,
            "source": ended.source,
            **logs.traced(ended.trace),
        },
    )
