"""Kinds of values that settings have, and what is wrong with those that are none."""

import json
import re
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
)
from pydantic_settings import NoDecode

from feedsvc.settings.redis_url import RedisAddress

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False)]
PositiveCount = Annotated[int, Field(ge=1, le=100_000)]
ClaimPath = Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$", max_length=256)]

# As a browser writes it in Origin: lower case, IDNA's ASCII, nothing behind host and port.
_ORIGIN: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?"
)
_UNWRITTEN_PORTS: Final = {"http": "80", "https": "443"}

# Where one address ends and the next begins.
_NEXT_URL: Final = re.compile(r",(?=\s*postgres(?:ql)?://)")


def not_spoofed(url: str) -> str:
    """A forged answer in the issuer's place makes any token: TLS, or this machine alone."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ValueError("must be an https:// address")
    return url


def of_redis(url: SecretStr) -> SecretStr:
    """An empty one is none."""
    try:
        if url.get_secret_value():
            RedisAddress.parse(url.get_secret_value())
    except ValueError as error:
        raise ValueError(f"redis.url {error}") from None
    return url


def of_http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("this is no http:// or https:// address")
    return url


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _origin(text: str) -> str:
    if text == "*":
        return text
    if not _ORIGIN.fullmatch(text):
        raise ValueError(
            "an origin is scheme://host[:port] in lower case without a path,"
            ' such as "https://app.example.com", or "*"'
        )
    scheme, _, rest = text.partition("://")
    if rest.endswith(f":{_UNWRITTEN_PORTS.get(scheme)}"):
        raise ValueError("a browser leaves out the port that its scheme implies, so leave it out")
    return text


def _alone_if_any(origins: tuple[str, ...]) -> tuple[str, ...]:
    if "*" in origins and len(origins) > 1:
        raise ValueError('"*" lets every origin in, so it stands alone')
    return origins


def _listed(given: Any) -> Any:
    """A list in the environment: JSON, or simply its items with commas between them."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given) if given.lstrip().startswith("[") else _split(given)
    except ValueError:
        raise ValueError("this is neither a list in JSON nor items with commas") from None


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _listed_urls(given: Any) -> Any:
    """As `_listed`, for addresses, which may have commas of their own."""
    if not isinstance(given, str) or given.lstrip().startswith("["):
        return _listed(given)
    return [url.strip() for url in _NEXT_URL.split(given) if url.strip()]


def of_a_primary(url: SecretStr) -> SecretStr:
    asked = parse_qs(urlsplit(url.get_secret_value()).query).get("target_session_attrs", ["any"])
    if asked[-1] not in {"any", "primary"}:
        raise ValueError(
            "target_session_attrs can only be primary: sessions are read-only by default, whatever"
            " the server is; standbys stand in database.replicas"
        )
    return url


def _of_one_host(url: SecretStr) -> SecretStr:
    """The lag of a standby is not that of another one behind the same address."""
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in {"postgresql", "postgres"} or not parts.hostname:
        raise ValueError("this is no postgresql:// address")
    if "," in parts.netloc:
        raise ValueError("a replica is one host; list each of them by itself")
    return url


# NoDecode, for pydantic-settings' own refusal of what is no JSON does not name the variable.
FromText = (NoDecode, BeforeValidator(_listed))
Networks = Annotated[tuple[IPvAnyNetwork, ...], *FromText]
WebOrigin = Annotated[str, AfterValidator(_origin)]
ReplicaUrls = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_of_one_host)], ...],
    NoDecode,
    BeforeValidator(_listed_urls),
]
Origins = Annotated[tuple[WebOrigin, ...], *FromText, AfterValidator(_alone_if_any)]
