"""`feedsvc serve`, and the hidden `feedsvc worker` that its supervisor starts."""

import logging
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from feedsvc import settings
from feedsvc.commands.console import MISTAKES, ConfigOption
from feedsvc.core import logs
from feedsvc.core.process import WorkerContext
from feedsvc.server.control import ControlLine
from feedsvc.server.serve import listening, serve_on
from feedsvc.server.signals import serve_as_worker


def serve(
    config: ConfigOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes on the port.")
    ] = None,
) -> None:
    """Serve the datasets of the PostgreSQL that the settings name."""
    effective = settings.load(config)
    logs.configure(effective.log.level, effective.log.format)
    for line in settings.warnings(config):
        logging.getLogger(__name__).warning("%s", line)
    server = effective.server
    with listening(effective, server.host, server.port) as listener:
        url = f"http://{server.host}:{listener.getsockname()[1]}"
        serve_on(effective, listener, workers, config, lambda: typer.echo(f"feedsvc serves {url}"))


def worker(
    listen_fd: Annotated[int, typer.Option()],
    control_fd: Annotated[int, typer.Option()],
    metrics_fd: Annotated[int | None, typer.Option()] = None,
    folder: Annotated[Path | None, typer.Option()] = None,
    slot: Annotated[int, typer.Option()] = 0,
    config: ConfigOption = None,
) -> None:
    """Serve on inherited sockets; the supervisor at the control line learns of a failed start."""
    metrics = None if metrics_fd is None else socket.socket(fileno=metrics_fd)
    context = WorkerContext(socket.socket(fileno=listen_fd), metrics, folder, slot)
    line = ControlLine(socket.socket(fileno=control_fd))
    try:
        effective = settings.load(config)
        logs.configure(effective.log.level, effective.log.format)
        serve_as_worker(effective, context, line)
    except MISTAKES as error:
        line.say(failed=str(error) or type(error).__name__)
        sys.exit(1)
