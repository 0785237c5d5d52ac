"""TCP ports of 127.0.0.1 for servers that have to be given theirs before they start."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port(port: int = 0) -> Iterator[int]:
    """A port that no other program gets while the block runs, and its server again and again.

    It is this one, of a server that has just ended, or any that is free.

    A socket is bound to it that never listens. Beside it a server can, for both allow the other
    by SO_REUSEADDR, as PostgreSQL, Redis, HAProxy, PgBouncer and asyncio do; and Linux gives a
    port that a socket has neither to one that asks for any port nor to one that connects.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        found: int = holder.getsockname()[1]
        yield found
