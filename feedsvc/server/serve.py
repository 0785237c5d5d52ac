"""`feedsvc serve`: one process or several on one listening socket."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from logging import getLogger
from pathlib import Path

from feedsvc.core.process import WorkerContext
from feedsvc.server.preflight import StartError
from feedsvc.server.shared_folder import worker_folder
from feedsvc.server.signals import serve_alone, serve_with_workers
from feedsvc.server.supervisor import WorkerPlan
from feedsvc.settings import Settings
from feedsvc.web.application import listen
from streams import encoder

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
    workers: int | None,
    config: Path | None,
    on_ready: Callable[[], None],
) -> None:
    """Serve until a signal; `on_ready` is called when requests are answered. Raises StartError.

    `workers` None is what the settings say, also after they have changed.
    """
    if encoder.MISSING is not None:
        logger.warning(
            "there is no native encoder (%s), so PostgreSQL itself encodes: right, but slower;"
            " install feedsvc where there is a C compiler",
            encoder.MISSING,
        )
    with ExitStack() as stack:
        metrics = stack.enter_context(_listening_for_metrics(settings))
        folder = stack.enter_context(worker_folder())
        workplace = WorkerContext(listener, metrics, folder)
        command = [sys.executable, "-m", "feedsvc", "worker"]
        if config is not None:
            command.append(f"--config={config}")
        plan = WorkerPlan(command, config, workers)
        if (workers or settings.server.workers) == 1:
            serve_alone(_for_one(settings), workplace, plan, on_ready)
        else:
            serve_with_workers(workplace, plan, on_ready)


def _for_one(settings: Settings) -> Settings:
    """The settings of a process that has no others beside it, whatever the file has."""
    server = settings.server.model_copy(update={"workers": 1})
    return settings.model_copy(update={"server": server})


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
