"""Many clients of one event stream in a process of their own, which discard what they get.

`python -m tests.performance.crowd PORT PATH COUNT [stalled]`: a line on standard output once all
have their beginning; it ends with its standard input.
"""

import os
import selectors
import socket
import sys
from contextlib import suppress

_BEGINNING = b"event: open"
_SMALL = 4_096


def connected(port: int, path: str, *, is_stalled: bool) -> socket.socket:
    """A client that has read its beginning."""
    client = socket.socket()
    if is_stalled:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    begun = b""
    while _BEGINNING not in begun:
        begun += (piece := client.recv(_SMALL))
        assert piece, begun
    client.setblocking(False)
    return client


def main() -> None:
    """Connect all of them, and read until the standard input ends."""
    port, path, count, is_stalled = sys.argv[1], sys.argv[2], sys.argv[3], len(sys.argv) > 4
    clients = [connected(int(port), path, is_stalled=is_stalled) for _ in range(int(count))]
    sys.stdout.write("all have begun\n")
    sys.stdout.flush()
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    for client in () if is_stalled else clients:
        waiting.register(client, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                return
            with suppress(BlockingIOError):
                if not os.read(key.fd, 1 << 20):
                    waiting.unregister(key.fileobj)


if __name__ == "__main__":
    main()
