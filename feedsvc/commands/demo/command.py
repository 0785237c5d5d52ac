"""The options of `feedsvc demo`."""

from pathlib import Path
from typing import Annotated

import typer

from feedsvc.commands.console import ConfigOption
from feedsvc.core import logs


def demo(
    port: Annotated[
        int | None, typer.Option(help="Port; 8080, or any free one, by default.")
    ] = None,
    rows: Annotated[
        int, typer.Option(min=1, help="Number of clients of the first tenant.")
    ] = 20_000,
    seed: Annotated[
        int, typer.Option(help="Seed of the data; the same seed gives the same data.")
    ] = 1,
    ready_file: Annotated[
        Path | None, typer.Option(help="File to write when requests are answered.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes on the port.")] = 1,
    data: Annotated[Path | None, typer.Option(help="Directory of the servers' data.")] = None,
    config: ConfigOption = None,
) -> None:
    """Start a PostgreSQL and a Valkey of its own, fill in a wedding business, and serve it."""
    # Its servers and data are no other command's.
    from feedsvc.commands.demo.demo import Options, run_demo  # noqa: PLC0415

    logs.configure("WARNING")
    run_demo(Options(port, rows, seed, ready_file, workers, data, config))
