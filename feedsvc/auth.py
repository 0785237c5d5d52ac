"""Who asks: bearer tokens, verified and made into a principal."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, get_args

import jwt

from feedsvc.datasets import Role
from feedsvc.errors import Unauthorized
from feedsvc.settings import Auth

_ROLES: Final[tuple[str, ...]] = get_args(Role)
_LONGEST_TOKEN: Final = 8_192
_LONGEST_CLAIM: Final = 256
_SHORTEST_KEY: Final = 32  # bytes; RFC 7518, section 3.2


class KeyMissingError(Exception):
    """There is no usable key to verify tokens with; the message says which setting to mend."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a valid token speaks for. `client` narrows it to one client of the tenant."""

    tenant: str
    role: Role
    client: str | None
    expires_at: float


class Tokens:
    """Verifies and signs tokens by the settings."""

    def __init__(self, settings: Auth) -> None:
        """Raises KeyMissingError."""
        self._settings = settings
        self._key = _key(settings)
        self._required = ["exp", "aud", *(["iss"] if settings.issuer else [])]

    def verify(self, authorization: str | None) -> Principal:
        """The principal of an Authorization header. Raises Unauthorized, whatever is wrong."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            raise Unauthorized
        try:
            claims = jwt.decode(
                token.strip(),
                self._key,
                algorithms=list(self._settings.algorithms),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway,
                options={"require": self._required},
            )
            return self._principal(claims)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthorized from None

    def sign(self, tenant: str, role: Role, client: str | None, lifetime: float) -> str:
        """A token for these, good for so many seconds."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "aud": self._settings.audience,
            "iat": now,
            "exp": now + max(1, round(lifetime)),
        }
        if self._settings.issuer:
            claims["iss"] = self._settings.issuer
        paths = self._settings.claims
        for path, value in ((paths.tenant, tenant), (paths.role, role), (paths.client, client)):
            if value is not None:
                _put(claims, path, value)
        return jwt.encode(claims, self._key, algorithm=self._settings.algorithms[0])

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        paths = self._settings.claims
        tenant, role, client = (
            _claim(claims, path) for path in (paths.tenant, paths.role, paths.client)
        )
        # An empty tenant would read as "no tenant" to a policy, an empty client as "not narrowed".
        if not tenant or role not in _ROLES or client == "":
            raise Unauthorized
        return Principal(tenant, cast("Role", role), client, float(claims["exp"]))


def _key(settings: Auth) -> str:
    if settings.key is not None:
        key = settings.key.get_secret_value()
    elif settings.key_file is not None:
        key = _key_from(settings.key_file)
    else:
        raise KeyMissingError("auth.key or auth.key_file must be set: tokens are signed with it")
    if len(key.encode()) < _SHORTEST_KEY:
        raise KeyMissingError(f"auth.key must be at least {_SHORTEST_KEY} bytes long")
    return key


def _key_from(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyMissingError(f"auth.key_file {file} can't be read: {error}") from None


def _claim(claims: Mapping[str, Any], path: str) -> str | None:
    """The text of a claim, None where there is none. Raises Unauthorized for what is no text."""
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_CLAIM or not _is_storable(value):
        raise Unauthorized
    return value


def _is_storable(value: str) -> bool:
    """Whether PostgreSQL can hold the text: no NUL, no lone surrogate."""
    return "\0" not in value and value.isprintable()


def _put(claims: dict[str, Any], path: str, value: str) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        claims = claims.setdefault(parent, {})
    claims[name] = value
