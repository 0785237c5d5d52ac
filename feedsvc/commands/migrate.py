"""`feedsvc migrate`: the lines of migrations, and the triggers of the datasets' tables."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Final, TypeVar

import asyncpg
import typer

from feedsvc import settings
from feedsvc.backends.postgres.index_proof.proof import ProofSession
from feedsvc.backends.postgres.index_proof.report import ProofReport, prove_line, prove_tables
from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.migrations.lines import TERRITORIES, MigrationLine
from feedsvc.changes import triggers
from feedsvc.changes.log_plan import log_drift
from feedsvc.commands import proof_text
from feedsvc.commands.console import ConfigOption, fail, login_of
from feedsvc.commands.dataset_catalogue import dataset_queries
from feedsvc.commands.migrate_screen import migration_screen
from feedsvc.datasets.dataset import Declaration, declarations, quote_identifier
from feedsvc.datasets.resolution import resolved

T = TypeVar("T")

cli = typer.Typer(no_args_is_help=True, help="Migrations: service (the default) or wedding.")


_WEDDING: Final = TERRITORIES["wedding"]
# An index of a large table takes its time, and the process that waits has nothing else to do.
_WAIT_SECONDS: Final = 3600.0


class LineName(StrEnum):
    """The lines of migrations."""

    service = "service"
    wedding = "wedding"


_FORMS: Final[dict[str, Callable[[ProofReport], str]]] = {
    "text": lambda report: "\n".join(proof_text.lines(report)),
    "json": proof_text.as_json,
    "html": proof_text.as_html,
}

LineArgument = Annotated[LineName, typer.Argument(help="Line of migrations.")]


WaitOption = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for another process that migrates.")
]


@cli.command()
def up(
    line: LineArgument = LineName.service,
    plan: Annotated[bool, typer.Option(help="Show what would run, and run nothing.")] = False,
    wait: WaitOption = _WAIT_SECONDS,
    config: ConfigOption = None,
) -> None:
    """Apply pending migrations."""
    url = _owner_url(config)
    if plan:
        _show_plan(line, asyncio.run(runner.planned(url, _line(line))))
        return
    with migration_screen() as watch:
        after = asyncio.run(runner.up(url, _line(line), wait=wait, watch=watch))
    typer.echo(f"{line}: at {after.current}")
    file = settings.load(config).datasets.file
    if line is LineName.service and file.is_file():
        _make_triggers(url, file)


def _show_plan(line: LineName, steps: Sequence[runner.PlannedStep]) -> None:
    if not steps:
        typer.echo(f"{line}: nothing is pending")
    for step in steps:
        about = ""
        if step.table is not None:
            size = "of unknown size" if step.size is None else f"about {_in_words(step.size)}"
            about = f": an index of {step.table}, {size}"
        typer.echo(f"{step.title}{about}")
    total = sum(step.size or 0 for step in steps)
    if total:
        typer.echo(f"{len(steps)} steps, indexes of about {_in_words(total)}")


def _in_words(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{-(-size // 2**10)} KiB"


@cli.command()
def down(
    line: LineArgument = LineName.service,
    to: Annotated[
        str | None, typer.Option(help="Revision to stay at; without it all are reverted.")
    ] = None,
    wait: WaitOption = _WAIT_SECONDS,
    config: ConfigOption = None,
) -> None:
    """Revert migrations, all of them by default."""
    if line is LineName.service and to is None:
        asyncio.run(_with_connection(_owner_url(config), triggers.remove))
    with migration_screen() as watch:
        work = runner.down(_owner_url(config), _line(line), to=to, wait=wait, watch=watch)
        after = asyncio.run(work)
    at = "all migrations reverted" if after.current is None else f"at {after.current}"
    typer.echo(f"{line}: {at}")


@cli.command("status")
def show_status(line: LineArgument = LineName.service, config: ConfigOption = None) -> None:
    """Show the database's revision and pending migrations."""
    now = asyncio.run(runner.status(_owner_url(config), _line(line)))
    typer.echo(f"{line}: at {now.current or 'no revision'}, head is {now.head}")
    for revision in now.pending:
        typer.echo(f"  pending: {revision}")


class ReportFormat(StrEnum):
    """The forms of a proof."""

    text = "text"
    json = "json"
    html = "html"


@cli.command()
def verify(
    line: LineArgument = LineName.service,
    report: Annotated[
        ReportFormat | None,
        typer.Option(help="Write the whole proof of the indexes, in this form."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for the proof.")] = None,
    config: ConfigOption = None,
) -> None:
    """Check a migrated database and its indexes; exit 1 on a finding."""
    url, file = _owner_url(config), settings.load(config).datasets.file
    findings = asyncio.run(runner.verify(url, _line(line)))
    if line is LineName.service and file.is_file():
        findings += asyncio.run(_with_connection(url, partial(_drift, file=file)))
    proof: ProofReport | None = None
    if not findings and line is LineName.wedding:
        proof = asyncio.run(_with_connection(url, partial(prove_line, territory=_WEDDING)))
    elif not findings and file.is_file():
        login = login_of(settings.load(config).database.url.get_secret_value())
        work = partial(_prove_datasets, file=file, login=login)
        proof = asyncio.run(_with_connection(url, work))
    if proof is not None:
        findings += proof.findings
        if report is not None:
            _write(_FORMS[report](proof), output)
    if report is None:
        for finding in findings:
            typer.echo(f"{line}: {finding}")
    if findings:
        raise typer.Exit(1)
    if report is None:
        typer.echo(f"{line}: no findings")


async def _prove_datasets(
    connection: asyncpg.Connection, file: Path, login: str | None
) -> ProofReport:
    """Prove the indexes of the datasets' tables, by queries that the service's login makes."""
    declared, _ = await resolved(connection, declarations(file))
    there = {
        name: each
        for name, each in declared.items()
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", _relation(each))
    }
    may = "SELECT pg_has_role(rolname, 'MEMBER') FROM pg_roles WHERE rolname = $1"
    role = quote_identifier(login) if login and await connection.fetchval(may, login) else None
    session = ProofSession(
        connection, role, {"feedsvc.tenant": "", "feedsvc.client": ""}, run=False
    )
    tables = {".".join(each.relation_parts()) for each in there.values()}
    return await prove_tables(session, list(dataset_queries(there)), tables)


def _relation(declaration: Declaration) -> str:
    return ".".join(quote_identifier(part) for part in declaration.relation_parts())


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        output.write_text(text, encoding="utf-8")


@cli.command("triggers")
def make_triggers(
    show: Annotated[bool, typer.Option("--print", help="Print the SQL and run nothing.")] = False,
    drop: Annotated[bool, typer.Option(help="Remove the triggers.")] = False,
    config: ConfigOption = None,
) -> None:
    """Install the triggers that write the change log, on the datasets' tables."""
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
    unlogged = await log_drift(connection, wanted.log)
    return [f"changes of {name} are not logged: {why}" for name, why in unlogged.items()]


def _make_triggers(url: str, file: Path) -> None:
    try:
        touched = asyncio.run(_with_connection(url, partial(triggers.install_for, file=file)))
    except triggers.NoLogError as error:
        fail(str(error))
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
