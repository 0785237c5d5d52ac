"""Options, mistakes and the exit status that all commands share."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeAlias
from urllib.parse import unquote, urlsplit

import asyncpg
import typer

from feedsvc.access.keys import KeyMissingError
from feedsvc.backends.postgres.migrations.errors import MigrationError
from feedsvc.commands.demo.embedded.errors import EmbeddedError
from feedsvc.commands.monitor.source import RefusedError
from feedsvc.datasets.dataset import DatasetsError
from feedsvc.server.preflight import StartError
from feedsvc.settings import SettingsError

ConfigOption: TypeAlias = Annotated[Path | None, typer.Option("--config", help="Settings file.")]

MISTAKES: Final = (
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
"""Errors whose message is written for the user."""


def login_of(url: str) -> str | None:
    """The login that PostgreSQL's URL names."""
    username = urlsplit(url).username
    return unquote(username) if username else None


def fail(message: str) -> NoReturn:
    """Write the message to standard error, behind what the log has, and exit with status 1."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    for line in message.splitlines():
        typer.echo(f"feedsvc: {line}", err=True)
    sys.exit(1)
