"""The interface of every connection to a Redis."""

import asyncio
from typing import Any, Protocol, TypeAlias

Command: TypeAlias = tuple[str | bytes | int, ...]
"""A command with its arguments, as Redis's documentation writes them: `("GET", "key")`."""


class Transport(Protocol):
    """Carry commands to a Redis and its answers back, without a deadline and without retries.

    What is made of the answer to which command is the same for all: bytes, integers, None, lists.
    """

    def send(self, command: Command) -> asyncio.Future[Any]:
        """The answer to come. An error that Redis answers is its ResponseError; where there will
        be no answer, the exception has the reason.
        """
        ...

    async def ping(self) -> None:
        """Return once all of it answers; connect for that. Raises RedisError, OSError."""
        ...

    async def close(self) -> None:
        """Close every connection. What still waits may wait for ever."""
        ...


def settle(answer: asyncio.Future[Any], outcome: Any) -> None:
    """Give the answer, an exception too, to its future, unless that was cancelled."""
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
