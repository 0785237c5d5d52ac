"""`feedsvc serve`: one process or several on one listening socket."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from feedsvc.app import StartError
from feedsvc.run import run
from feedsvc.settings import Settings
from feedsvc.web.server import listen
from feedsvc.workers import Workers


@contextmanager
def listening(settings: Settings, host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket for as long as the block runs; port 0 is any free one.

    Raises StartError.
    """
    try:
        listener = listen(host, port, settings.server)
    except OSError as error:
        what = f"server.port: can't listen on {host}:{port}: {error.strerror}; choose another"
        raise StartError(what) from None
    with listener:
        yield listener


def serve_on(
    settings: Settings,
    listener: socket.socket,
    workers: int,
    config: Path | None,
    on_ready: Callable[[], None],
) -> None:
    """Serves until a signal; `on_ready` is called when requests are answered. Raises StartError."""
    if workers == 1:
        run(settings, listener, on_ready)
        return
    command = [sys.executable, "-m", "feedsvc", "serve"]
    if config is not None:
        command.append(f"--config={config}")
    Workers(command, workers, listener).run(on_ready)
