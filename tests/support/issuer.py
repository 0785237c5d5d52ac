"""An issuer of tokens with keys of every kind, and the URL where it publishes them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.http_server import listening

RSA = rsa.generate_private_key(65_537, 2_048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def private_pem(key: Any) -> str:
    """The private key as PEM."""
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def public_pem(key: Any) -> str:
    """The public half as PEM."""
    public = key.public_key()
    return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def jwk(key: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    algorithm = {v: k for k, v in PRIVATE.items()}.get(key, "RS256")
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**public, **({} if kid is None else {"kid": kid}), **more}


def claims(**more: Any) -> dict[str, Any]:
    """Claims that are good."""
    expiry = int(time.time()) + 600
    return {"aud": "feedsvc", "exp": expiry, "tenant": "rosewood", "role": "member", **more}


def bearer(algorithm: str, key: Any, kid: str | None = None, **more: Any) -> str:
    """An Authorization header with a good token."""
    headers = None if kid is None else {"kid": kid}
    return f"Bearer {jwt.encode(claims(**more), key, algorithm, headers=headers)}"


@dataclass
class Issuer:
    """A web server whose answer a test changes as it goes."""

    url: str = ""
    asked: int = 0
    status: int = 200
    body: bytes = b""
    delay: float = 0.0
    keys: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, _request: web.Request) -> web.Response:
        """The keys, or whatever the test wants in their place."""
        self.asked += 1
        await asyncio.sleep(self.delay)
        body = self.body or json.dumps({"keys": self.keys}).encode()
        return web.Response(status=self.status, body=body, headers={"Location": "/elsewhere"})


@asynccontextmanager
async def publishing(*keys: dict[str, Any], port: int = 0) -> AsyncIterator[Issuer]:
    """An issuer that publishes these keys for as long as the block runs."""
    issuer = Issuer(keys=list(keys))
    app = web.Application()
    app.router.add_get("/keys", issuer.answer)
    async with listening(app, port) as url:
        issuer.url = f"{url}/keys"
        yield issuer
