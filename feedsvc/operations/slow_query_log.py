"""A line in the log for each request whose query was slow."""

import logging
from functools import partial
from typing import Final

from feedsvc.core import logs
from feedsvc.core.events import QuerySlow

_LOGGER: Final = logging.getLogger("feedsvc.queries")


class SlowQueryLog:
    """Observes slow queries."""

    def observe(self, slow: QuerySlow) -> None:
        """Add a line, with the names of the request's parameters and no value of any."""
        if _LOGGER.isEnabledFor(logging.WARNING):
            logs.add_line(partial(_line, slow))


def _line(slow: QuerySlow) -> logs.Line:
    return logs.Line(
        at=slow.at,
        level=logging.WARNING,
        logger=_LOGGER.name,
        message="slow query",
        shown="slow query: %(dataset)s by %(source)s, %(ms)d ms, %(request_id)s",
        fields={
            "request_id": slow.request_id,
            "dataset": slow.dataset,
            "source": slow.source,
            "parameters": list(slow.parameters),
            "ms": round(slow.seconds * 1e3),
            "backend": slow.backend,
            **logs.traced(slow.trace),
        },
    )
