"""Bearer tokens: whatever is wrong with one, the answer is one and the same 401."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from feedsvc.access.keys import KeyMissingError
from feedsvc.access.tokens import Tokens
from feedsvc.core.principal import Principal
from feedsvc.core.problems import TokenExpired, Unauthorized
from feedsvc.settings import Auth, Claims

KEY = "a key of these tests' own, long enough for HS256"
NOW = int(time.time())
VALID: dict[str, Any] = {
    "aud": "feedsvc",
    "exp": NOW + 86_400,
    "tenant": "rosewood",
    "role": "member",
}


def auth(**settings: Any) -> Auth:
    return Auth(key=SecretStr(KEY), **settings)


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in VALID.items() if name not in names}


def signed(claims: Any = None, *, key: str = KEY, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(VALID if claims is None else claims, key, algorithm, headers=headers)


def by_hand(header: bytes, payload: bytes) -> str:
    """A token whose parts are any bytes at all, rightly signed."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload)]
    signature = hmac.digest(KEY.encode(), b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


HS256 = b'{"alg":"HS256","typ":"JWT"}'

BAD_TOKENS = {
    "alg none": jwt.encode(VALID, "", "none"),
    "alg none with our signature": by_hand(b'{"alg":"none"}', json.dumps(VALID).encode()),
    "an algorithm that is not accepted": signed(algorithm="HS384"),
    "another key": signed(key="another key that is just as long as it must be"),
    "no signature": signed().rpartition(".")[0] + ".",
    "an unknown critical extension": signed(crit=["exotic"], exotic=1),
    "expired, and for another audience": signed({**VALID, "exp": NOW - 60, "aud": "elsewhere"}),
    "expired, of another key": signed({**VALID, "exp": NOW - 60}, key=KEY[::-1]),
    "exp that is no number": signed({**VALID, "exp": "soon"}),
    "no exp": signed(without("exp")),
    "not valid yet": signed({**VALID, "nbf": NOW + 86_400}),
    "no aud": signed(without("aud")),
    "another aud": signed({**VALID, "aud": "elsewhere"}),
    "no tenant": signed(without("tenant")),
    "null tenant": signed({**VALID, "tenant": None}),
    "empty tenant": signed({**VALID, "tenant": ""}),
    "tenant true": signed({**VALID, "tenant": True}),
    "tenant that is an object": signed({**VALID, "tenant": {"id": "rosewood"}}),
    "tenant with NUL": signed({**VALID, "tenant": "rosewood\0"}),
    "tenant with a lone surrogate": signed({**VALID, "tenant": "\ud800"}),
    "endless tenant": signed({**VALID, "tenant": "r" * 257}),
    "no role": signed(without("role")),
    "unknown role": signed({**VALID, "role": "root"}),
    "empty client": signed({**VALID, "client": ""}),
    "null client": signed({**VALID, "client": None}),
    "client that is a number": signed({**VALID, "client": 7}),
    "client that is false": signed({**VALID, "client": False}),
    "client that is a list": signed({**VALID, "client": ["1"]}),
    "client that is an object": signed({**VALID, "client": {"id": "1"}}),
    "subject that is a list": signed({**VALID, "sub": ["ann"]}),
    "over 8 KB": signed({**VALID, "filler": "x" * 8_192}),
    "claims that are no object": by_hand(HS256, b"[]"),
    "claims that are no JSON": by_hand(HS256, b"{"),
    "claims that are no UTF-8": by_hand(HS256, b'{"tenant":"\xff"}'),
    "a header that is no object": by_hand(b"[]", json.dumps(VALID).encode()),
    "not a token": "rosewood",
    "dots alone": "..",
    "no ASCII": "ünïcödé.ünïcödé.ünïcödé",
    "bytes that are no UTF-8": "\udcff.\udcff.\udcff",
}
BAD_HEADERS: dict[str, str | None] = {
    "no header": None,
    "an empty header": "",
    "a scheme alone": "Bearer",
    "an empty token": "Bearer ",
    "another scheme": f"Basic {signed()}",
    "no scheme": signed(),
    **{what: f"Bearer {token}" for what, token in BAD_TOKENS.items()},
}


def refusal(tokens: Tokens, header: str | None) -> tuple[Any, ...]:
    with pytest.raises(Unauthorized) as caught:
        tokens.verify(header)
    assert type(caught.value) is Unauthorized
    return caught.value.body("/", "r1"), caught.value.headers


@pytest.mark.parametrize("what", BAD_HEADERS)
def test_any_fault_is_one_and_the_same_401(what: str) -> None:
    body, headers = refusal(Tokens(auth()), BAD_HEADERS[what])
    assert body["status"] == 401
    assert headers["WWW-Authenticate"].startswith("Bearer")
    assert (body, headers) == refusal(Tokens(auth()), None)


@pytest.mark.parametrize("what", BAD_HEADERS)
def test_no_fault_costs_more_than_one_verification(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So time tells little of what is wrong."""
    count, decode = 0, jwt.decode

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        return decode(*arguments, **more)

    monkeypatch.setattr(jwt, "decode", counted)
    refusal(Tokens(auth()), BAD_HEADERS[what])
    assert count <= (2 if what == "expired, and for another audience" else 1)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(by_hand(b"[" * 4_000, b"{}"), id="a header nested 4,000 deep"),
        pytest.param(by_hand(HS256, b"[" * 4_000), id="claims nested 4,000 deep"),
        pytest.param(signed({**VALID, "exp": 10**400}), id="an exp that no float can hold"),
        pytest.param(by_hand(HS256, b'{"aud":"feedsvc","exp":1e999}'), id="an infinite exp"),
    ],
)
def test_what_python_itself_cannot_hold_is_the_same_401(token: str) -> None:
    tokens = Tokens(auth())
    assert len(token) <= 8_192
    assert refusal(tokens, f"Bearer {token}") == refusal(tokens, None)


def test_a_valid_token_speaks_for_its_principal() -> None:
    token = signed({**VALID, "client": "7"})
    expected = Principal("rosewood", "member", "7", float(VALID["exp"]))
    assert Tokens(auth()).verify(f"Bearer {token}") == expected
    assert Tokens(auth()).verify(f"bearer  {token}") == expected


@pytest.mark.parametrize(
    ("given", "meant"), [(7, "7"), ("Ünï cödé", "Ünï cödé"), ("r" * 256, "r" * 256)]
)
def test_a_tenant_is_any_printable_text_or_a_number(given: object, meant: str) -> None:
    assert Tokens(auth()).verify(f"Bearer {signed({**VALID, 'tenant': given})}").tenant == meant


NARROWED = Claims(client="who.client.id")


@pytest.mark.parametrize(
    "more",
    [
        {"who": None},
        {"who": "7"},
        {"who": {}},
        {"who": {"client": None}},
        {"who": {"client": "7"}},
        {"who": {"client": ["7"]}},
        {"who": {"client": {}}},
        {"who": {"client": {"ID": "7"}}},
        {"who": {"client": {"id": None}}},
        {"who": {"client": {"id": 7}}},
        {"who": {"client": {"id": ""}}},
        {"who.client.id": None},
    ],
    ids=repr,
)
def test_a_client_that_can_not_be_read_never_opens_the_whole_tenant(more: dict[str, Any]) -> None:
    tokens = Tokens(auth(claims=NARROWED))
    claims = {**VALID, **more}
    if more == {"who": {}}:  # the object may hold other claims
        assert tokens.verify(f"Bearer {signed(claims)}").client is None
    else:
        assert refusal(tokens, f"Bearer {signed(claims)}") == refusal(tokens, None)


def test_a_missing_client_is_not_narrowed_unless_its_role_must_be() -> None:
    shared = Claims(tenant="org.id", role="org.role", client="org.client")
    claims = {**without("tenant", "role"), "org": {"id": "rosewood", "role": "member"}}
    assert Tokens(auth(claims=shared)).verify(f"Bearer {signed(claims)}").client is None
    tokens = Tokens(auth(claims=Claims(client="cleint"), client_required_for=("member",)))
    narrowed = {**VALID, "client": "7"}
    assert refusal(tokens, f"Bearer {signed(narrowed)}") == refusal(tokens, None)
    admin = tokens.verify(f"Bearer {signed({**narrowed, 'role': 'admin'})}")
    assert (admin.role, admin.client) == ("admin", None)


def test_a_claim_may_be_named_by_an_address() -> None:
    name = "https://shop.example/client"
    tokens = Tokens(auth(claims=Claims(client=name)))
    assert tokens.verify(f"Bearer {signed({**VALID, name: '7'})}").client == "7"
    assert refusal(tokens, f"Bearer {signed({**VALID, name: None})}") == refusal(tokens, None)


def test_a_token_whose_time_alone_is_over_may_be_refreshed() -> None:
    tokens = Tokens(auth(issuer="https://issuer.example"))
    claims = {**VALID, "iss": "https://issuer.example", "exp": NOW - 60}
    with pytest.raises(TokenExpired) as caught:
        tokens.verify(f"Bearer {signed(claims)}")
    assert caught.value.body("/", "r1")["type"] == "/problems/token-expired"
    assert caught.value.headers["WWW-Authenticate"].endswith('error="invalid_token"')
    broken: tuple[dict[str, Any], ...] = (
        {"aud": "elsewhere"}, {"iss": "elsewhere"}, {"nbf": NOW + 86_400},
    )  # fmt: skip
    for more in broken:
        assert refusal(tokens, f"Bearer {signed({**claims, **more})}") == refusal(tokens, None)


def test_the_reason_of_a_refusal_is_for_the_log_and_holds_nothing_of_the_token() -> None:
    reasons = {}
    for what, header in BAD_HEADERS.items():
        with pytest.raises(Unauthorized) as caught:
            Tokens(auth()).verify(header)
        reasons[what] = caught.value.reason
    assert len(set(reasons.values())) >= 12, "each kind of fault is told from the others"
    assert reasons["no header"] == "there is no token"
    assert reasons["another aud"] == "it is for another audience than auth.audience"
    assert reasons["null client"] == "the claim client is no text, or empty"
    for reason in reasons.values():
        assert reason.isascii()
        assert "rosewood" not in reason


def test_a_token_that_expired_within_the_leeway_is_still_good() -> None:
    token = signed({**VALID, "exp": time.time() - 5})
    assert Tokens(auth(leeway=60)).verify(f"Bearer {token}").tenant == "rosewood"


@pytest.mark.parametrize("issuer", [None, "elsewhere"])
def test_an_issuer_that_is_set_must_be_there(issuer: str | None) -> None:
    tokens = Tokens(auth(issuer="https://issuer.example"))
    claims = VALID if issuer is None else {**VALID, "iss": issuer}
    assert refusal(tokens, f"Bearer {signed(claims)}") == refusal(tokens, None)
    claims = {**VALID, "iss": "https://issuer.example"}
    assert tokens.verify(f"Bearer {signed(claims)}").tenant == "rosewood"


def test_a_dot_in_a_claims_path_descends() -> None:
    paths = Claims(tenant="org.id", role="org.access.role", client="sub")
    tokens = Tokens(auth(claims=paths))
    org = {"id": "rosewood", "access": {"role": "admin"}}
    claims = {**without("tenant", "role"), "org": org, "sub": "7"}
    principal = tokens.verify(f"Bearer {signed(claims)}")
    assert (principal.tenant, principal.role, principal.client) == ("rosewood", "admin", "7")
    for broken in ({**claims, "org": "rosewood"}, {**claims, "org": {**org, "access": None}}):
        assert refusal(tokens, f"Bearer {signed(broken)}") == refusal(tokens, None)


@pytest.mark.parametrize(
    "paths", [Claims(), Claims(tenant="org.id", role="org.role", client="c.id")]
)
@pytest.mark.parametrize("client", [None, "7"])
def test_what_is_signed_here_is_verified_here(paths: Claims, client: str | None) -> None:
    tokens = Tokens(auth(claims=paths, issuer="https://issuer.example"))
    principal = tokens.verify(f"Bearer {tokens.sign('rosewood', 'admin', client, 600)}")
    assert (principal.tenant, principal.role, principal.client) == ("rosewood", "admin", client)
    assert principal.expires_at == pytest.approx(time.time() + 600, abs=10)


def test_an_operator_is_a_claim_of_its_own() -> None:
    tokens = Tokens(auth(claims=Claims(operator="may.operate")))
    assert tokens.verify(f"Bearer {tokens.sign('a', 'member', None, 60, operator=True)}").operator
    for role in ("member", "admin"):
        elsewhere: tuple[Any, ...] = (
            {},
            {"operator": True},
            {"may": {}},
            {"may": {"operate": False}},
        )
        for more in elsewhere:
            claims = {**VALID, "role": role, **more}
            assert not tokens.verify(f"Bearer {signed(claims)}").operator
    faulty: tuple[Any, ...] = (1, "true", [True], {})
    for given in faulty:
        broken = {**VALID, "may": {"operate": given}}
        assert refusal(tokens, f"Bearer {signed(broken)}") == refusal(tokens, None)


def test_a_key_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    assert Tokens(Auth(key_file=file)).verify(f"Bearer {signed()}").tenant == "rosewood"


def test_a_start_without_a_usable_key_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    for settings in (
        Auth(),
        Auth(key=SecretStr("short")),
        Auth(key_file=tmp_path / "absent"),
        Auth(key_file=tmp_path / "binary"),
    ):
        with pytest.raises(KeyMissingError, match=r"auth\.key"):
            Tokens(settings)
