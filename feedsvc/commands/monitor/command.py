"""The options of `feedsvc monitor`."""

import asyncio
import sys
from contextlib import suppress
from typing import Annotated

import typer

from feedsvc.commands.console import ConfigOption
from feedsvc.commands.tokens import operator_token


def monitor(
    url: Annotated[
        str, typer.Option(envvar="FEEDSVC_URL", help="The service's address.")
    ] = "http://127.0.0.1:8080",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="FEEDSVC_TOKEN",
            help="Operator's token; signed by the configured key by default.",
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.5, max=3_600, help="Seconds between two requests.")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    count: Annotated[
        int | None, typer.Option(min=1, help="Number of requests; unlimited by default.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Show a running service in the terminal, over its own endpoints, until Ctrl-C."""
    # rich is no other command's.
    from feedsvc.commands.monitor.monitor import MonitorOptions, export, show  # noqa: PLC0415

    address = url if "://" in url else f"http://{url}"
    options = MonitorOptions(address.rstrip("/"), token or operator_token(config), interval, count)
    run = export if as_json or not sys.stdout.isatty() else show
    with suppress(KeyboardInterrupt):
        if not asyncio.run(run(options)):
            raise typer.Exit(1)
