"""`feedsvc serve`: one process or several on one listening socket."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from logging import getLogger
from pathlib import Path

from feedsvc.app import StartError
from feedsvc.run import run
from feedsvc.settings import Settings
from feedsvc.web.server import listen
from feedsvc.worker_folder import worker_folder
from feedsvc.workers import Workers
from feedsvc.workplace import Workplace

logger = getLogger(__name__)


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
    with ExitStack() as stack:
        metrics = stack.enter_context(_listening_for_metrics(settings))
        folder = stack.enter_context(worker_folder())
        workplace = Workplace(listener, metrics, folder)
        if workers == 1:
            run(settings, workplace, on_ready)
            return
        command = [sys.executable, "-m", "feedsvc", "serve"]
        if config is not None:
            command.append(f"--config={config}")
        Workers(command, workers, workplace).run(on_ready)


@contextmanager
def _listening_for_metrics(settings: Settings) -> Iterator[socket.socket | None]:
    """Raises StartError."""
    host, port = settings.metrics.host, settings.metrics.port
    if port is None:
        yield None
        return
    try:
        listener = listen(host, port, settings.server)
    except OSError as error:
        what = f"metrics.port: can't listen on {host}:{port}: {error.strerror}; choose another"
        raise StartError(what) from None
    with listener:
        logger.info("metrics: for anyone at http://%s:%d/metrics", *listener.getsockname()[:2])
        yield listener
