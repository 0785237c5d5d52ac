"""The one place that puts the parts together, and takes them apart again."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg

from feedsvc import pools, preflight
from feedsvc.auth.keys import KeyMissingError
from feedsvc.auth.tokens import Tokens
from feedsvc.datasets import Dataset, DatasetsError
from feedsvc.drain import Drain
from feedsvc.pools import Pools
from feedsvc.readiness import DatabaseProbe
from feedsvc.service import Service
from feedsvc.settings import Settings
from feedsvc.tickets import Tickets
from feedsvc.web.server import Runner, application

logger = logging.getLogger(__name__)

_RETRY: Final = 0.25  # seconds between looks at a database that is starting
_CLOSE_TIMEOUT: Final = 2.0  # seconds that connections get to close by themselves


class StartError(Exception):
    """The service can't start; each line of the message is one reason with what to mend."""


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncIterator[Service]:
    """The service's parts, open. Raises StartError."""
    try:
        tokens = Tokens(settings.auth)
    except KeyMissingError as error:
        raise StartError(str(error)) from None
    datasets = await _datasets(settings)
    made = Pools(settings)
    service = Service(
        settings=settings,
        datasets=datasets,
        tokens=tokens,
        tickets=Tickets(made["read"]),
        pools=made,
        probe=DatabaseProbe(settings.database),
        drain=Drain(),
    )
    await made.open()
    await service.probe.probe()
    background = [service.probe.run()]
    if tokens.published is not None:
        background.append(tokens.published.run())
    tasks = [asyncio.create_task(work) for work in background]
    try:
        yield service
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service.pools.close(_CLOSE_TIMEOUT)


@asynccontextmanager
async def serving(settings: Settings, listener: socket.socket) -> AsyncIterator[Service]:
    """The service, answering on this listening socket. Raises StartError.

    At the block's end whatever still runs is ended; a drain comes before that.
    """
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(assembled(settings))
        runner = Runner(application(service), settings.server)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await runner.answer_on(listener)
        yield service


async def _datasets(settings: Settings) -> dict[str, Dataset]:
    """The datasets, once the database answers and nothing is wrong with them."""
    connection = await _first_connection(settings)
    try:
        datasets, findings = await preflight.inspect(connection, settings)
    except DatasetsError as error:
        raise StartError(str(error)) from None
    finally:
        await connection.close(timeout=_CLOSE_TIMEOUT)
    for finding in findings:
        if finding.severity == "warning":
            logger.warning("%s: %s", finding.place, finding.what)
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise StartError("\n".join(errors))
    return datasets


async def _first_connection(settings: Settings) -> asyncpg.Connection:
    """A connection, waited for while the database is itself starting."""
    if not settings.database.url.get_secret_value():
        raise StartError("database.url must be set, or DATABASE_URL")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.database.startup_timeout
    while True:
        try:
            return await pools.connect(settings.database, application_name="feedsvc start")
        except (
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
            ValueError,
        ) as error:
            raise StartError(f"database.url: {error}") from None
        except (OSError, asyncpg.PostgresError) as error:
            if loop.time() >= deadline:
                raise StartError(f"database.url: the database does not answer: {error}") from None
            await asyncio.sleep(_RETRY)
