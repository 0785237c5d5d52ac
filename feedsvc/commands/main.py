"""The console command. A user's mistake is a line with its remedy, and exit status 1."""

from importlib.metadata import version
from typing import Annotated

import orjson
import typer

from feedsvc import settings
from feedsvc.commands import advise, check, migrate, serve, tokens
from feedsvc.commands.console import MISTAKES, ConfigOption, fail
from feedsvc.commands.demo import command as demo
from feedsvc.commands.monitor import command as monitor
from feedsvc.core import logs

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
cli.command()(serve.serve)
cli.command(hidden=True)(serve.worker)
cli.command()(demo.demo)
cli.command()(tokens.token)
cli.command()(monitor.monitor)
cli.command()(check.check)
cli.command()(advise.advise)
cli.add_typer(migrate.cli, name="migrate")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"feedsvc {version('feedsvc')}")
        raise typer.Exit


@cli.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Stream PostgreSQL's rows as JSON, CSV, NDJSON and server-sent events."""


@cli.command("config")
def show_config(config: ConfigOption = None) -> None:
    """Show the effective settings, secrets masked."""
    masked = settings.load(config).masked()
    typer.echo(orjson.dumps(masked, option=orjson.OPT_INDENT_2).decode())


def main() -> None:
    """Run the console script."""
    try:
        cli(prog_name="feedsvc")
    except MISTAKES as error:
        fail(str(error) or type(error).__name__)
    finally:
        logs.drop_unwritten()
