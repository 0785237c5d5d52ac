"""The service's own key: what its tickets, its cookies and its values in Redis are proven with.

All workers and instances have the same: `server.secret`, or what tokens are signed with, or else
the key that `feedsvc migrate up` has left in the database. Every use derives one of its own.
"""

import hashlib
import hmac
import logging
import secrets
from typing import Final

import asyncpg
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from feedsvc.settings import Settings

logger = logging.getLogger(__name__)

_READ: Final = "select key from feedsvc.secret"
_SIZE: Final = 32

MAC_SIZE: Final = 16
"""Bytes of a seal's code."""


class Seal:
    """Authenticate messages by a keyed BLAKE2b (RFC 7693), a microsecond for a KiB."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def mac(self, *parts: bytes) -> bytes:
        """The code of these parts; each is prefixed by its length."""
        code = hashlib.blake2b(key=self._key, digest_size=MAC_SIZE)
        for part in parts:
            code.update(len(part).to_bytes(8, "big"))
            code.update(part)
        return code.digest()

    def fits(self, mac: bytes, *parts: bytes) -> bool:
        """Return whether the code is that of these parts, found out in constant time."""
        return hmac.compare_digest(mac, self.mac(*parts))

    def fits_beginning(self, beginning: bytes, *parts: bytes) -> bool:
        """Return whether a code that was cut after so many bytes is that of these parts."""
        return hmac.compare_digest(beginning, self.mac(*parts)[: len(beginning)])


class ServiceKey:
    """A secret that other keys are derived from."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def derived(self, purpose: str) -> bytes:
        """A key for one purpose, from which the others do not follow (HKDF, RFC 5869)."""
        info = f"feedsvc {purpose}".encode()
        return HKDF(SHA256(), length=_SIZE, salt=None, info=info).derive(self._secret)

    def seal(self, purpose: str) -> Seal:
        """A seal for one purpose."""
        return Seal(self.derived(purpose))


async def service_key(
    connection: asyncpg.Connection, settings: Settings, signing: bytes | None
) -> ServiceKey:
    """The key of this service; `signing` is what it signs tokens with, if it does."""
    if settings.server.secret is not None:
        return ServiceKey(settings.server.secret.get_secret_value().encode())
    if signing is not None:
        return ServiceKey(signing)
    try:
        kept = await connection.fetchval(_READ)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError,
            asyncpg.InsufficientPrivilegeError):  # fmt: skip
        kept = None
    if kept is None:
        logger.warning(
            "server.secret: tickets and pages in Redis are good at one worker alone: set it, or"
            " run `feedsvc migrate up` and GRANT feedsvc_service to the login"
        )
        kept = secrets.token_bytes(_SIZE)
    return ServiceKey(kept)
