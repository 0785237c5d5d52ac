"""Bearer tokens (RFC 7519), verified and made into a principal."""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt

from feedsvc.access import keys
from feedsvc.access.claims import ClaimError, principal_of
from feedsvc.access.jwks import PublishedKeys
from feedsvc.access.keys import KeyMissingError, VerificationKey
from feedsvc.core.bounded_mapping import RecentMapping
from feedsvc.core.principal import Principal, Role
from feedsvc.core.problems import TokenExpired, Unauthorized, Unavailable
from feedsvc.settings import Auth

_LONGEST_TOKEN: Final = 8_192
_NOT_A_TOKEN: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
# What is written to the log, and never into an answer.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.InvalidSignatureError, "its signature is not that of a key that is known"),
    (jwt.InvalidAudienceError, "it is for another audience than auth.audience"),
    (jwt.InvalidIssuerError, "it is from another issuer than auth.issuer"),
    (jwt.ImmatureSignatureError, "it is not valid yet"),
    (jwt.ExpiredSignatureError, "it has expired"),
)


class Tokens:
    """Verify tokens, and sign them where a key for that is configured.

    A token that was verified is remembered by its digest until it expires, its key changes or too
    many others have come.
    """

    def __init__(self, settings: Auth, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` times the fetches of keys. Raises KeyMissingError."""
        self._settings = settings
        self._fixed = _fixed_keys(settings)
        self.published = (
            PublishedKeys(settings.jwks_url, settings, clock) if settings.jwks_url else None
        )
        self._required = ["exp", "aud", *(["iss"] if settings.issuer else [])]
        self._remembered: RecentMapping[tuple[int, bytes], Principal] = RecentMapping(
            settings.remember
        )

    @property
    def fault(self) -> str | None:
        """The reason for which no token at all can be verified, None where some can."""
        return None if self._keys() else "no key to verify tokens with could be fetched yet"

    @property
    def signing_secret(self) -> bytes | None:
        """The secret that signs tokens here, as bytes; None where there are public keys alone."""
        return next((key.secret for key in self._fixed if key.signing is not None), None)

    async def authenticate(self, authorization: str | None) -> Principal:
        """The principal of an Authorization header.

        Raises Unauthorized, whose answer is the same whatever is wrong (TokenExpired where only
        the time is over), and Unavailable while no key at all could be fetched.
        """
        try:
            return self.verify(authorization)
        except Unauthorized:
            if self.published is None or not self._may_be_of_a_new_key(authorization):
                raise
        await self.published.look_again()
        if self.fault is not None:
            raise Unavailable("The keys that tokens are verified with are out of reach.", 5)
        return self.verify(authorization)

    def seconds_left(self, principal: Principal) -> float:
        """Seconds for which the principal's token is still accepted."""
        return principal.expires_at + self._settings.leeway - time.time()

    def verify(self, authorization: str | None) -> Principal:
        """The principal of an Authorization header, by the keys that are known now.

        Raises Unauthorized.
        """
        if authorization is None:
            raise Unauthorized("there is no token")
        if len(authorization) > _LONGEST_TOKEN:
            raise Unauthorized("it is too long")
        try:
            known = (self.published.version if self.published else 0, _digest(authorization))
            principal = self._remembered.get(known)
            if principal is None or self.seconds_left(principal) <= 0:
                claims = self._claims(_token_of(authorization))
                principal = principal_of(claims, self._settings)
                self._remembered.put(known, principal, 1)
        except ClaimError as error:
            raise Unauthorized(str(error)) from None
        except _NOT_A_TOKEN as error:
            raise Unauthorized(_reason(error)) from None
        return principal

    def sign(
        self,
        tenant: str,
        role: Role,
        client: str | None,
        lifetime: float,
        *,
        operator: bool = False,
    ) -> str:
        """A token for these, good for so many seconds. Raises KeyMissingError."""
        key = next((key for key in self._fixed if key.signing is not None), None)
        if key is None:
            raise KeyMissingError("auth.key and auth.key_file hold no key that could sign a token")
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
        if operator:
            _put(claims, paths.operator, True)
        headers = None if key.kid is None else {"kid": key.kid}
        return jwt.encode(claims, key.signing, algorithm=key.algorithm, headers=headers)

    def _keys(self) -> tuple[VerificationKey, ...]:
        return self._fixed + (self.published.keys if self.published else ())

    def _candidates(self, header: Mapping[str, Any]) -> list[VerificationKey]:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms:
            return []
        return [key for key in self._keys() if key.fits(algorithm, kid)]

    def _may_be_of_a_new_key(self, authorization: str | None) -> bool:
        """Return whether the token is well-formed and accepted, but of a key that is not known."""
        try:
            header = jwt.get_unverified_header(_token_of(authorization))
        except (Unauthorized, *_NOT_A_TOKEN):
            return False
        return header.get("alg") in self._settings.algorithms and not self._candidates(header)

    def _claims(self, token: str) -> Mapping[str, Any]:
        """The claims of the first key that verifies them. Raises what PyJWT raises."""
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self._settings.algorithms:
            raise Unauthorized("auth.algorithms does not list its algorithm")
        fault: Exception = Unauthorized("no key that is known fits its header")
        for key in self._candidates(header):
            try:
                return self._decoded(token, key)
            except jwt.InvalidSignatureError as error:
                fault = error
            except jwt.ExpiredSignatureError:
                self._decoded(token, key, at_any_time=True)  # or there is more that is wrong
                raise TokenExpired from None
        raise fault

    def _decoded(
        self, token: str, key: VerificationKey, *, at_any_time: bool = False
    ) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.verifying,
            algorithms=[key.algorithm],
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=self._settings.leeway,
            options={"require": self._required, "verify_exp": not at_any_time},
        )
        return claims


def _fixed_keys(settings: Auth) -> tuple[VerificationKey, ...]:
    """The keys that stand in the settings. Raises KeyMissingError where there are none at all."""
    if not settings.algorithms:
        raise KeyMissingError("auth.algorithms must list at least one: HS256, RS256, ES256, EdDSA")
    found: tuple[VerificationKey, ...] = ()
    if settings.key is not None and settings.key.get_secret_value():
        found = keys.from_text(settings.key.get_secret_value(), "auth.key")
    elif settings.key_file is not None:
        found = keys.from_file(settings.key_file, "auth.key_file")
    elif settings.jwks_url is None:
        what = "auth.key, auth.key_file or auth.jwks_url must be set: tokens are verified with it"
        raise KeyMissingError(what)
    usable = tuple(key for key in found if key.algorithm in settings.algorithms)
    if found and not usable:
        listed = ", ".join(sorted({key.algorithm for key in found}))
        raise KeyMissingError(f"auth.key is for {listed}, which auth.algorithms does not list")
    return usable


def _token_of(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
        raise Unauthorized("the header is no bearer token")
    return token.strip()


def _reason(error: Exception) -> str:
    """The fault of a token, in words that quote nothing of it."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the claim {error.claim} is missing"
    return next((words for kind, words in _REASONS if isinstance(error, kind)), "it is no token")


def _digest(authorization: str) -> bytes:
    return hashlib.blake2b(authorization.encode(), digest_size=32).digest()


def _put(claims: dict[str, Any], path: str, value: str | bool) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        claims = claims.setdefault(parent, {})
    claims[name] = value
