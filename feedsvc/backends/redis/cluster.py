"""A Redis Cluster: redis-py knows which node has which slot, and follows what has moved.

Questions themselves go over lanes to each node, as to a single server: redis-py's own way from a
question to its node takes many turns of the loop, and a turn is long when the loop is busy.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import AskError, NoPermissionError, TryAgainError

from feedsvc.backends.redis.pipeline import Pipeline
from feedsvc.backends.redis.transport import Command, settle


class ClusterPipelines:
    """Lanes to each primary. A command's keys must be of one slot: give them one hash tag."""

    def __init__(self, client: RedisCluster, lanes_to: Callable[[str, int], Pipeline]) -> None:
        self._client = client
        self._lanes_to = lanes_to
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, Pipeline] = {}
        self._learning: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[None]] = set()
        self._learn()

    def send(self, command: Command) -> asyncio.Future[Any]:
        """See `feedsvc.backends.redis.transport.Transport`."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._learning is None:
            self._send(command, answer)
        else:
            self._learning.add_done_callback(lambda _: self._send(command, answer))
        return answer

    async def ping(self) -> None:
        """See `feedsvc.backends.redis.transport.Transport`.

        Every primary must answer, for each has its keys, and the cluster must hold together.
        """
        await self._client.initialize()
        await asyncio.gather(*(self._at(node).ping() for node in self._client.get_primaries()))
        try:
            await self.send(("EXISTS", "feedsvc"))
        except NoPermissionError:
            return  # an answer, too

    async def close(self) -> None:
        """See `feedsvc.backends.redis.transport.Transport`."""
        tasks = [*self._following, *([self._learning] if self._learning else [])]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(lanes.close() for lanes in self._lanes.values()))
        finally:
            # Also where a frozen node has used up the time: the client's own connections to the
            # others would stay open. Each has `socket_connect_timeout` to close.
            await self._client.aclose()

    def _learn(self) -> None:
        """Ask for the slots, while commands wait. Each of them fails by itself."""
        self._learning = asyncio.create_task(self._know())
        self._learning.add_done_callback(self._known)

    async def _know(self) -> None:
        await self._client.initialize()

    def _known(self, learning: "asyncio.Task[None]") -> None:
        if not learning.cancelled():
            learning.exception()
        self._learning = None

    def _send(self, command: Command, answer: asyncio.Future[Any]) -> None:
        if answer.done():
            return  # given up meanwhile
        try:
            node = self._client.get_node_from_key(_key(command))
            reply = self._at(node).send(command)
        except Exception as error:  # noqa: BLE001 - no known node has it
            settle(answer, error)
        else:
            reply.add_done_callback(partial(self._answered, command, answer))

    def _answered(
        self, command: Command, answer: asyncio.Future[Any], reply: asyncio.Future[Any]
    ) -> None:
        error = reply.exception()
        if isinstance(error, AskError | TryAgainError):  # also one that says MOVED
            following = asyncio.create_task(self._follow(command, answer))
            self._following.add(following)
            following.add_done_callback(self._following.discard)
        else:
            settle(answer, error or reply.result())

    async def _follow(self, command: Command, answer: asyncio.Future[Any]) -> None:
        """Ask as redis-py does, which finds the key wherever it is now, and remember it."""
        try:
            settle(answer, await self._client.execute_command(*command))
        except Exception as error:  # noqa: BLE001 - it is the answer's
            settle(answer, error)

    def _at(self, node: ClusterNode | None) -> Pipeline:
        if node is None:
            raise LookupError("no node")
        lanes = self._lanes.get(node.name)
        if lanes is None:
            lanes = self._lanes[node.name] = self._lanes_to(node.host, int(node.port))
        return lanes


def _key(command: Command) -> Any:
    """The key of a command that has one, or several of one slot."""
    return command[3] if command[0] == "EVAL" else command[1]
