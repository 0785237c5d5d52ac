"""`feedsvc check`: settings, datasets, alerts and database checked against each other."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import asyncpg
import typer

from feedsvc import settings
from feedsvc.access.jwks import JwksError
from feedsvc.access.keys import KeyMissingError
from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres import pool
from feedsvc.backends.postgres.login import LOGIN_PLACE
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.changes import triggers
from feedsvc.changes.log_plan import REMEDY
from feedsvc.changes.refresh_findings import refresh_findings
from feedsvc.commands.console import ConfigOption
from feedsvc.core.finding import Finding, report
from feedsvc.datasets import checks as preflight
from feedsvc.datasets import dataset
from feedsvc.datasets.dataset import Dataset, Declaration
from feedsvc.datasets.key_sample import key_findings, some_tenants, views_among
from feedsvc.datasets.login_sql import login_sql
from feedsvc.datasets.resolution import resolved
from feedsvc.feeds.delta_findings import delta_findings
from feedsvc.operations.alerts.rules import AlertsError, KnownNames
from feedsvc.operations.alerts.rules import load as load_alerts
from feedsvc.operations.health.checks import checks_of
from feedsvc.operations.tracing import TracingExtraMissingError, spans_of
from feedsvc.settings import Health, Pools, Settings, SettingsError
from feedsvc.web.application import patterns

_BEGINNING: Final = """\
there is neither config/feedsvc.toml nor a datasets file here. To begin, set the database and a key,
write a dataset for a table, and check again:

  export DATABASE_URL=postgresql://feeds:secret@localhost/app   # a login that owns nothing
  export FEEDSVC_AUTH__KEY=$(openssl rand -hex 32)              # signs tokens
  cat > datasets.toml <<'END'
  [customers]
  relation = "customers"   # a table or view; its key is the primary key, or key = [...]
  tenant = "account_id"    # the column with the tenant, or: shared = true
  END
  feedsvc check"""

_NO_LOG: Final = f"not cached: {triggers.NO_LOG}"
_NO_TRIGGERS: Final = f"not cached, for some changes have no trigger: {REMEDY}"


@dataclass(slots=True)
class CheckReport:
    """Mistakes of files, settings under former names, findings about the database, and statements
    that make a better login.
    """

    mistakes: list[str] = field(default_factory=list)
    renamed: Sequence[str] = ()
    findings: list[Finding] = field(default_factory=list)
    login: Sequence[str] = ()
    served: int = 0

    @property
    def is_wrong(self) -> bool:
        """Return whether the service would refuse to start."""
        return bool(self.mistakes) or any(f.severity == "error" for f in self.findings)


def check(
    tenant: Annotated[
        list[str] | None,
        typer.Option(help="Tenant whose rows of views are checked for duplicate keys."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check settings, datasets and database against each other; exit 1 on a mistake."""
    if not write_report(config, tenant or (), typer.echo):
        raise typer.Exit(1)


def write_report(config: Path | None, tenants: Sequence[str], echo: Callable[[str], None]) -> bool:
    """Write mistakes to standard error, findings to `echo`; whether the service would start."""
    if _is_empty(config):
        print(f"feedsvc: {_BEGINNING}", file=sys.stderr)
        return False
    file, _ = settings.named_files(config)
    result = _result(config, tenants)
    for mistake in result.mistakes:
        for line in mistake.splitlines():
            print(f"feedsvc: {line}", file=sys.stderr)
    for line in result.renamed:
        echo(f"warning: {line}")
    for line in report(result.findings):
        echo(line if line.startswith(" ") else f"{file}: {line}")
    if result.login:
        echo("Statements for a superuser that make a login for the service in this database:")
        for statement in result.login:
            echo(f"  {statement};")
    if not result.is_wrong:
        served = "1 dataset" if result.served == 1 else f"{result.served} datasets"
        echo(f"{served} can be served")
    return not result.is_wrong


def _is_empty(config: Path | None) -> bool:
    try:
        nothing = settings.settings_file(config) is None
    except SettingsError:
        return False
    return nothing and not settings.named_files(config)[0].exists()


def _result(config: Path | None, tenants: Sequence[str]) -> CheckReport:
    result = CheckReport()
    effective: Settings | None = None
    try:
        effective = settings.load(config)
        result.renamed = settings.warnings(config)
    except SettingsError as error:
        result.mistakes.append(str(error))
    file, alerts = settings.named_files(config)
    declared, mistakes = dataset.read(file)
    result.mistakes += mistakes
    result.mistakes += _alert_mistakes(alerts, effective, declared, whole=not mistakes)
    if effective is not None:
        asyncio.run(_ask(effective, declared, tenants, result))
    return result


def _alert_mistakes(
    file: Path | None, effective: Settings | None, declared: Collection[str], *, whole: bool
) -> list[str]:
    """Mistakes of the alerts file, except for names that other files' mistakes leave unknown."""
    if file is None:
        return []
    checks = [each.name for each in checks_of(effective.health if effective else Health())]
    try:
        load_alerts(file, KnownNames(declared, patterns(), Pools.model_fields, checks))
    except AlertsError as error:
        unknown = [".dataset: there is no"] * (not whole)
        unknown += [".check: there is no"] * (effective is None)
        lines = str(error).splitlines()
        return [line for line in lines if not any(name in line for name in unknown)]
    return []


async def _ask(
    effective: Settings,
    declared: Mapping[str, Declaration],
    tenants: Sequence[str],
    result: CheckReport,
) -> None:
    """Ask the issuer, the database and its standbys."""
    try:
        tokens = Tokens(effective.auth)
        if tokens.published is not None:
            await tokens.published.fetch()
    except (KeyMissingError, JwksError) as error:
        result.mistakes.append(str(error))
    try:
        spans_of(effective.tracing, None)
    except TracingExtraMissingError as error:
        result.mistakes.append(str(error))
    if not effective.database.url.get_secret_value():
        result.mistakes.append("database.url must be set, or DATABASE_URL")
        return
    try:
        connection = await pool.connect(effective.database, application_name="feedsvc check")
    except (OSError, asyncpg.PostgresError, ValueError) as error:
        why = str(error) or type(error).__name__
        result.mistakes.append(f"database.url: the database does not answer: {why}")
        return
    try:
        await _ask_database(connection, effective, declared, tenants, result)
    finally:
        await connection.close(timeout=1.0)
    result.findings += await _replica_findings(effective)


async def _ask_database(
    connection: asyncpg.Connection,
    effective: Settings,
    declared: Mapping[str, Declaration],
    tenants: Sequence[str],
    result: CheckReport,
) -> None:
    if unusable := await preflight.session_findings(connection, effective):
        result.findings = unusable
        return
    complete, result.findings = await resolved(connection, declared)
    served, found = await preflight.inspected(connection, effective, complete)
    result.findings += found
    result.served = len(served)
    cached = {name: complete[name] for name in served}
    for name, why in (await triggers.untracked(connection, cached)).items():
        kind = _NO_TRIGGERS if why.endswith(REMEDY) else _NO_LOG if why == triggers.NO_LOG else None
        text = f"it is not cached: {why}"
        result.findings.append(Finding("warning", f"{name}.cache", text, kind=kind))
    result.findings += await refresh_findings(connection, complete)
    result.findings += await delta_findings(connection, served)
    if any(f.place == LOGIN_PLACE and f.severity == "error" for f in found):
        result.login = await login_sql(connection, complete)
    views = await views_among(connection, served, complete)
    async with _tenants(effective, views, tenants) as known:
        result.findings += await key_findings(connection, views, known)


@asynccontextmanager
async def _tenants(
    effective: Settings, views: Mapping[str, Dataset], given: Sequence[str]
) -> AsyncIterator[Sequence[str]]:
    """The given tenants, else some that the owner's login sees, where there is one."""
    owner_url = effective.database.owner_url
    if given or owner_url is None or not any(view.tenant for view in views.values()):
        yield given
        return
    try:
        owner = await asyncpg.connect(owner_url.get_secret_value(), timeout=5)
    except (OSError, asyncpg.PostgresError, ValueError):
        yield ()
        return
    try:
        yield await some_tenants(owner, views)
    finally:
        await owner.close(timeout=1.0)


async def _replica_findings(effective: Settings) -> list[Finding]:
    replicas = Replicas(effective)
    await replicas.open()
    await replicas.look()
    await replicas.close(1.0)
    return [
        Finding(
            "error" if replica.state == "unfit" else "warning",
            "database.replicas",
            f"{replica.name} is not read from: {replica.fault}",
        )
        for replica in replicas.all
        if replica.fault is not None
    ]
