"""Settings by section."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from feedsvc.settings.values import (
    ClaimPath,
    FromText,
    Networks,
    Origins,
    PositiveCount,
    ReplicaUrls,
    Seconds,
    Section,
    not_spoofed,
    of_a_primary,
    of_http,
    of_redis,
)

_SHORTEST_KEY: Final = 16


class Server(Section):
    """Where and how the service listens."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    workers: int = Field(1, ge=1, le=256)
    # Services like this one behind a balancer: without Redis each holds callers to its share.
    instances: int = Field(1, ge=1, le=10_000)
    # What tickets, cookies and values in Redis are sealed with, the same for all instances. Where
    # it is left out: the key that signs tokens, or the one that migrations leave in the database.
    secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    max_request_line: int = Field(16_384, ge=1_024, le=1_048_576)
    max_header: int = Field(16_384, ge=1_024, le=1_048_576)
    # A request's head as a whole, and those that wait in one connection for their turn.
    max_head: int = Field(65_536, ge=4_096, le=1_048_576)
    max_pipelined: int = Field(262_144, ge=4_096, le=16_777_216)
    # An address without its query; Accept, and Accept-Encoding, each in all of its lines.
    max_path: int = Field(2_048, ge=256, le=16_384)
    max_accept: int = Field(1_024, ge=256, le=16_384)
    max_body: int = Field(65_536, ge=1_024, le=67_108_864)
    keepalive_timeout: Seconds = 75.0
    # How long requests are still answered after SIGTERM while /ready says 503, so that whoever
    # balances the load has noticed before any are refused.
    shutdown_delay: float = Field(0.0, ge=0, le=3_600)
    # From the connection's beginning, or from a later request's first byte, to its last header.
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 10.0
    # In each process. Many, for an office or a proxy that nobody listed has a single address.
    connections_per_address: PositiveCount = 4_096
    # In each process, from everywhere. None: as many as it may open files, less what it needs.
    connections: int | None = Field(None, ge=16, le=10_000_000)
    # Whose X-Forwarded-For is believed, and whose connections are not counted.
    trusted_proxies: Networks = ()
    # The kernel's share of what a client has not read yet. A fixed size bounds what a thousand
    # stalled clients may hold; over long and fast lines a larger one is quicker.
    send_buffer: int = Field(262_144, ge=16_384, le=16_777_216)


class Cors(Section):
    """Which web pages of other origins may read the answers; none unless they are listed."""

    origins: Origins = ()
    # How long a browser may remember that it asked; browsers have their own upper bounds.
    max_age: int = Field(600, ge=0, le=86_400)


class Database(Section):
    """PostgreSQL, as the service's own login."""

    # Several hosts, with commas between them, are one primary and its standbys in turn.
    url: Annotated[SecretStr, AfterValidator(of_a_primary)] = SecretStr("")
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


class Redis(Section):
    """Redis or Valkey: an accelerator, never needed."""

    # One server, sentinels or a cluster: the shapes are in `feedsvc.redis.address`.
    url: Annotated[SecretStr, AfterValidator(of_redis)] | None = None
    # How long an answer may take; one that takes longer is not waited for again until it is back.
    timeout: float = Field(0.1, gt=0, le=5)
    # In each process, to each server; any number of questions share them.
    connections: PositiveCount = 2
    # What every key begins with, where several services share one Redis.
    prefix: str = Field("feedsvc", pattern=r"^[A-Za-z0-9._-]{1,64}$")


class Cache(Section):
    """First pages, in memory and in Redis. A dataset's own bounds stand in the datasets file."""

    enabled: bool = True
    # In each process, keys included; a quarter is for what requests mean that come again. 0 leaves
    # pages to Redis alone.
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


class Claims(Section):
    """Where in a token a claim stands; a dot descends into an object."""

    tenant: ClaimPath = "tenant"
    role: ClaimPath = "role"
    client: ClaimPath = "client"
    subject: ClaimPath = "sub"
    # True where its holder may operate the service, whatever its tenant and role.
    operator: ClaimPath = "operator"


class Auth(Section):
    """How tokens are verified."""

    algorithms: tuple[Literal["HS256", "RS256", "ES256", "EdDSA"], ...] = ("HS256",)
    # A secret, a PEM key or certificate, an OpenSSH key, or a JWK set.
    key: SecretStr | None = None
    key_file: Path | None = None
    # Where an issuer publishes its keys, beside those of `key` or `key_file` or without them.
    jwks_url: Annotated[str, AfterValidator(not_spoofed)] | None = None
    jwks_timeout: Seconds = 2.0
    jwks_refresh: Seconds = 600.0
    # The least time between two looks for a key that a token names and nobody knows.
    jwks_cooldown: Seconds = 60.0
    # How many verified tokens are remembered.
    remember: PositiveCount = 10_000
    audience: str = "feedsvc"
    issuer: str | None = None
    leeway: float = Field(5.0, ge=0, le=300)
    claims: Claims = Claims()
    # Roles whose tokens must be narrowed to a client: one without the claim is refused.
    client_required_for: tuple[Literal["member", "admin"], ...] = ()


class CallerLimits(Section):
    """What one principal may ask for; None is without a limit."""

    requests_per_second: float = Field(2_000, gt=0, le=1_000_000)
    # How many at once, before the rate holds.
    burst: int = Field(4_000, ge=1, le=10_000_000)
    tickets_per_second: float = Field(100, gt=0, le=1_000_000)
    tickets_burst: int = Field(500, ge=1, le=10_000_000)
    streams: int | None = Field(2_000, ge=1)
    rows_per_hour: int | None = Field(None, ge=1)
    bytes_per_hour: int | None = Field(None, ge=1)


class ClientLimits(CallerLimits):
    """The limits of a token that is narrowed to one client."""

    requests_per_second: float = Field(50, gt=0, le=1_000_000)
    burst: int = Field(100, ge=1, le=10_000_000)
    tickets_per_second: float = Field(5, gt=0, le=1_000_000)
    tickets_burst: int = Field(50, ge=1, le=10_000_000)
    streams: int | None = Field(50, ge=1)


class Limits(Section):
    """Limits for each principal, by its kind."""

    enabled: bool = True
    client: ClientLimits = ClientLimits()
    member: CallerLimits = CallerLimits()
    admin: CallerLimits = CallerLimits()


class Audit(Section):
    """The log of who read what, in `feedsvc.audit`."""

    enabled: bool = True
    # How many entries may wait for PostgreSQL; what is beyond them is dropped and counted.
    most_waiting: int = Field(20_000, ge=100, le=1_000_000)


class Streams(Section):
    """A stream's life."""

    # An answer of at most this many rows is one page: buffered, with ETag and Link.
    page_size: int = Field(500, ge=1, le=10_000)
    # A page that grows beyond this is streamed all the same, without ETag and Link.
    page_bytes: int = Field(4_194_304, ge=65_536, le=268_435_456)
    # What is asked from a cursor at a time, and written at a time.
    chunk_bytes: int = Field(262_144, ge=16_384, le=8_388_608)
    # How much a client must have taken in one go before its rows come by COPY instead of a cursor,
    # which is quicker and dearer to give up.
    copy_after: int = Field(1_048_576, ge=0, le=1 << 40)
    # How long the rows of a stream that shows progress may be counted before its first row; 0: they
    # are not counted, and its `total` is null.
    count_timeout: float = Field(0.2, ge=0, le=60)
    # How long a cursor is kept for a client that makes it wait, while nobody else waits for it.
    patience: float = Field(0.25, ge=0, le=0.8)
    stall_timeout: Seconds = 30.0
    drain_timeout: Seconds = 30.0
    # What streams get to finish when a reload has others take over.
    handover_timeout: Seconds = 3_600.0
    export_timeout: Seconds = 6 * 3600.0
    ping_interval: Seconds = 15.0


class HttpCheck(Section):
    """An address whose answer is part of the service's health."""

    url: Annotated[str, AfterValidator(of_http)]
    method: Literal["GET", "HEAD"] = "GET"
    status: int = Field(200, ge=100, le=599)
    timeout: float = Field(0.5, gt=0, le=0.7)
    # Seconds from one look to the next.
    every: Seconds = 10.0


class Health(Section):
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
    # What /ready depends on beside this instance itself. With PostgreSQL all instances are unready
    # at once while it is away, and no balancer lets `stale` pages through.
    ready_needs: Annotated[tuple[Literal["database"], ...], *FromText] = ()
    # How many repairs may be asked for, of each process.
    repairs_per_minute: int = Field(6, ge=1, le=6_000)
    http: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], HttpCheck] = Field(
        default_factory=dict
    )


class Metrics(Section):
    """What is counted and timed, and where Prometheus finds it."""

    enabled: bool = True
    # A port of its own, on which /metrics asks for no token; None for no such port, 0 for any.
    host: str = "127.0.0.1"
    port: int | None = Field(None, ge=0, le=65_535)
    # An event loop that is later than this has only one request in `shed_to` timed by stages.
    # 0: all are timed, whatever happens.
    shed_above: float = Field(0.1, ge=0, le=60)
    shed_to: int = Field(16, ge=1, le=10_000)


class Alerts(Section):
    """What wakes somebody, and who is told."""

    # Beside the settings file where it is relative. None: alerts.toml there, if there is one.
    file: Path | None = None
    # Seconds between two looks at the figures.
    interval: float = Field(5.0, ge=0.2, le=60)
    # What messages and the history call this service; its host and port where it is left out.
    instance: str | None = Field(None, min_length=1, max_length=200)
    # Instances that share a cause: of theirs the webhook gets one message that an alert begins, and
    # one that it is over for all.
    group: str | None = Field(None, min_length=1, max_length=200)
    webhook_url: SecretStr | None = None
    # What messages are signed with; whoever gets them has it too.
    webhook_key: SecretStr | None = None
    webhook_timeout: Seconds = 5.0

    @field_validator("webhook_url")
    @classmethod
    def _is_an_address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            of_http(url.get_secret_value())
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


class Datasets(Section):
    """Where the datasets are declared, relative to the settings file."""

    file: Path = Path("datasets.toml")


class Queries(Section):
    """What is told of the statements that requests send to PostgreSQL."""

    # A query that takes longer is a line in the log, with its request and without values.
    slow: float = Field(0.25, gt=0, le=3_600)
    # Whether pages and single rows carry their request's comment too, not only exports and traced
    # requests: their statements are parsed anew each time then, some 0.4 ms each.
    comment_pages: bool = False


class Tracing(Section):
    """Spans of requests, for OpenTelemetry; needs the extra `tracing`."""

    # Where a collector takes OTLP over HTTP; `/v1/traces` is added to an address without a path.
    endpoint: Annotated[str, AfterValidator(of_http)] | None = None
    # The part of the requests without a `traceparent` that begin a trace; with one, its sampled
    # flag decides.
    sample: float = Field(0.01, ge=0, le=1)
    # How long an export may take, its retries included, and how long a stop waits for the last.
    timeout: float = Field(2.0, gt=0, le=60)
    # OTEL_SERVICE_NAME, else `feedsvc`, where it is left out.
    service_name: str | None = Field(None, min_length=1, max_length=200)

    @property
    def begun(self) -> float:
        """The part of the requests without a `traceparent` that begin a trace, if any may."""
        return 0.0 if self.endpoint is None else self.sample


class Log(Section):
    """The log on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # `auto`: text on a terminal, else JSON, an object a line.
    format: Literal["auto", "text", "json"] = "auto"
