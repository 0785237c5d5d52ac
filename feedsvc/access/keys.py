"""The keys that tokens are verified with.

Each key is bound to the one algorithm that its kind is for. So a token's header chooses among
keys, and never how a key is used: a public RSA key is no HMAC secret, whatever the token says.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509 import load_pem_x509_certificate

Algorithm: TypeAlias = Literal["HS256", "RS256", "ES256", "EdDSA"]

_SHORTEST_SECRET: Final = 32  # bytes; RFC 7518, section 3.2
_SHORTEST_RSA: Final = 2_048  # bits; RFC 7518, section 3.3
_SSH_PUBLIC: Final = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-\S+ AAAA[A-Za-z0-9+/=]+(?: .*)?")
# Texts that are long enough for a secret and were never meant as one, each with what to write.
_NO_SECRETS: Final = (
    (r"[A-Za-z][A-Za-z0-9+.-]*://", "it is an address: keys that an issuer publishes are fetched"
     " from auth.jwks_url, and a file's are read from auth.key_file"),
    # A secret in base64 may begin with a slash, but hardly with one of these names.
    (r"(?:~|\.{1,2}|[A-Za-z]:)[/\\]|/(?:app|config|data|etc|home|keys|media|mnt|opt|private|proc"
     r"|root|run|secrets|srv|tmp|Users|usr|var|vault|workspace)/"
     r"|\S+\.(?:pem|key|pub|crt|cer|der|p8|jwks?|json|txt)\Z",
     "it is a path: name the file in auth.key_file"),
    (r"(?:#|//|--|;)\s|#.*\n", "it begins with a comment: leave that out"),
    (r"\[\s*\{", 'a JWK set is an object, {"keys": [...]}'),
    (r"PuTTY-|-{4,} ?BEGIN|ssh-dss ", "it is a key of a kind that tokens can't be verified with"),
)  # fmt: skip
_PRIVATE: Final = (RSAPrivateKey, EllipticCurvePrivateKey, Ed25519PrivateKey)


class KeyMissingError(Exception):
    """There is no usable key to verify tokens with; the message names the setting to mend."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """The keys of one algorithm; `signing` is None where only a public key is known."""

    algorithm: Algorithm
    kid: str | None
    verifying: Any
    signing: Any

    @property
    def secret(self) -> bytes | None:
        """The signing half as bytes, the same for the same key."""
        if self.signing is None or isinstance(self.signing, bytes):
            return self.signing
        made: bytes = self.signing.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return made

    def fits(self, algorithm: object, kid: object) -> bool:
        """Return whether a token with this header may be held against the key."""
        return self.algorithm == algorithm and (None in (kid, self.kid) or kid == self.kid)


def from_text(text: str, place: str) -> tuple[VerificationKey, ...]:
    """The keys of a setting or a file: PEM, OpenSSH's, a JWK or a set of them, or else a secret.

    Text around a PEM block, such as a comment before it, is passed over.

    Raises KeyMissingError, which names the place.
    """
    text = text.strip()
    try:
        if "-----BEGIN" in text:
            return (_bound(_pem(text[text.index("-----BEGIN") :].encode()), None),)
        if _SSH_PUBLIC.fullmatch(text):
            return (_bound(load_ssh_public_key(text.encode()), None),)
        if text.startswith("{"):
            return from_jwks(json.loads(text), secrets=True)
        _refuse_what_was_meant_otherwise(text)
        return (_secret(text.encode(), None),)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyMissingError(f"{place} has no usable key: {error}") from None


def from_file(file: Path, place: str) -> tuple[VerificationKey, ...]:
    """The keys of a file. Raises KeyMissingError."""
    try:
        return from_text(file.read_text(), f"{place} {file}")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyMissingError(f"{place} {file} can't be read: {error}") from None


def from_jwks(document: object, *, secrets: bool) -> tuple[VerificationKey, ...]:
    """The keys of a JWK set, or of one JWK, for signatures (RFC 7517).

    Keys of other kinds and for other uses are passed over, as section 5 wants it; so are secrets
    unless they are asked for, for what everyone can fetch is none. Raises ValueError where no key
    is left.
    """
    if not isinstance(document, dict):
        raise ValueError("a JWK set is a JSON object")  # noqa: TRY004 - one error for all of it
    listed = document.get("keys", [document])
    if not isinstance(listed, list):
        raise ValueError("the keys of a JWK set are a list")  # noqa: TRY004
    found = tuple(key for jwk in listed for key in _from_jwk(jwk, secrets=secrets))
    if not found:
        raise ValueError("no key in it is for HS256, RS256, ES256 or EdDSA")
    return found


def _from_jwk(jwk: object, *, secrets: bool) -> Iterator[VerificationKey]:
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return
    kid, stated = jwk.get("kid"), jwk.get("alg")
    try:
        material = jwt.PyJWK(jwk).key
        key = (_secret if isinstance(material, bytes) else _bound)(material, kid)
    except (jwt.PyJWTError, ValueError, TypeError):
        return
    if (secrets or key.algorithm != "HS256") and stated in (None, key.algorithm):
        yield key


def _secret(secret: bytes, kid: str | None) -> VerificationKey:
    if len(secret) < _SHORTEST_SECRET:
        raise ValueError(f"a secret must be at least {_SHORTEST_SECRET} bytes long")
    return VerificationKey("HS256", kid, secret, secret)


def _refuse_what_was_meant_otherwise(text: str) -> None:
    """Raise ValueError where a text taken for a secret would verify none of the issuer's tokens."""
    for pattern, what in _NO_SECRETS:
        if re.match(pattern, text):
            raise ValueError(what)


def _pem(text: bytes) -> Any:
    if b"OPENSSH PRIVATE KEY" in text:
        return load_ssh_private_key(text, password=None)
    if b"PRIVATE KEY" in text:
        return load_pem_private_key(text, password=None)
    if b"CERTIFICATE" in text:
        return load_pem_x509_certificate(text).public_key()
    return load_pem_public_key(text)


def _bound(material: Any, kid: str | None) -> VerificationKey:
    """The key with the algorithm that its kind is for. Raises ValueError where there is none."""
    signing = material if isinstance(material, _PRIVATE) else None
    public = material if signing is None else signing.public_key()
    match public:
        case RSAPublicKey():
            if public.key_size < _SHORTEST_RSA:
                raise ValueError(f"an RSA key must have at least {_SHORTEST_RSA} bits")
            return VerificationKey("RS256", kid, public, signing)
        case EllipticCurvePublicKey() if isinstance(public.curve, SECP256R1):
            return VerificationKey("ES256", kid, public, signing)
        case Ed25519PublicKey():
            return VerificationKey("EdDSA", kid, public, signing)
    raise ValueError("a key must be RSA, on the curve P-256, or Ed25519")
