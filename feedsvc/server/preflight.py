"""Checks before a process serves: its database, datasets, alerts and open files."""

import asyncio
import logging
from collections.abc import Collection
from typing import Final

import asyncpg

from feedsvc.access.service_key import ServiceKey, service_key
from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres import pool
from feedsvc.backends.postgres.sessions import SessionRefusedError
from feedsvc.core.logs import redacted
from feedsvc.datasets import checks
from feedsvc.datasets.dataset import Dataset, DatasetsError
from feedsvc.operations.alerts.rules import AlertsError, KnownNames, Rule, load
from feedsvc.operations.health.checks import checks_of
from feedsvc.server import open_files
from feedsvc.settings import Server, Settings
from feedsvc.web.application import patterns

logger = logging.getLogger(__name__)

_RETRY: Final = 0.25  # seconds between attempts to reach a database that is starting
_CLOSE_TIMEOUT: Final = 2.0  # seconds


class StartError(Exception):
    """The service can't start; each line of the message is one reason with its remedy."""


def bounded_server(settings: Settings) -> Server:
    """The server's settings as far as the limit of open files allows. Raises StartError."""
    try:
        return open_files.bounded(settings, open_files.raise_limit())
    except open_files.TooFewFilesError as error:
        raise StartError(str(error)) from None


def alert_rules(settings: Settings, datasets: Collection[str]) -> dict[str, Rule]:
    """The alerts, checked against the names of datasets, routes and checks. Raises StartError."""
    if settings.alerts.file is None:
        return {}
    names = [check.name for check in checks_of(settings.health)]
    known = KnownNames(datasets, patterns(), type(settings.pools).model_fields, names)
    try:
        return load(settings.alerts.file, known)
    except AlertsError as error:
        raise StartError(str(error)) from None


async def inspect_database(
    settings: Settings, tokens: Tokens
) -> tuple[dict[str, Dataset], ServiceKey]:
    """The datasets that can be served, and the service's key, once the database answers.

    Log warnings. Raises StartError where a dataset or the login is at fault.
    """
    connection = await _first_connection(settings)
    try:
        datasets, findings = await checks.inspect(connection, settings)
        key = await service_key(connection, settings, tokens.signing_secret)
    except DatasetsError as error:
        raise StartError(str(error)) from None
    finally:
        await connection.close(timeout=_CLOSE_TIMEOUT)
    for finding in findings:
        if finding.severity == "warning" or finding.passes:
            logger.warning("%s", finding.text)
    errors = [str(f) for f in findings if f.severity == "error" and not f.passes]
    if errors:
        raise StartError("\n".join(errors))
    return datasets, key


async def _first_connection(settings: Settings) -> asyncpg.Connection:
    """A connection, retried while the database is itself starting. Raises StartError."""
    if not settings.database.url.get_secret_value():
        raise StartError("database.url must be set, or DATABASE_URL")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.database.startup_timeout
    is_logged = False
    while True:
        try:
            return await pool.connect(settings.database, application_name="feedsvc start")
        except (
            SessionRefusedError,
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
            ValueError,
        ) as error:
            raise StartError(f"database.url: {error}") from None
        except (OSError, asyncpg.PostgresError) as error:
            if loop.time() >= deadline:
                raise StartError(f"database.url: the database does not answer: {error}") from None
            if not is_logged:
                what = "waiting up to %g s for the database to answer: %s"
                logger.warning(what, settings.database.startup_timeout, redacted(error))
                is_logged = True
            await asyncio.sleep(_RETRY)
