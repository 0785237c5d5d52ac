"""Free TCP ports of 127.0.0.1, asked of the kernel, never fixed."""

import socket
from collections.abc import Callable
from typing import TypeVar

from feedsvc.commands.demo.embedded.errors import EmbeddedError, PortTakenError

ATTEMPTS = 5

T = TypeVar("T")


def on_free_port(start: Callable[[int], T]) -> T:
    """Start something on a free port; on another one when a process was faster.

    Raises:
        EmbeddedError: every port that was found free was taken by the time of its use.
    """
    for _ in range(ATTEMPTS):
        try:
            return start(free_port())
        except PortTakenError:
            continue
    raise EmbeddedError(f"{ATTEMPTS} free ports in a row were taken by others: try again")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
