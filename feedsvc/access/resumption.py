"""Sealed passes, with which a client that a ticket has let in may come back to the same address.

A pass is unreadable and nothing is kept of it here, so any worker of any instance honours it.
"""

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from feedsvc.access.service_key import ServiceKey
from feedsvc.core.principal import Principal

_NONCE_SIZE: Final = 12


class Resumption:
    """Make passes, and verify them."""

    def __init__(self, key: ServiceKey) -> None:
        self._cipher = AESGCM(key.derived("resumption"))

    def make(self, target: bytes, principal: Principal) -> str:
        """A pass for this address, ticket and query included."""
        nonce = secrets.token_bytes(_NONCE_SIZE)
        sealed = self._cipher.encrypt(nonce, json.dumps(principal.plain()).encode(), target)
        return urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def principal(self, target: bytes, given: str) -> Principal | None:
        """The principal of a pass for this address; None of anything else."""
        try:
            sealed = urlsafe_b64decode(given + "=" * (-len(given) % 4))
            plain = self._cipher.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], target)
            return Principal(**json.loads(plain))
        except (ValueError, TypeError, InvalidTag):
            return None
