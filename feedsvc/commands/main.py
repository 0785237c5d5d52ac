"""The console command. A user's mistake is a line with its remedy, and exit status 1."""

import asyncio
import logging
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final, NoReturn, TypeVar

import asyncpg
import orjson
import typer

from feedsvc import settings
from feedsvc.access.keys import KeyMissingError
from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres.migrations.errors import MigrationError
from feedsvc.backends.postgres.migrations.lines import MigrationLine
from feedsvc.changes import triggers
from feedsvc.commands.demo.embedded.errors import EmbeddedError
from feedsvc.commands.monitor.source import RefusedError
from feedsvc.core import logs
from feedsvc.core.problems import Unauthorized
from feedsvc.core.process import WorkerContext
from feedsvc.datasets.dataset import DatasetsError, declarations
from feedsvc.server.control import ControlLine
from feedsvc.server.preflight import StartError
from feedsvc.server.serve import listening, serve_on
from feedsvc.server.signals import serve_as_worker
from feedsvc.settings import SettingsError

T = TypeVar("T")

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
migrate_cli = typer.Typer(
    no_args_is_help=True, help="Migrations: service (the default) or wedding."
)
cli.add_typer(migrate_cli, name="migrate")

_MISTAKES: Final = (
    StartError,
    SettingsError,
    DatasetsError,
    KeyMissingError,
    EmbeddedError,
    MigrationError,
    RefusedError,
    asyncpg.PostgresError,
    OSError,
)
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_A_SHIFT: Final = 12 * 3_600.0  # seconds
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class RoleName(StrEnum):
    """The roles that a token can have."""

    member = "member"
    admin = "admin"


class LineName(StrEnum):
    """The lines of migrations."""

    service = "service"
    wedding = "wedding"


ConfigOption = Annotated[Path | None, typer.Option("--config", help="The settings file.")]
LineArgument = Annotated[LineName, typer.Argument(help="Line of migrations.")]


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


def main() -> None:
    """The console script."""
    try:
        cli(prog_name="feedsvc")
    except _MISTAKES as error:
        _fail(str(error) or type(error).__name__)


@cli.command()
def serve(
    config: ConfigOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes on the port.")
    ] = None,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    control_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    metrics_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
    slot: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Serve the datasets of the PostgreSQL that the settings name."""
    if listen_fd is not None and control_fd is not None:  # a worker of another feedsvc's
        metrics = None if metrics_fd is None else socket.socket(fileno=metrics_fd)
        workplace = WorkerContext(socket.socket(fileno=listen_fd), metrics, folder, slot)
        _be_worker(config, workplace, ControlLine(socket.socket(fileno=control_fd)))
        return
    effective = settings.load(config)
    logs.configure(effective.log.level, effective.log.format)
    for line in settings.warnings(config):
        logging.getLogger(__name__).warning("%s", line)
    server = effective.server
    with listening(effective, server.host, server.port) as listener:
        url = f"http://{server.host}:{listener.getsockname()[1]}"
        serve_on(effective, listener, workers, config, lambda: typer.echo(f"feedsvc serves {url}"))


@cli.command()
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
    from feedsvc.commands.demo.demo import Options, run_demo  # noqa: PLC0415 - as for migrations

    logs.configure("WARNING")
    run_demo(Options(port, rows, seed, ready_file, workers, data, config))


@cli.command()
def token(
    tenant: Annotated[str, typer.Option(help="Tenant whose rows the token may read.")],
    role: Annotated[RoleName, typer.Option(help="Role of its holder.")],
    client: Annotated[str | None, typer.Option(help="Narrow it to one client.")] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="Allow to operate the service, too.")
    ] = False,
    ttl: Annotated[str, typer.Option(help="Lifetime: 45s, 30m, 1h, 7d.")] = "1h",
    config: ConfigOption = None,
) -> None:
    """Sign a token with the configured key."""
    if operator and client is not None:
        _fail("--operator and --client exclude each other: an operator sees the whole service")
    lifetime = _seconds(ttl)
    tokens = Tokens(settings.load(config).auth)
    signed = tokens.sign(tenant, role.value, client, lifetime, operator=operator)
    try:
        tokens.verify(f"Bearer {signed}")
    except Unauthorized:
        _fail("--tenant and --client must be printable, not empty, and at most 256 long")
    typer.echo(signed)


@cli.command()
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
    from feedsvc.commands.monitor.monitor import MonitorOptions, export, show  # noqa: PLC0415 - as for migrations

    address = url if "://" in url else f"http://{url}"
    wish = MonitorOptions(address.rstrip("/"), token or _operator_token(config), interval, count)
    work = export if as_json or not sys.stdout.isatty() else show
    with suppress(KeyboardInterrupt):
        if not asyncio.run(work(wish)):
            raise typer.Exit(1)


@cli.command()
def check(
    tenant: Annotated[
        list[str] | None,
        typer.Option(help="Tenant whose rows of views are checked for duplicate keys."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check settings, datasets and database against each other; exit 1 on a mistake."""
    from feedsvc.commands.check import check as check_all  # noqa: PLC0415 - as for migrations

    if not check_all(config, tenant or (), typer.echo):
        raise typer.Exit(1)


@cli.command("config")
def show_config(config: ConfigOption = None) -> None:
    """Show the effective settings, secrets masked."""
    masked = settings.load(config).masked()
    typer.echo(orjson.dumps(masked, option=orjson.OPT_INDENT_2).decode())


@migrate_cli.command()
def up(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Apply pending migrations."""
    after = asyncio.run(_runner().up(_owner_url(config), _line(line)))
    typer.echo(f"{line}: at {after.current}")
    file = settings.load(config).datasets.file
    if line is LineName.service and file.is_file():
        _make_triggers(_owner_url(config), file)


@migrate_cli.command()
def down(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Revert all migrations."""
    if line is LineName.service:
        asyncio.run(_with_connection(_owner_url(config), triggers.remove))
    asyncio.run(_runner().down(_owner_url(config), _line(line)))
    typer.echo(f"{line}: nothing of it is left")


@migrate_cli.command("status")
def show_status(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Show the database's revision and pending migrations."""
    now = asyncio.run(_runner().status(_owner_url(config), _line(line)))
    typer.echo(f"{line}: at {now.current or 'nothing'}, head is {now.head}")
    for revision in now.pending:
        typer.echo(f"  pending: {revision}")


@migrate_cli.command()
def verify(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Check a migrated database; exit 1 on a finding."""
    findings = asyncio.run(_runner().verify(_owner_url(config), _line(line)))
    file = settings.load(config).datasets.file
    if line is LineName.service and file.is_file():
        look = partial(_drifted, file=file)
        drifted = asyncio.run(_with_connection(_owner_url(config), look))
        findings += [f"{name} is not cached: {why}" for name, why in drifted.items()]
    for finding in findings:
        typer.echo(f"{line}: {finding}")
    if findings:
        raise typer.Exit(1)
    typer.echo(f"{line}: all is well")


@migrate_cli.command("triggers")
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
        typer.echo("triggers: none of them is left")
    else:
        _make_triggers(url, file)


async def _drifted(connection: asyncpg.Connection, file: Path) -> dict[str, str]:
    wanted = await triggers.plan(connection, declarations(file))
    return await triggers.drifted(connection, wanted)


def _make_triggers(url: str, file: Path) -> None:
    touched = asyncio.run(_with_connection(url, partial(triggers.install_for, file=file)))
    typer.echo(f"triggers: {', '.join(touched) or 'as they should be'}")


async def _with_connection(url: str, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    connection = await asyncpg.connect(url)
    try:
        return await work(connection)
    finally:
        await connection.close(timeout=1.0)


def _runner() -> ModuleType:
    """Migrations, read in when they are asked for: half of all that a worker would import."""
    from feedsvc.backends.postgres.migrations import runner  # noqa: PLC0415

    return runner


def _owner_url(config: Path | None) -> str:
    """An owner's login: migrations make tables, which the service's own login may not."""
    given = settings.load(config).database
    url = (given.owner_url or given.url).get_secret_value()
    if not url:
        _fail("MIGRATION_DATABASE_URL must be set, or DATABASE_URL")
    return url


def _operator_token(config: Path | None) -> str:
    """A token for this machine's own service."""
    try:
        tokens = Tokens(settings.load(config).auth)
        return tokens.sign("monitor", "admin", None, _A_SHIFT, operator=True)
    except (KeyMissingError, SettingsError):
        _fail("--token is needed, or FEEDSVC_TOKEN: the settings have no key to sign one with")


def _line(name: LineName) -> MigrationLine:
    return "service" if name is LineName.service else "wedding"


def _seconds(duration: str) -> float:
    parts = _DURATION.fullmatch(duration)
    if parts is None:
        _fail(f"--ttl can't be {duration!r}: write a number and a unit, as in 45s, 30m, 1h, 7d")
    return float(int(parts[1]) * _UNITS[parts[2]])


def _be_worker(config: Path | None, workplace: WorkerContext, line: ControlLine) -> None:
    """Whoever started it hears why it can't begin, and says so once for all workers."""
    try:
        effective = settings.load(config)
        logs.configure(effective.log.level, effective.log.format)
        serve_as_worker(effective, workplace, line)
    except _MISTAKES as error:
        line.say(failed=str(error) or type(error).__name__)
        sys.exit(1)


def _fail(message: str) -> NoReturn:
    for handler in logging.getLogger().handlers:
        handler.flush()  # the reason of an end stands last
    for line in message.splitlines():
        typer.echo(f"feedsvc: {line}", err=True)
    sys.exit(1)
