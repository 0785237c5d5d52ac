"""Every setting of the service, in one frozen value.

`config/feedsvc.toml` is overridden by `FEEDSVC_SECTION__KEY` in the environment; `DATABASE_URL`
and `REDIS_URL` are understood too. Times are seconds, sizes bytes.
"""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from feedsvc.redis.address import RedisAddress

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]

# As a browser writes it in Origin: lower case, IDNA's ASCII, nothing behind host and port.
_ORIGIN: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?"
)
_UNWRITTEN_PORTS: Final = {"http": "80", "https": "443"}

_SHORTEST_KEY: Final = 16
# Where one address ends and the next begins.
_NEXT_URL: Final = re.compile(r",(?=\s*postgres(?:ql)?://)")

_PREFIX = "FEEDSVC_"
_DEFAULT_FILE = Path("config/feedsvc.toml")
_PLAIN_VARIABLES = {
    "DATABASE_URL": ("database", "url"),
    "MIGRATION_DATABASE_URL": ("database", "owner_url"),
    "REDIS_URL": ("redis", "url"),
}


def _not_spoofed(url: str) -> str:
    """Whoever can answer in the issuer's place can make any token: TLS, or this machine alone."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ValueError("must be an https:// address")
    return url


def _redis(url: SecretStr) -> SecretStr:
    """An empty one is none."""
    try:
        if url.get_secret_value():
            RedisAddress.parse(url.get_secret_value())
    except ValueError as error:
        raise ValueError(f"redis.url {error}") from None
    return url


def _of_http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("this is no http:// or https:// address")
    return url


class SettingsError(Exception):
    """A setting is unknown or bad; each line of the message names one and where it stands."""


class _Section(BaseModel):
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


def _of_a_primary(url: SecretStr) -> SecretStr:
    asked = parse_qs(urlsplit(url.get_secret_value()).query).get("target_session_attrs", ["any"])
    if asked[-1] not in {"any", "primary"}:
        raise ValueError(
            "target_session_attrs can only be primary: sessions are read-only by default, whatever"
            " the server is; standbys stand in database.replicas"
        )
    return url


def _of_one_host(url: SecretStr) -> SecretStr:
    """How far a standby is behind says nothing of another one behind the same address."""
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in {"postgresql", "postgres"} or not parts.hostname:
        raise ValueError("this is no postgresql:// address")
    if "," in parts.netloc:
        raise ValueError("a replica is one host; list each of them by itself")
    return url


# NoDecode, for pydantic-settings' own refusal of what is no JSON does not name the variable.
FromText = (NoDecode, BeforeValidator(_listed))
Networks = Annotated[tuple[IPvAnyNetwork, ...], *FromText]
Origin = Annotated[str, AfterValidator(_origin)]
ReplicaUrls = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_of_one_host)], ...],
    NoDecode,
    BeforeValidator(_listed_urls),
]
Origins = Annotated[tuple[Origin, ...], *FromText, AfterValidator(_alone_if_any)]


class Server(_Section):
    """Where and how the service listens."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    workers: int = Field(1, ge=1, le=256)
    max_request_line: int = Field(16_384, ge=1_024, le=1_048_576)
    max_header: int = Field(16_384, ge=1_024, le=1_048_576)
    max_body: int = Field(65_536, ge=1_024, le=67_108_864)
    keepalive_timeout: Seconds = 75.0
    # From the connection's beginning, or from a later request's first byte, to its last header.
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 10.0
    # In each process. Many, for an office or a proxy that nobody listed has a single address.
    connections_per_address: Count = 4_096
    # Whose X-Forwarded-For is believed, and whose connections are not counted.
    trusted_proxies: Networks = ()
    # The kernel's share of what a client has not read yet. A fixed size bounds what a thousand
    # stalled clients may hold; over long and fast lines a larger one is quicker.
    send_buffer: int = Field(262_144, ge=16_384, le=16_777_216)


class Cors(_Section):
    """Which web pages of other origins may read the answers; none unless they are listed."""

    origins: Origins = ()
    # How long a browser may remember that it asked; browsers have their own upper bounds.
    max_age: int = Field(600, ge=0, le=86_400)


class Database(_Section):
    """PostgreSQL, as the service's own login."""

    # Several hosts, with commas between them, are one primary and its standbys in turn.
    url: Annotated[SecretStr, AfterValidator(_of_a_primary)] = SecretStr("")
    # Standbys that exports of datasets with `replica = true` are read from.
    replicas: ReplicaUrls = ()
    # How far a standby may be behind.
    replica_lag: float = Field(5.0, ge=1, le=3_600)
    # An owner's login, for migrations, and for repairs that only an owner can make.
    owner_url: SecretStr | None = None
    connect_timeout: Seconds = 2.0
    # How long the start waits for a database that is itself starting.
    startup_timeout: Seconds = 30.0
    # How long a connection's return may take before it is thrown away instead.
    release_timeout: Seconds = 1.0


class Redis(_Section):
    """Redis or Valkey: an accelerator, never needed."""

    # One server, sentinels or a cluster: the shapes are in `feedsvc.redis.address`.
    url: Annotated[SecretStr, AfterValidator(_redis)] | None = None
    # How long an answer may take; one that takes longer is not waited for again until it is back.
    timeout: float = Field(0.1, gt=0, le=5)
    # In each process, to each server; any number of questions share them.
    connections: Count = 2
    # What every key begins with, where several services share one Redis.
    prefix: str = Field("feedsvc", pattern=r"^[A-Za-z0-9._-]{1,64}$")


class Cache(_Section):
    """First pages, in memory and in Redis. A dataset's own bounds stand in the datasets file."""

    enabled: bool = True
    # In each process; 0 leaves pages to Redis alone.
    memory_bytes: int = Field(67_108_864, ge=0, le=1 << 40)
    # Whether pages are kept in Redis too, where there is one.
    shared: bool = True
    # How long a request waits for a page that somebody else is reading before it reads it itself.
    wait_timeout: Seconds = 5.0
    # How long a dataset that may be shown stale waits for PostgreSQL while nobody listens to it.
    stale_patience: Seconds = 0.2
    # How many of the pages that were asked for most are read anew at a start; 0 for none.
    warm: int = Field(200, ge=0, le=10_000)
    # Whether the next page of a caller who is paging is read before it is asked for.
    prefetch: bool = True
    # How long such a page may wait to be asked for until reading it was for nothing.
    prefetch_patience: Seconds = 30.0


class Claims(_Section):
    """Where in a token a claim stands; a dot descends into an object."""

    tenant: str = "tenant"
    role: str = "role"
    client: str = "client"
    subject: str = "sub"


class Auth(_Section):
    """How tokens are verified."""

    algorithms: tuple[Literal["HS256", "RS256", "ES256", "EdDSA"], ...] = ("HS256",)
    # A secret, a PEM key or certificate, or a JWK set.
    key: SecretStr | None = None
    key_file: Path | None = None
    # Where an issuer publishes its keys, beside those of `key` or `key_file` or without them.
    jwks_url: Annotated[str, AfterValidator(_not_spoofed)] | None = None
    jwks_timeout: Seconds = 2.0
    jwks_refresh: Seconds = 600.0
    # The least time between two looks for a key that a token names and nobody knows.
    jwks_cooldown: Seconds = 60.0
    # How many verified tokens are remembered.
    remember: Count = 10_000
    audience: str = "feedsvc"
    issuer: str | None = None
    leeway: float = Field(5.0, ge=0, le=300)
    claims: Claims = Claims()


class CallerLimits(_Section):
    """What one principal may ask for; None is without a limit."""

    requests_per_second: float = Field(2_000, gt=0, le=1_000_000)
    # How many at once, before the rate holds.
    burst: int = Field(4_000, ge=1, le=10_000_000)
    tickets_per_second: float = Field(100, gt=0, le=1_000_000)
    tickets_burst: int = Field(500, ge=1, le=10_000_000)
    streams: int | None = Field(2_000, ge=1)
    rows_per_hour: int | None = Field(None, ge=1)
    bytes_per_hour: int | None = Field(None, ge=1)


class CoupleLimits(CallerLimits):
    """A token that is narrowed to one client: one household."""

    requests_per_second: float = Field(50, gt=0, le=1_000_000)
    burst: int = Field(100, ge=1, le=10_000_000)
    tickets_per_second: float = Field(5, gt=0, le=1_000_000)
    tickets_burst: int = Field(50, ge=1, le=10_000_000)
    streams: int | None = Field(50, ge=1)


class Limits(_Section):
    """Limits for each principal, by its kind."""

    enabled: bool = True
    couple: CoupleLimits = CoupleLimits()
    member: CallerLimits = CallerLimits()
    admin: CallerLimits = CallerLimits()


class Audit(_Section):
    """The log of who read what, in `feedsvc.audit`."""

    enabled: bool = True
    # How many entries may wait for PostgreSQL; what is beyond them is dropped and counted.
    most_waiting: int = Field(20_000, ge=100, le=1_000_000)


class Streams(_Section):
    """A stream's life."""

    # An answer of at most this many rows is one page: buffered, with ETag and Link.
    page_size: int = Field(500, ge=1, le=10_000)
    # A page that grows beyond this is streamed all the same, without ETag and Link.
    page_bytes: int = Field(4_194_304, ge=65_536, le=268_435_456)
    # What is asked from a cursor at a time, and written at a time.
    chunk_bytes: int = Field(524_288, ge=16_384, le=8_388_608)
    # How much a client must have taken in one go before its rows come by COPY instead of a cursor,
    # which is quicker and dearer to give up.
    copy_after: int = Field(8_388_608, ge=0, le=1 << 40)
    # How long a cursor is kept for a client that makes it wait, while nobody else waits for it.
    patience: float = Field(0.25, ge=0, le=0.8)
    stall_timeout: Seconds = 30.0
    drain_timeout: Seconds = 30.0
    # What streams get to finish when a reload has others take over.
    handover_timeout: Seconds = 3_600.0
    export_timeout: Seconds = 6 * 3600.0
    ping_interval: Seconds = 15.0


class PoolSettings(_Section):
    """One pool of connections, in each process."""

    size: Count = 4
    # How many of them exports leave to small requests; a quarter, and at least one, if left out.
    reserve: int | None = Field(None, ge=0)
    # How many may wait for a connection; whoever comes then gets 503 at once.
    most_waiting: int = Field(500, ge=0, le=1_000_000)
    # How long a request may wait for a connection before it gets 503.
    acquire_timeout: Seconds = 2.0
    # How long PostgreSQL may take for the next rows before the request gets 504.
    query_timeout: Seconds = 15.0
    # How long a connection is kept that nobody needs.
    idle_timeout: Seconds = 300.0
    # What PostgreSQL shows of the sessions; "feedsvc " and the pool's name if left out.
    application_name: str | None = Field(None, pattern=r"^[ -~]{1,63}$")

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.reserve is not None and self.reserve >= self.size:
            raise ValueError("reserve must be less than size, for nothing would be left to exports")
        return self

    def kept_for_small(self) -> int:
        """How many connections are for small requests alone."""
        if self.reserve is not None:
            return self.reserve
        return min(self.size - 1, max(1, self.size // 4))


class ReadPool(PoolSettings):
    """One page, one row."""

    size: Count = 8


class BulkPool(PoolSettings):
    """Exports, whose clients would rather wait than be sent away."""

    size: Count = 5
    acquire_timeout: Seconds = 20.0
    query_timeout: Seconds = 60.0


class AnalyticsPool(BulkPool):
    """Heavy reading that must not take the exports' connections."""

    size: Count = 3


class WritePool(PoolSettings):
    """The service's own tables: tickets, the audit log. Whoever has no token can reach no other."""

    size: Count = 3
    # Nothing here is an export.
    reserve: int | None = Field(0, ge=0)


class Pools(_Section):
    """Pools by operation, so that exports never starve small requests."""

    read: ReadPool = ReadPool()
    bulk: BulkPool = BulkPool()
    analytics: AnalyticsPool = AnalyticsPool()
    write: WritePool = WritePool()


class HttpCheck(_Section):
    """An address whose answer is part of the service's health."""

    url: Annotated[str, AfterValidator(_of_http)]
    method: Literal["GET", "HEAD"] = "GET"
    status: int = Field(200, ge=100, le=599)
    timeout: float = Field(0.5, gt=0, le=0.7)
    # Seconds from one look to the next.
    every: Seconds = 10.0


class Health(_Section):
    """What counts as well, and what is looked at beside the service's own parts."""

    # Where the runbook is; each component's state points to its section there.
    runbook: str = "docs/runbook.md"
    # Places whose file systems must have room: where temporary files go, if none is named.
    disks: tuple[Path, ...] = ()
    # The share of a file system that must be free.
    disk_free: float = Field(0.1, ge=0, lt=1)
    # By how much the event loop may be late.
    loop_lag: float = Field(0.25, gt=0, le=60)
    # How far this machine's clock may be from PostgreSQL's.
    clock_offset: float = Field(1.0, gt=0, le=3_600)
    # How old a transaction may get, whoever runs it.
    oldest_transaction: Seconds = 300.0
    # How many repairs may be asked for, of each process.
    repairs_per_minute: int = Field(6, ge=1, le=6_000)
    http: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], HttpCheck] = {}


class Metrics(_Section):
    """What is counted and timed, and where Prometheus finds it."""

    enabled: bool = True
    # A port of its own, on which /metrics asks for no token; None for no such port, 0 for any.
    host: str = "127.0.0.1"
    port: int | None = Field(None, ge=0, le=65_535)
    # An event loop that is later than this has only one request in `shed_to` timed by stages.
    # 0: all are timed, whatever happens.
    shed_above: float = Field(0.1, ge=0, le=60)
    shed_to: int = Field(16, ge=1, le=10_000)


class Alerts(_Section):
    """What wakes somebody, and who is told."""

    # Beside the settings file where it is relative. None: alerts.toml there, if there is one.
    file: Path | None = None
    # Seconds between two looks at the figures.
    interval: float = Field(5.0, ge=0.2, le=60)
    # What messages and the history call this service; its host and port where it is left out.
    instance: str | None = Field(None, min_length=1, max_length=200)
    webhook_url: SecretStr | None = None
    # What messages are signed with; whoever gets them has it too.
    webhook_key: SecretStr | None = None
    webhook_timeout: Seconds = 5.0

    @field_validator("webhook_url")
    @classmethod
    def _is_an_address(cls, url: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(url.get_secret_value()) if url else None
        if parts is not None and not (parts.scheme in ("http", "https") and parts.hostname):
            raise ValueError("must be an http:// or https:// address")
        return url

    @model_validator(mode="after")
    def _can_be_signed(self) -> "Alerts":
        key = self.webhook_key.get_secret_value() if self.webhook_key else ""
        if self.webhook_url is not None and len(key) < _SHORTEST_KEY:
            raise ValueError(
                f"webhook_key must be set beside webhook_url, with {_SHORTEST_KEY} characters or"
                " more: messages are signed with it"
            )
        return self


class Datasets(_Section):
    """Where the datasets are declared, relative to the settings file."""

    file: Path = Path("datasets.toml")


class Log(_Section):
    """The log on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # `auto`: text on a terminal, else JSON, an object a line.
    format: Literal["auto", "text", "json"] = "auto"


class _PlainVariables(InitSettingsSource):
    """`DATABASE_URL`, `REDIS_URL` and the like, as every platform sets them."""

    def __init__(self, settings_class: type[BaseSettings]) -> None:
        values: dict[str, Any] = {}
        for variable, (section, key) in _PLAIN_VARIABLES.items():
            if os.environ.get(variable):
                values.setdefault(section, {})[key] = os.environ[variable]
        super().__init__(settings_class, values)


class Settings(BaseSettings):
    """The effective settings. Read them with `load`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__"
    )

    server: Server = Server()
    cors: Cors = Cors()
    database: Database = Database()
    redis: Redis = Redis()
    cache: Cache = Cache()
    auth: Auth = Auth()
    limits: Limits = Limits()
    audit: Audit = Audit()
    streams: Streams = Streams()
    pools: Pools = Pools()
    health: Health = Health()
    metrics: Metrics = Metrics()
    alerts: Alerts = Alerts()
    datasets: Datasets = Datasets()
    log: Log = Log()

    def masked(self) -> dict[str, Any]:
        """The settings as plain values, passwords and keys replaced by asterisks."""
        plain = self.model_dump(mode="json")
        for section, key in _PLAIN_VARIABLES.values():
            secret: SecretStr | None = getattr(getattr(self, section), key)
            plain[section][key] = mask_url(secret.get_secret_value()) if secret else None
        replicas = self.database.replicas
        plain["database"]["replicas"] = [mask_url(url.get_secret_value()) for url in replicas]
        return plain


def mask_url(url: str) -> str:
    """The URL with its password, and its query, which may hold one, replaced by asterisks.

    Also of one with several hosts, or with a password that should have been percent-encoded.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***" if url else ""
    place, mark, query = rest.partition("?")
    if "@" in query and "@" not in place:
        return f"{scheme}://***"
    who, at, where = place.rpartition("@")
    user = f"{who.partition(':')[0]}:***" if at else ""
    return f"{scheme}://{user}{at}{where}{mark}{'***' if query else ''}"


def load(file: Path | None = None) -> Settings:
    """The settings of this file (else `FEEDSVC_CONFIG`, else `config/feedsvc.toml`).

    Raises SettingsError with a line for each unknown key and bad value.
    """
    path = settings_file(file)
    _refuse_unknown_variables()

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            toml = TomlConfigSettingsSource(settings_cls, path)
            return env_settings, _PlainVariables(settings_cls), toml

    try:
        settings = FromFile()
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error, path))) from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    base = path.parent if path else Path()
    datasets = settings.datasets.model_copy(update={"file": base / settings.datasets.file})
    alerts = settings.alerts.model_copy(update={"file": _alerts_file(base, settings.alerts.file)})
    return settings.model_copy(update={"datasets": datasets, "alerts": alerts})


def _alerts_file(base: Path, named: Path | None) -> Path | None:
    if named is not None:
        return base / named
    usual = base / "alerts.toml"
    return usual if usual.is_file() else None


def settings_file(file: Path | None) -> Path | None:
    """The settings file that is in force, None where there is none and none was asked for."""
    named = os.environ.get("FEEDSVC_CONFIG")
    asked = file or (Path(named) if named else None)
    if asked is not None:
        if not asked.is_file():
            raise SettingsError(f"{asked}: there is no such settings file")
        return asked
    return _DEFAULT_FILE if _DEFAULT_FILE.is_file() else None


def _refuse_unknown_variables() -> None:
    """Environment sources read what they know and pass over the rest: a typo must not be quiet."""
    unknown = [
        name
        for name in sorted(os.environ)
        if name.startswith(_PREFIX) and "__" in name and not _is_known(name)
    ]
    if unknown:
        raise SettingsError("\n".join(f"{name}: there is no such setting" for name in unknown))


def _is_known(variable: str) -> bool:
    model: Any = Settings
    for part in variable.removeprefix(_PREFIX).lower().split("__"):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return False
        model = fields[part].annotation
    return True


def _lines(error: ValidationError, path: Path | None) -> list[str]:
    lines = []
    for item in error.errors():
        place = [str(part) for part in item["loc"]]
        where = _variable(place) or f"{path or 'settings'}: {'.'.join(place)}"
        what = "there is no such setting" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{where}: {what}")
    return lines


def _variable(place: list[str]) -> str | None:
    """The variable that set what stands at this place, or the list that it stands in."""
    for end in range(len(place), 0, -1):
        variable = _PREFIX + "__".join(place[:end]).upper()
        if variable in os.environ:
            return variable
    plain = [name for name, key in _PLAIN_VARIABLES.items() if [*key] == place]
    return next((name for name in plain if os.environ.get(name)), None)
