"""A Redis's URL, in every shape that there is, as a value.

    redis://[user:password@]host[:port][/db]           rediss:// with TLS
    unix://[user:password@]/path/to/socket[?db=0]
    redis+sentinel://[user:password@]host[:port][,…]/service[/db]
    redis+cluster://[user:password@]host[:port][,…]

The first two are redis-py's own; it has none for the others. User and password are those of the
servers; a sentinel's own are options.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote

RedisKind: TypeAlias = Literal["server", "socket", "sentinel", "cluster"]
Node: TypeAlias = tuple[str, int]

_SCHEMES: Final[dict[str, tuple[RedisKind, bool]]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("socket", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PORT: Final = 6_379
_SENTINELS_PORT: Final = 26_379
_NODE: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+)(?::([0-9]{1,5}))?")
_OPTION: Final = re.compile(r"[a-z_]{1,40}")
_VERIFICATIONS: Final = ("required", "optional", "none")
_TRUTHS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

_PERCENT: Final = (
    "has a character that a password must write as %2F (/), %3F (?), %23 (#) or %40 (@)"
)

_FOR_ALL: Final = ("username", "password")
_FOR_TLS: Final = (
    "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname",
    "ssl_ciphers",
)  # fmt: skip
_FOR_SENTINELS: Final = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of a Redis. `nodes` are the server, the sentinels, or some nodes of the cluster.

    `tls` is None without TLS, else redis-py's `ssl_` arguments.
    """

    kind: RedisKind
    nodes: tuple[Node, ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    tls: dict[str, Any] | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """The URL's meaning. Raises ValueError with what to write, and nothing of a password."""
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in _SCHEMES:
            raise ValueError(f"must begin with {_listed(f'{name}://' for name in _SCHEMES)}")
        kind, is_tls = _SCHEMES[scheme]
        authority, path, query = _parts(rest)
        who, _, where = authority.rpartition("@")
        username, _, password = who.partition(":")
        options = _options(query, kind, scheme, is_tls=is_tls)
        service, db = _service_and_db(kind, path, options.get("db", ""))
        return cls(
            kind=kind,
            nodes=_nodes(kind, where),
            path=_socket(path) if kind == "socket" else "",
            service=service,
            db=_db(kind, db),
            tls=_tls(options) if is_tls else None,
            username=unquote(username) or options.get("username"),
            password=unquote(password) or options.get("password"),
            sentinel_username=options.get("sentinel_username"),
            sentinel_password=options.get("sentinel_password"),
        )


def _parts(text: str) -> tuple[str, str, str]:
    """User and hosts, the path with its slash, and the query."""
    place, _, query = text.partition("?")
    authority, slash, path = place.partition("/")
    if "#" in text or "@" in path or ("@" in query and "@" not in authority):
        raise ValueError(_PERCENT)
    return authority, slash + path, query


def _nodes(kind: RedisKind, text: str) -> tuple[Node, ...]:
    if kind == "socket":
        if text:
            raise ValueError("has a host, where a socket has none: write unix:///path/to/redis")
        return ()
    if not text:
        raise ValueError("names no host: write host:port")
    port = _SENTINELS_PORT if kind == "sentinel" else _PORT
    nodes = tuple(_node(part, port) for part in text.split(","))
    if kind == "server" and len(nodes) > 1:
        raise ValueError("names several hosts: write redis+sentinel:// or redis+cluster://")
    return nodes


def _node(text: str, port: int) -> Node:
    match = _NODE.fullmatch(text)
    if match is None or not 1 <= int(match[2] or port) <= 65_535:
        raise ValueError("has in a host's place what is neither host nor host:port")
    return unquote(match[1]).strip("[]"), int(match[2] or port)


def _socket(path: str) -> str:
    if len(path) < 2:
        raise ValueError("names no socket: write unix:///path/to/redis")
    return unquote(path)


def _service_and_db(kind: RedisKind, path: str, db: str) -> tuple[str, str]:
    """The part of the URL behind the hosts. An option goes over the path, as in redis-py."""
    path = path.removeprefix("/")
    if kind == "socket":
        return "", db
    if kind != "sentinel":
        return "", db or path
    service, _, number = path.partition("/")
    if not service:
        raise ValueError("names no service: write redis+sentinel://host:26379/SERVICE")
    return unquote(service), db or number


def _db(kind: RedisKind, text: str) -> int:
    if not re.fullmatch(r"[0-9]{0,5}", text):
        raise ValueError("has no number in its database's place, such as /0")
    number = int(text or 0)
    if kind == "cluster" and number:
        raise ValueError("names a database, and a cluster has only database 0: leave it out")
    return number


def _options(query: str, kind: RedisKind, scheme: str, *, is_tls: bool) -> dict[str, str]:
    known = (
        *_FOR_ALL,
        *(("db",) if kind != "cluster" else ()),
        *(_FOR_TLS if is_tls else ()),
        *(_FOR_SENTINELS if kind == "sentinel" else ()),
    )
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            named = f" {name}" if _OPTION.fullmatch(name) else ""
            raise ValueError(
                f"has an option{named} that {scheme}:// does not take: it takes {_listed(known)};"
                " deadlines and connections are redis.timeout and redis.connections"
            )
        if name in options:
            raise ValueError(f"has the option {name} twice")
        options[name] = value
    return options


def _tls(options: dict[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {}
    for name in _FOR_TLS:
        if name not in options:
            continue
        value = options[name]
        if name == "ssl_check_hostname":
            if value.lower() not in _TRUTHS:
                raise ValueError("ssl_check_hostname must be true or false")
            tls[name] = _TRUTHS[value.lower()]
        elif name == "ssl_cert_reqs" and value not in _VERIFICATIONS:
            raise ValueError(f"ssl_cert_reqs must be {_listed(_VERIFICATIONS)}")
        else:
            tls[name] = value
    return tls


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
