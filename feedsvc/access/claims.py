"""The claims of a verified token, read into a principal.

Whatever stands in a claim's place and can't be understood is a fault. A token that was meant to be
narrowed is never read as one that is not.
"""

from collections.abc import Mapping
from typing import Any, Final, cast, get_args

from feedsvc.core.principal import Principal, Role
from feedsvc.settings import Auth
from feedsvc.settings import Claims as Paths

_ROLES: Final[tuple[str, ...]] = get_args(Role)
_LONGEST: Final = 256
_MISSING: Final = object()


class ClaimError(Exception):
    """A claim can't be read. The message names the claim and none of its value."""


def principal_of(claims: Mapping[str, Any], settings: Auth) -> Principal:
    """The principal that the claims are about. Raises ClaimError."""
    paths = settings.claims
    tenant, role = _text(claims, paths.tenant), _text(claims, paths.role)
    if not tenant:  # it would read as "no tenant" to a policy
        raise ClaimError(f"the claim {paths.tenant} is missing or empty")
    if role not in _ROLES:
        raise ClaimError(f"the claim {paths.role} is none of {', '.join(_ROLES)}")
    client = _client(claims, paths)
    if client is None and role in settings.client_required_for:
        raise ClaimError(f"the claim {paths.client} is missing, which role {role} must have")
    return Principal(
        tenant,
        cast("Role", role),
        client,
        float(claims["exp"]),
        _text(claims, paths.subject) or None,
        _flag(claims, paths.operator),
    )


def _client(claims: Mapping[str, Any], paths: Paths) -> str | None:
    """The client that the token is narrowed to; None where the claim is not there at all."""
    value = _at(claims, paths.client)
    if value is _MISSING:
        if _is_half_there(claims, paths):
            raise ClaimError(f"the claim {paths.client} is missing from the object around it")
        return None
    if not isinstance(value, str) or not value:
        raise ClaimError(f"the claim {paths.client} is no text, or empty")
    return _storable(value, paths.client)


def _is_half_there(claims: Mapping[str, Any], paths: Paths) -> bool:
    """Return whether the object around the client's claim is there, for that claim's sake alone."""
    around, dot, _ = paths.client.rpartition(".")
    others = (paths.tenant, paths.role, paths.subject, paths.operator)
    is_shared = any(other.startswith(f"{around}.") for other in others)
    return bool(dot) and not is_shared and _at(claims, around) is not _MISSING


def _text(claims: Mapping[str, Any], path: str) -> str | None:
    """The text of a claim, also of a whole number; None where there is none."""
    value = _at(claims, path)
    if value is _MISSING or value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ClaimError(f"the claim {path} is no text")
    return _storable(value, path)


def _flag(claims: Mapping[str, Any], path: str) -> bool:
    """Return whether a claim is true; false where it is missing."""
    value = _at(claims, path)
    if value is _MISSING:
        return False
    if not isinstance(value, bool):
        raise ClaimError(f"the claim {path} is neither true nor false")
    return value


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """The value at a path. A claim that is named by the whole path comes first: `https://…/role`."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        if not isinstance(value, Mapping):
            raise ClaimError(f"the claim {path} lies under a value that is no object")
        if part not in value:
            return _MISSING
        value = value[part]
    return value


def _storable(value: str, path: str) -> str:
    """The text, if PostgreSQL can hold it: no NUL, no lone surrogate."""
    if len(value) > _LONGEST:
        raise ClaimError(f"the claim {path} is longer than {_LONGEST} characters")
    if "\0" in value or not value.isprintable():
        raise ClaimError(f"the claim {path} is not printable")
    return value
