"""`feedsvc advise`: indexes and statistics that would make the workload cheaper, with proof."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import asyncpg
import typer

from feedsvc import settings
from feedsvc.backends.postgres.advice.create import create
from feedsvc.backends.postgres.advice.model import (
    Advice,
    Proposal,
    ProposalKind,
    StatementAdvice,
    WorkloadStatement,
)
from feedsvc.backends.postgres.advice.proposals import AdviceOptions, Workload, proposals
from feedsvc.backends.postgres.advice.reading import read_statement
from feedsvc.backends.postgres.advice.role_settings import setting_proposals
from feedsvc.backends.postgres.advice.upkeep import analyses
from feedsvc.backends.postgres.index_proof.catalogue import CatalogueError
from feedsvc.backends.postgres.migrations.index_progress import BuildProgress
from feedsvc.commands.advice_text import as_json, lines
from feedsvc.commands.advice_workload import AdvisedWorkload, WorkloadSources
from feedsvc.commands.console import ConfigOption, fail, login_of
from feedsvc.datasets.dataset import quote_identifier
from feedsvc.operations.performance.tracker import RANGES

_BEHIND: Final[Mapping[ProposalKind, int]] = {"index": 1, "setting": 2}
"""Places of proposals behind those that cost nothing."""


class AdviceFormat(StrEnum):
    """The forms of an advice."""

    text = "text"
    json = "json"


class AdviceRange(StrEnum):
    """The times over which figures are summed up."""

    hour = "1h"
    day = "24h"
    week = "7d"


class FailOn(StrEnum):
    """The proposals that make the command exit with 1."""

    never = "never"
    an_index = "index"
    anything = "any"


def advise(
    catalogue: Annotated[
        Path | None, typer.Option(help="Folder of .sql files with the queries to advise on.")
    ] = None,
    role: Annotated[
        str | None, typer.Option(help="Role of the catalogue's queries of feeds.")
    ] = None,
    report: Annotated[AdviceFormat, typer.Option(help="Form of the advice.")] = AdviceFormat.text,
    is_json: Annotated[bool, typer.Option("--json", help="The same as `--report json`.")] = False,
    fail_on: Annotated[FailOn, typer.Option(help="Exit 1 if there are these.")] = FailOn.never,
    span: Annotated[
        AdviceRange, typer.Option("--range", help="How far back the service's own figures count.")
    ] = AdviceRange.week,
    budget: Annotated[
        int | None, typer.Option(min=1, help="MiB that all proposed indexes may take.")
    ] = None,
    scratch: Annotated[
        str | None, typer.Option(help="Schema of the copy; `advise.scratch` if left out.")
    ] = None,
    make: Annotated[
        bool, typer.Option("--create", help="Make the proven indexes, and drop unused ones again.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Propose indexes for the queries that datasets allow, and for those that were run."""
    given = settings.load(config)
    url = (given.database.owner_url or given.database.url).get_secret_value()
    if not url:
        fail("MIGRATION_DATABASE_URL must be set, or DATABASE_URL")
    options = AdviceOptions(
        quote_identifier(scratch or given.advise.scratch),
        budget=None if budget is None else budget << 20,
    )
    sources = _sources(given, catalogue, role, span)
    try:
        workload, found, advice = asyncio.run(_advised(url, sources, options))
    except CatalogueError as error:
        fail(str(error))
    except asyncpg.InterfaceError:
        fail("the connection to PostgreSQL was lost")
    is_json = is_json or report is AdviceFormat.json
    for line in (as_json if is_json else lines)(advice, workload.repeated):
        typer.echo(line)
    if make:
        asyncio.run(_create(url, found, workload.statements))
    if fail_on is not FailOn.never and not found.is_tried:
        fail("no index could be tried, so that none is proposed: see `not seen`")
    kinds = {proposal.kind for proposal in advice.proposals}
    if (fail_on is FailOn.anything and kinds) or (fail_on is FailOn.an_index and "index" in kinds):
        raise typer.Exit(1)


def _sources(
    given: settings.Settings, catalogue: Path | None, role: str | None, span: AdviceRange
) -> WorkloadSources:
    return WorkloadSources(
        given.datasets.file if given.datasets.file.is_file() else None,
        catalogue,
        None if role is None else quote_identifier(role),
        RANGES[span.value][0],
        login_of(given.database.url.get_secret_value()),
    )


async def _advised(
    url: str, sources: WorkloadSources, options: AdviceOptions
) -> tuple[AdvisedWorkload, Workload, Advice]:
    connection = await _connected(url)
    try:
        workload = await sources.read(connection)
        read = [await read_statement(connection, each) for each in workload.statements]
        found = await proposals(connection, workload.statements, options)
        found = await _with_more(connection, read, found, sources.login)
        return workload, found, ranked(read, found, workload.lacking)
    finally:
        await connection.close(timeout=1.0)


async def _with_more(
    connection: asyncpg.Connection,
    read: Sequence[StatementAdvice],
    found: Workload,
    login: str | None,
) -> Workload:
    """The same with tables to be analyzed, and settings for what no proposed index helps."""
    helped = {name for proposal, design in found.proposals if design for name in proposal.helps}
    left = [each for each in read if each.statement.name not in helped]
    login = login or await connection.fetchval("SELECT session_user")
    settings = await setting_proposals(connection, left, login)
    more = ((each, None) for each in (*analyses(read), *settings))
    return replace(found, proposals=(*found.proposals, *more))


async def _connected(url: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(url, statement_cache_size=0)
    except OSError as error:
        fail(f"PostgreSQL of MIGRATION_DATABASE_URL, or DATABASE_URL, can't be reached: {error}")


def ranked(read: Sequence[StatementAdvice], found: Workload, lacking: Sequence[str]) -> Advice:
    """Statements by total time, each with the proposals that help it; indexes by what they save."""
    calls = {each.statement.name: max(each.statement.calls, 1) for each in read}

    def saved(each: Proposal) -> float:
        return sum(
            (before - each.cost_after[name]) * calls.get(name, 1)
            for name, before in each.cost_before.items()
            if name in each.helps
        )

    proposed = [proposal for proposal, _ in found.proposals]
    proposed.sort(key=lambda each: (_BEHIND.get(each.kind, 0), -saved(each)))
    with_proposals = [
        replace(each, proposals=tuple(p for p in proposed if each.statement.name in p.helps))
        for each in read
    ]
    with_proposals.sort(key=lambda each: (-each.statement.total_ms, -_cost(each)))
    unplanned = (f"{each.statement.name}: {each.unplanned}" for each in read if each.unplanned)
    return Advice(tuple(with_proposals), tuple(proposed), (*found.lacking, *unplanned, *lacking))


def _cost(each: StatementAdvice) -> float:
    return 0.0 if each.plan is None else each.plan.cost


async def _create(url: str, found: Workload, statements: Sequence[WorkloadStatement]) -> None:
    def progress(done: BuildProgress) -> None:
        part = f" {done.done * 100 // done.total} %" if done.total else ""
        typer.echo(f"  {done.phase}{part}", err=True)

    async for created in create(url, found, statements, progress):
        typer.echo(f"{created.statement}: {created.fault or 'made, and used'}", err=True)
