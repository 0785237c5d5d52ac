"""Keys of every kind, each for the one algorithm that it is for."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr

from feedsvc.access import keys
from feedsvc.access.keys import KeyMissingError
from feedsvc.access.tokens import Tokens
from feedsvc.core.problems import Unauthorized
from feedsvc.settings import Auth
from tests.support.issuer import PRIVATE, RSA, bearer, claims, jwk, private_pem, public_pem

SECRET = "a secret of these tests' own, long enough"
ALL: Any = ("HS256", "RS256", "ES256", "EdDSA")


def tokens(key: str, algorithms: Any = ALL) -> Tokens:
    return Tokens(Auth(key=SecretStr(key), algorithms=algorithms))


def public_ssh(key: Any) -> str:
    public = key.public_key()
    return str(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def private_ssh(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode())


@pytest.mark.parametrize("algorithm", PRIVATE)
@pytest.mark.parametrize(
    "form",
    [
        "public PEM",
        "private PEM",
        "PEM behind a comment",
        "OpenSSH public",
        "OpenSSH private",
        "JWK",
        "JWK set",
    ],
)
def test_a_key_of_each_kind_verifies_its_tokens_and_no_others(algorithm: str, form: str) -> None:
    key = PRIVATE[algorithm]
    text = {
        "public PEM": public_pem(key),
        "private PEM": private_pem(key),
        "PEM behind a comment": f"# of the login, until May\nname: x\n{public_pem(key)}\n# end\n",
        "OpenSSH public": public_ssh(key) + " ann@example.com\n",
        "OpenSSH private": private_ssh(key),
        "JWK": json.dumps(jwk(key)),
        "JWK set": json.dumps({"keys": [{"kty": "unheard of"}, jwk(key, "k1", use="sig")]}),
    }[form]
    verifier = tokens(text)
    assert verifier.verify(bearer(algorithm, key)).tenant == "rosewood"
    for other in set(PRIVATE) - {algorithm}:
        with pytest.raises(Unauthorized):
            verifier.verify(bearer(other, PRIVATE[other]))


def test_an_algorithm_that_is_not_listed_is_not_accepted_whatever_the_keys() -> None:
    both = json.dumps({"keys": [jwk(PRIVATE["RS256"]), jwk(PRIVATE["ES256"])]})
    verifier = tokens(both, ("ES256",))
    assert verifier.verify(bearer("ES256", PRIVATE["ES256"]))
    with pytest.raises(Unauthorized):
        verifier.verify(bearer("RS256", PRIVATE["RS256"]))


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_is_never_a_secret(algorithm: str) -> None:
    """RS/HS confusion: a token that is signed with the public key's bytes as if it were one."""
    public = public_pem(PRIVATE[algorithm])
    parts = [{"alg": "HS256", "typ": "JWT"}, claims()]
    texts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    for secret in (public.encode(), public.strip().encode()):
        signature = hmac.digest(secret, b".".join(texts), hashlib.sha256)
        forged = b".".join([*texts, urlsafe_b64encode(signature).rstrip(b"=")]).decode()
        for verifier in (tokens(public), tokens(json.dumps(jwk(PRIVATE[algorithm])))):
            with pytest.raises(Unauthorized):
                verifier.verify(f"Bearer {forged}")


def test_a_token_with_another_key_id_is_not_held_against_the_key() -> None:
    verifier = tokens(json.dumps(jwk(RSA, "k1")))
    assert verifier.verify(bearer("RS256", RSA, "k1"))
    assert verifier.verify(bearer("RS256", RSA))
    with pytest.raises(Unauthorized):
        verifier.verify(bearer("RS256", RSA, "k2"))


def test_secrets_may_stand_in_a_set_with_their_ids() -> None:
    def oct_(kid: str, secret: str) -> dict[str, str]:
        return {"kty": "oct", "kid": kid, "k": urlsafe_b64encode(secret.encode()).decode()}

    listed = {"keys": [oct_("old", SECRET), oct_("new", SECRET[::-1])]}
    verifier = tokens(json.dumps(listed))
    assert verifier.verify(bearer("HS256", SECRET, "old"))
    assert verifier.verify(bearer("HS256", SECRET[::-1], "new"))
    assert verifier.verify(bearer("HS256", SECRET[::-1]))
    with pytest.raises(Unauthorized):
        verifier.verify(bearer("HS256", SECRET, "new"))
    with pytest.raises(ValueError, match="no key"):
        keys.from_jwks(listed, secrets=False)


UNUSABLE = {
    "short secret": "short",
    "short RSA key": public_pem(rsa.generate_private_key(65_537, 1_024)),
    "another curve": public_pem(ec.generate_private_key(ec.SECP384R1())),
    "no PEM inside": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    "no JSON": "{",
    "an empty set": '{"keys": []}',
    "a set that is none": '{"keys": 5}',
    "encryption alone": json.dumps(jwk(RSA, use="enc")),
    "a path": "/run/secrets/feedsvc-key-of-production",
    "a path from here": "./secrets/feedsvc-key-of-production",
    "a path from home": "~/secrets/feedsvc-key-of-production",
    "a file's name": "secrets/feedsvc-key-of-production.pem",
    "a path of Windows": r"C:\secrets\feedsvc-key-of-production",
    "an address": "https://login.example.com/.well-known/jwks",
    "a file's address": "file:///run/secrets/feedsvc-key-of-production",
    "a comment": f"# the secret of production\n{SECRET}",
    "a bare list of JWKs": json.dumps([jwk(RSA)]),
    "PuTTY": "PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\nComment: k\nPublic-Lines: 6",
    "SSH2": "---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3NzaC1yc2EAAAADAQAB\n---- END SSH2 PUBLIC KEY",
    "OpenSSH's DSA": "ssh-dss AAAAB3NzaC1kc3MAAACBAP1fAAAA ann@example.com",
    "OpenSSH in part": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH",
    "PGP": "-----BEGIN PGP PUBLIC KEY BLOCK-----\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----",
}


@pytest.mark.parametrize(
    "secret",
    [
        "/tmp+aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8=",
        "/Kv3zR1q0c8GzXnJp2/0TT7hY5s+Qw9bLrVd4mE6uIo=",
        "//v3zR1q0c8GzXnJp2/0TT7hY5s+Qw9bLrVd4mE6uIo=",
        "aGVsbG8gd29ybGQgaGVsbG8gd29y\nbGQgaGVsbG8gd29y",
        "#a secret of somebody who types one",
    ],
)
def test_a_secret_may_look_nearly_like_something_else(secret: str) -> None:
    assert tokens(secret).verify(bearer("HS256", secret)).tenant == "rosewood"


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_key_that_can_not_be_used_stops_the_start(what: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(UNUSABLE[what])
    for settings in (
        Auth(key=SecretStr(UNUSABLE[what]), algorithms=ALL),
        Auth(key_file=file, algorithms=ALL),
    ):
        with pytest.raises(KeyMissingError, match=r"auth\.key") as caught:
            Tokens(settings)
        assert "AAAA" not in str(caught.value)


def test_a_key_whose_algorithm_is_not_listed_stops_the_start() -> None:
    with pytest.raises(KeyMissingError, match="RS256"):
        tokens(public_pem(RSA), ("HS256",))
    with pytest.raises(KeyMissingError, match=r"auth\.algorithms"):
        tokens(SECRET, ())


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_private_key_signs_too(algorithm: str) -> None:
    signed = tokens(private_pem(PRIVATE[algorithm])).sign("rosewood", "admin", None, 60)
    assert tokens(public_pem(PRIVATE[algorithm])).verify(f"Bearer {signed}").role == "admin"
    with pytest.raises(KeyMissingError, match="sign"):
        tokens(public_pem(PRIVATE[algorithm])).sign("rosewood", "admin", None, 60)


def test_a_remembered_token_is_forgotten_when_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = tokens(SECRET)
    header = bearer("HS256", SECRET)
    expires = verifier.verify(header).expires_at
    assert verifier.verify(header) is verifier.verify(header), "it is not remembered"
    monkeypatch.setattr("time.time", lambda: expires + 5.1)
    # PyJWT reads a clock of its own: that the memory alone would have let it in is what is tested.
    monkeypatch.setattr(Tokens, "_claims", lambda *_: (_ for _ in ()).throw(ValueError))
    with pytest.raises(Unauthorized):
        verifier.verify(header)


def test_so_many_tokens_are_remembered_and_no_more() -> None:
    verifier = Tokens(Auth(key=SecretStr(SECRET), remember=10))
    for number in range(50):
        verifier.verify(bearer("HS256", SECRET, sub=str(number)))
    assert len(verifier._remembered) == 10
