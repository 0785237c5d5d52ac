"""`feedsvc token`, and the operator's token of `feedsvc monitor`."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from feedsvc import settings
from feedsvc.access.keys import KeyMissingError
from feedsvc.access.tokens import Tokens
from feedsvc.commands.console import ConfigOption, fail
from feedsvc.core.problems import Unauthorized
from feedsvc.settings import SettingsError

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_OPERATOR_TTL: Final = 12 * 3_600.0  # seconds


class RoleName(StrEnum):
    """The roles that a token can have."""

    member = "member"
    admin = "admin"


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
        fail("--operator and --client exclude each other: an operator sees the whole service")
    lifetime = _seconds(ttl)
    tokens = Tokens(settings.load(config).auth)
    signed = tokens.sign(tenant, role.value, client, lifetime, operator=operator)
    try:
        tokens.verify(f"Bearer {signed}")
    except Unauthorized:
        fail("--tenant and --client must be printable, not empty, and at most 256 long")
    typer.echo(signed)


def operator_token(config: Path | None) -> str:
    """An operator's token, signed with the configured key."""
    try:
        tokens = Tokens(settings.load(config).auth)
        return tokens.sign("monitor", "admin", None, _OPERATOR_TTL, operator=True)
    except (KeyMissingError, SettingsError):
        fail("--token is needed, or FEEDSVC_TOKEN: the settings have no key to sign one with")


def _seconds(duration: str) -> float:
    parts = _DURATION.fullmatch(duration)
    if parts is None:
        fail(f"--ttl can't be {duration!r}: write a number and a unit, as in 45s, 30m, 1h, 7d")
    return float(int(parts[1]) * _UNITS[parts[2]])
