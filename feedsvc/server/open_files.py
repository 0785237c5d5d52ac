"""The limit of open files (RLIMIT_NOFILE), and how many connections of clients fit below it."""

import logging
import resource
from contextlib import suppress
from typing import Final

from feedsvc.settings import Server, Settings
from feedsvc.web.protocol.connection_policy import MOST_REFUSED

logger = logging.getLogger(__name__)

_LEAST: Final = 64  # connections of clients, without which there is no use in a start
_FILES: Final = (
    64  # libraries, logs, sockets that listen, and connections that are none of a pool's
)
_SERVERS: Final = 8  # of a Redis cluster or with sentinels
_SCRAPERS: Final = 32  # connections to the port of the metrics


class TooFewFilesError(Exception):
    """The process may open too few files to serve; the message is the reason."""


def raise_limit() -> int:
    """Raise the soft limit to the hard one, which many systems mean programs to do; the limit.

    Programs that call select(2) can't, and so the soft one is 1,024 nearly everywhere.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # where the hard one is without a limit, it may not do
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return hard
    return soft


def reserve(settings: Settings) -> int:
    """Descriptors that the service needs beside its clients' connections."""
    pools = settings.pools
    sizes = pools.read.size + pools.bulk.size + pools.analytics.size + pools.write.size
    databases = sizes * (1 + len(settings.database.replicas))
    redis = settings.redis.connections * _SERVERS
    return _FILES + databases + redis + MOST_REFUSED + _SCRAPERS


def bounded(settings: Settings, limit: int) -> Server:
    """The server's settings with as many connections as fit below the limit.

    One address gets half of them at most. Raises TooFewFilesError.
    """
    server, needed = settings.server, reserve(settings)
    if limit == resource.RLIM_INFINITY:
        return server
    most = limit - needed
    if most < _LEAST:
        raise TooFewFilesError(
            f"a process may open {limit} files, and this one needs {needed + _LEAST}:"
            " raise the limit (ulimit -n, LimitNOFILE=), or make the pools smaller"
        )
    connections = min(server.connections or most, most)
    of_one = min(server.connections_per_address, max(1, connections // 2))
    _warn("server.connections", server.connections, connections, limit)
    _warn("server.connections_per_address", server.connections_per_address, of_one, limit)
    given = {"connections": connections, "connections_per_address": of_one}
    return server.model_copy(update=given)


def for_metrics(server: Server) -> Server:
    """The settings of the port of the metrics, whose connections are counted by themselves."""
    return server.model_copy(update={"connections": _SCRAPERS})


def _warn(name: str, wanted: int | None, most: int, limit: int) -> None:
    if wanted is not None and most < wanted:
        logger.warning(
            "%s is %d here instead of %d, for a process may open %d files (ulimit -n)",
            *(name, most, wanted, limit),
        )
