"""From an address to a way there, with redis-py's own connections, sentinels and cluster."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from redis.asyncio import (
    Connection,
    RedisCluster,
    Sentinel,
    SentinelConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from feedsvc.backends.redis.cluster import ClusterPipelines
from feedsvc.backends.redis.pipeline import Pipeline
from feedsvc.backends.redis.transport import Transport
from feedsvc.settings.redis_url import RedisAddress

Connect: TypeAlias = Callable[[], AbstractConnection]

# RESP2, for RESP3 costs a round trip more and gives nothing that is used here. Nothing is retried:
# a late answer is of no use. redis-py names itself to the server by default, in two more trips.
_PLAIN: Final[dict[str, Any]] = {"protocol": 2, "driver_info": None}


def transport_factory(
    address: RedisAddress, connections: int, patience: float
) -> Callable[[], Transport]:
    """Make ways to this Redis, each with connections of its own.

    `patience` is the seconds that a step of connecting may take. Raises ValueError where the
    address's certificates are of no use.
    """
    if address.tls is not None:
        _refuse_bad_certificates(address.tls)
    match address.kind:
        case "cluster":
            return lambda: _to_cluster(address, connections, patience)
        case "sentinel":
            return lambda: _by_sentinels(address, connections, patience)
        case "socket":
            given = _given(address, patience)
            connect: Connect = partial(UnixDomainSocketConnection, path=address.path, **given)
        case "server":
            [(host, port)] = address.nodes
            connect = partial(_connector(address, patience), host, port)
    return lambda: Pipeline(connect, connections, patience)


def _refuse_bad_certificates(tls: dict[str, Any]) -> None:
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in tls and not os.access(tls[name], os.R_OK):
            raise ValueError(f"{name} names a file that can't be read: {tls[name]}")
    try:
        SSLConnection(**tls).ssl_context.get()
    except (OSError, ValueError) as error:
        raise ValueError(f"has TLS options that can't be used: {error}") from None


def _login(address: RedisAddress) -> dict[str, Any]:
    return {"username": address.username, "password": address.password}


def _given(address: RedisAddress, patience: float) -> dict[str, Any]:
    """A connection's settings. No answer has a deadline here: questions have theirs."""
    timeouts = {"socket_timeout": None, "socket_connect_timeout": patience}
    return {**_PLAIN, **_login(address), **timeouts, "db": address.db}


def _connector(address: RedisAddress, patience: float) -> Callable[[str, int], AbstractConnection]:
    """Make connections to a host's port."""
    given = _given(address, patience)
    if address.tls is None:
        return lambda host, port: Connection(host=host, port=port, **given)
    # Reading the machine's certificates blocks the loop for 20 ms: once is enough.
    shared = SSLConnection(**address.tls).ssl_context

    def connect(host: str, port: int) -> AbstractConnection:
        connection = SSLConnection(host=host, port=port, **given)
        connection.ssl_context = shared
        return connection

    return connect


def _by_sentinels(address: RedisAddress, connections: int, patience: float) -> Pipeline:
    tls = {} if address.tls is None else {"ssl": True, **address.tls}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        address.nodes,
        sentinel_kwargs={
            **_PLAIN,
            **tls,
            "username": address.sentinel_username,
            "password": address.sentinel_password,
            "socket_timeout": patience,
            "socket_connect_timeout": patience,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        address.service, sentinels, **_given(address, patience), **tls
    )
    return Pipeline(
        pool.make_connection,
        connections,
        # Each sentinel may be as good as dead.
        patience * (len(address.nodes) + 1),
        only_master=True,
        on_close=sentinels.aclose,
    )


def _to_cluster(address: RedisAddress, connections: int, patience: float) -> ClusterPipelines:
    connector = _connector(address, patience)
    client = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
        **_PLAIN,
        **_login(address),
        **({} if address.tls is None else {"ssl": True, **address.tls}),
        socket_timeout=patience,
        socket_connect_timeout=patience,
        retry=Retry(NoBackoff(), 0),
    )

    def lanes_to(host: str, port: int) -> Pipeline:
        return Pipeline(partial(connector, host, port), connections, patience)

    return ClusterPipelines(client, lanes_to)
