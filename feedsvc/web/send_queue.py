"""Bytes that a client has not acknowledged."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios


def unacknowledged(transport: asyncio.WriteTransport) -> int:
    """Bytes of the kernel's send queue (tcp(7), SIOCOUTQ); 0 where it can't be asked.

    Without it a client that reads 1 KB/s looks stalled, for the kernel takes new bytes only when
    a third of its buffer is free.
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or sys.platform != "linux":
        return 0
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])


def outstanding(transport: asyncio.WriteTransport) -> int:
    """Bytes that the client has not acknowledged, in this process and in the kernel."""
    return transport.get_write_buffer_size() + unacknowledged(transport)
