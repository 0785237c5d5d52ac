"""`feedsvc migrate`: the lines of migrations, and the triggers of the datasets' tables."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import asyncpg
import typer

from feedsvc import settings
from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.migrations.lines import MigrationLine
from feedsvc.changes import triggers
from feedsvc.changes.log_plan import log_drift
from feedsvc.commands.console import ConfigOption, fail
from feedsvc.datasets.dataset import declarations

T = TypeVar("T")

cli = typer.Typer(no_args_is_help=True, help="Migrations: service (the default) or wedding.")


class LineName(StrEnum):
    """The lines of migrations."""

    service = "service"
    wedding = "wedding"


LineArgument = Annotated[LineName, typer.Argument(help="Line of migrations.")]


@cli.command()
def up(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Apply pending migrations."""
    after = asyncio.run(runner.up(_owner_url(config), _line(line)))
    typer.echo(f"{line}: at {after.current}")
    file = settings.load(config).datasets.file
    if line is LineName.service and file.is_file():
        _make_triggers(_owner_url(config), file)


@cli.command()
def down(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Revert all migrations."""
    if line is LineName.service:
        asyncio.run(_with_connection(_owner_url(config), triggers.remove))
    asyncio.run(runner.down(_owner_url(config), _line(line)))
    typer.echo(f"{line}: all migrations reverted")


@cli.command("status")
def show_status(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Show the database's revision and pending migrations."""
    now = asyncio.run(runner.status(_owner_url(config), _line(line)))
    typer.echo(f"{line}: at {now.current or 'no revision'}, head is {now.head}")
    for revision in now.pending:
        typer.echo(f"  pending: {revision}")


@cli.command()
def verify(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Check a migrated database; exit 1 on a finding."""
    findings = asyncio.run(runner.verify(_owner_url(config), _line(line)))
    file = settings.load(config).datasets.file
    if line is LineName.service and file.is_file():
        findings += asyncio.run(_with_connection(_owner_url(config), partial(_drift, file=file)))
    for finding in findings:
        typer.echo(f"{line}: {finding}")
    if findings:
        raise typer.Exit(1)
    typer.echo(f"{line}: no findings")


@cli.command("triggers")
def make_triggers(
    show: Annotated[bool, typer.Option("--print", help="Print the SQL and run nothing.")] = False,
    drop: Annotated[bool, typer.Option(help="Remove the triggers.")] = False,
    config: ConfigOption = None,
) -> None:
    """Install the triggers that notify of changes to the datasets' tables."""
    url, file = _owner_url(config), settings.load(config).datasets.file
    if show:
        plan = partial(triggers.plan, declared=declarations(file))
        typer.echo(asyncio.run(_with_connection(url, plan)).sql(), nl=False)
    elif drop:
        asyncio.run(_with_connection(url, triggers.remove))
        typer.echo("triggers: removed")
    else:
        _make_triggers(url, file)


async def _drift(connection: asyncpg.Connection, file: Path) -> list[str]:
    wanted = await triggers.plan(connection, declarations(file))
    notifying = await triggers.drifted(connection, wanted)
    logging = await log_drift(connection, wanted.log)
    found = [f"{name} is not cached: {why}" for name, why in notifying.items()]
    return found + [f"changes of {name} are not logged: {why}" for name, why in logging.items()]


def _make_triggers(url: str, file: Path) -> None:
    touched = asyncio.run(_with_connection(url, partial(triggers.install_for, file=file)))
    typer.echo(f"triggers: {', '.join(touched) or 'up to date'}")


async def _with_connection(url: str, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    connection = await asyncpg.connect(url)
    try:
        return await work(connection)
    finally:
        await connection.close(timeout=1.0)


def _owner_url(config: Path | None) -> str:
    """The URL of an owner's login: migrations make tables, which the service's own may not."""
    given = settings.load(config).database
    url = (given.owner_url or given.url).get_secret_value()
    if not url:
        fail("MIGRATION_DATABASE_URL must be set, or DATABASE_URL")
    return url


def _line(name: LineName) -> MigrationLine:
    return "service" if name is LineName.service else "wedding"
