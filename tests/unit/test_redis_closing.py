"""Connections that take longer to close than they may."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from feedsvc.backends.redis.cluster import ClusterPipelines
from feedsvc.backends.redis.pipeline import Pipeline

if TYPE_CHECKING:
    from redis.asyncio import RedisCluster


class FrozenConnection:
    """A connection to a node that has stopped: it neither connects nor can be closed."""

    host, port = "127.0.0.1", 1

    async def connect(self) -> None:
        await asyncio.Event().wait()

    async def disconnect(self) -> None:
        await asyncio.Event().wait()

    def pack_command(self, *_: Any) -> list[bytes]:
        return []


class Client:
    """A cluster's client that knows one node, and how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def initialize(self) -> None: ...

    def get_node_from_key(self, _: Any) -> Any:
        return type("Node", (), {"name": "a", "host": "127.0.0.1", "port": 1})

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_frozen_node_leaves_no_connection_of_the_clusters_client() -> None:
    client, lanes = Client(), Pipeline(cast("Any", FrozenConnection), 1, 60.0)
    pipelines = ClusterPipelines(cast("RedisCluster", client), lambda _host, _port: lanes)
    await asyncio.sleep(0)
    answer = pipelines.send(("GET", "a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await pipelines.close()
    assert client.closed == 1
    answer.cancel()


async def test_a_frozen_master_leaves_no_connection_to_its_sentinels() -> None:
    closed = []

    async def close_sentinels() -> None:
        closed.append(True)

    pipeline = Pipeline(cast("Any", FrozenConnection), 1, 60.0, on_close=close_sentinels)
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await pipeline.close()
    assert closed == [True]
