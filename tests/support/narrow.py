"""Clients that take little: kernels and aiohttp hold less of an answer than a feed has."""

import socket
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohappyeyeballs import AddrInfoType

_BYTES: Final = 8_192


def narrow_sockets(takes: int = _BYTES) -> Callable[[AddrInfoType], socket.socket]:
    """A factory of a connector's sockets, of whose answers the kernel takes so many bytes.

    By default a kernel takes the more, up to megabytes, the faster its program reads at first.
    """

    def make(address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        return made

    return make


def narrow_session(url: str) -> aiohttp.ClientSession:
    """A session that reads on when it is asked to. For a service with as small a `send_buffer`."""
    connector = aiohttp.TCPConnector(socket_factory=narrow_sockets())
    return aiohttp.ClientSession(url, connector=connector, read_bufsize=1_024)
