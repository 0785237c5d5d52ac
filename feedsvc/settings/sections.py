"""Settings by section: the server, its database, datasets and clients."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, SecretStr

from feedsvc.settings.values import (
    ClaimPath,
    Networks,
    Origins,
    PositiveCount,
    ReplicaUrls,
    Seconds,
    Section,
    not_spoofed,
    of_a_primary,
    of_redis,
)


class Server(Section):
    """The listening socket, its processes, and the bounds of connections and requests."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(8080, ge=0, le=65_535)
    """The port to listen on; 0 for any free one."""
    workers: int = Field(1, ge=1, le=256)
    """Processes that serve on the port."""
    instances: int = Field(1, ge=1, le=10_000)
    """Services like this one behind the same balancer. Without Redis, or while it is away, each
    admits its share of the limits.
    """
    secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    """The secret that seals tickets, cookies and values in Redis, the same for all instances. If
    left out: the key that signs tokens, or one that migrations leave in the database.
    """
    max_request_line: int = Field(16_384, ge=1_024, le=1_048_576)
    """Longest first line of a request, in bytes."""
    max_header: int = Field(16_384, ge=1_024, le=1_048_576)
    """Longest line of a request's head, in bytes."""
    max_head: int = Field(65_536, ge=4_096, le=1_048_576)
    """Largest head of a request, in bytes; beyond it the answer is 431."""
    max_pipelined: int = Field(262_144, ge=4_096, le=16_777_216)
    """Most bytes of requests, at most 64, that wait in one connection; one with more is dropped."""
    max_path: int = Field(2_048, ge=256, le=16_384)
    """Longest path of a URL without its query, in bytes."""
    max_accept: int = Field(1_024, ge=256, le=16_384)
    """Longest Accept, and longest Accept-Encoding, in bytes, over all of their lines."""
    max_body: int = Field(65_536, ge=1_024, le=67_108_864)
    """Largest body of a request, in bytes."""
    keepalive_timeout: Seconds = 75.0
    """Seconds that an idle connection is kept between requests."""
    shutdown_delay: float = Field(0.0, ge=0, le=3_600)
    """Seconds that requests are still answered after SIGTERM while /ready is 503, so that a
    balancer notices before any is refused. A second signal ends the delay.
    The container image sets 5.
    """
    header_timeout: Seconds = 10.0
    """Seconds for a request's head to arrive, from the connection's beginning or a later request's
    first byte.
    """
    body_timeout: Seconds = 10.0
    """Seconds for a request's body to arrive."""
    connections_per_address: PositiveCount = 4_096
    """Most connections of one address to one process. An IPv6 /64 is one address."""
    connections: int | None = Field(None, ge=16, le=10_000_000)
    """Most connections to one process. If left out: the limit of open files, less those that the
    service needs; one address gets half of them at most, and a start with too few is refused.
    """
    trusted_proxies: Networks = ()
    """Networks whose X-Forwarded-For is believed, and whose connections are not counted."""
    send_buffer: int = Field(262_144, ge=16_384, le=16_777_216)
    """Bytes of the kernel's buffer for each client. It bounds the memory of stalled clients; over
    fast and long lines a larger one is quicker.
    """


class Cors(Section):
    """Web pages of other origins that may read the answers; none unless listed."""

    origins: Origins = ()
    """Origins whose pages may read answers, or ["*"] for all."""
    max_age: int = Field(600, ge=0, le=86_400)
    """Seconds that a browser may remember the answer to a preflight request."""


Pooler: TypeAlias = Literal["auto", "session", "transaction"]


class Database(Section):
    """PostgreSQL, as the service's own login."""

    url: Annotated[SecretStr, AfterValidator(of_a_primary)] = SecretStr("")
    """The service's own login, as a postgresql:// URL; DATABASE_URL is understood too. Several
    hosts, separated by commas, are one primary and its standbys.
    """
    replicas: ReplicaUrls = ()
    """URLs of standbys for exports of datasets with `replica = true`."""
    replica_lag: float = Field(5.0, ge=1, le=3_600)
    """Most seconds that a standby may be behind."""
    owner_url: SecretStr | None = None
    """An owner's login, for migrations and the repairs that need one; MIGRATION_DATABASE_URL is
    understood too.
    """
    pooler: Pooler = "auto"
    """`session`: sessions last, a pooler's too. `transaction`: a pooler may give each transaction
    another one (docs/pools.md). `auto`: as `transaction` where a pooler is found.
    """
    connect_timeout: Seconds = 2.0
    """Seconds for a new connection."""
    startup_timeout: Seconds = 30.0
    """Seconds that the start waits for a database that is itself starting."""
    release_timeout: Seconds = 1.0
    """Seconds for a connection's return to its pool before it is closed instead."""


class Redis(Section):
    """Redis or Valkey: an accelerator, never needed."""

    url: Annotated[SecretStr, AfterValidator(of_redis)] | None = None
    """URL of one server, a socket, sentinels or a cluster (docs/redis.md); REDIS_URL is understood
    too. Without one each worker has its own cache and share of the limits.
    """
    timeout: float = Field(0.1, gt=0, le=5)
    """Seconds for an answer. After one that takes longer, Redis is not used until it answers again.
    """
    connections: PositiveCount = 2
    """Connections of each process to each server, shared by all requests."""
    prefix: str = Field("feedsvc", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Prefix of every key, for services that share one Redis."""


class Cache(Section):
    """First pages, in memory and in Redis. A dataset's own bounds stand in the datasets file."""

    enabled: bool = True
    """Cache first pages."""
    memory_bytes: int = Field(67_108_864, ge=0, le=1 << 40)
    """Bytes of the cache in each process, keys included; a quarter is for remembered requests. 0
    leaves pages to Redis alone.
    """
    shared: bool = True
    """Keep pages in Redis too, if there is one."""
    wait_timeout: Seconds = 5.0
    """Seconds that a request waits for a page that another request is reading before it reads the
    page itself.
    """
    stale_patience: Seconds = 0.2
    """Seconds that a request for a dataset with `stale` waits for PostgreSQL while its changes are
    not received.
    """
    warm: int = Field(200, ge=0, le=10_000)
    """The number of the most requested pages that are read at a start; 0 for none."""
    prefetch: bool = True
    """Read the next page ahead for a caller that pages through a dataset."""
    prefetch_patience: Seconds = 30.0
    """Seconds after which a page that was read ahead and not requested counts as wasted."""


class Changes(Section):
    """The change log: how often it is read, and how much of it is kept."""

    interval: float = Field(0.02, ge=0, le=60, allow_inf_nan=False)
    """Seconds for which cached pages are shown without another look at the log; 0 looks for each
    request. No page is older than that.
    """
    retention: Seconds = 259_200.0
    """Seconds for which the log is kept: how old a cursor may become."""
    max_bytes: int = Field(1 << 30, ge=1 << 20, le=1 << 44)
    """Bytes of the log, indexes included, beyond which the oldest of it goes before its time."""
    refresh_timeout: Seconds = 600.0
    """Seconds for the refresh of a materialized view that a dataset names in `refreshed`."""


class Claims(Section):
    """The place of each claim in a token; a dot descends into an object."""

    tenant: ClaimPath = "tenant"
    """The claim with the tenant."""
    role: ClaimPath = "role"
    """The claim with the role, `member` or `admin`."""
    client: ClaimPath = "client"
    """The claim that narrows a token to one client: a text. Another value there is 401."""
    subject: ClaimPath = "sub"
    """The claim that tells one person of a tenant from another, for limits and the audit log."""
    operator: ClaimPath = "operator"
    """The claim that is true where the holder may operate the service, with any tenant and role."""


class Auth(Section):
    """The verification of tokens."""

    algorithms: tuple[Literal["HS256", "RS256", "ES256", "EdDSA"], ...] = ("HS256",)
    """Accepted algorithms."""
    key: SecretStr | None = None
    """The key that verifies tokens: a secret, a PEM key or certificate, an OpenSSH key, or a JWK
    set.
    """
    key_file: Path | None = None
    """A file with such a key."""
    jwks_url: Annotated[str, AfterValidator(not_spoofed)] | None = None
    """URL of an issuer's published keys, in addition to `key` or `key_file` or without them."""
    jwks_timeout: Seconds = 2.0
    """Seconds for one fetch of the keys."""
    jwks_refresh: Seconds = 600.0
    """Seconds between two fetches."""
    jwks_cooldown: Seconds = 60.0
    """Least seconds between two fetches for an unknown key."""
    remember: PositiveCount = 10_000
    """The number of verified tokens to remember."""
    audience: str = "feedsvc"
    """The audience that a token must name."""
    issuer: str | None = None
    """The issuer that a token must name; any if left out."""
    leeway: float = Field(5.0, ge=0, le=300)
    """Seconds by which the issuer's clock may differ."""
    claims: Claims = Claims()
    client_required_for: tuple[Literal["member", "admin"], ...] = ()
    """Roles whose tokens must be narrowed to a client; a token without the claim is refused."""


class CallerLimits(Section):
    """The limits of one principal."""

    requests_per_second: float = Field(2_000, gt=0, le=1_000_000)
    """Requests a second."""
    burst: int = Field(4_000, ge=1, le=10_000_000)
    """Requests at once, before the rate applies."""
    tickets_per_second: float = Field(100, gt=0, le=1_000_000)
    """Tickets a second."""
    tickets_burst: int = Field(500, ge=1, le=10_000_000)
    """Tickets at once, before the rate applies."""
    streams: int | None = Field(2_000, ge=1)
    """Streams at a time; unlimited if null."""
    rows_per_hour: int | None = Field(None, ge=1)
    """Rows an hour; unlimited if left out."""
    bytes_per_hour: int | None = Field(None, ge=1)
    """Bytes of content an hour; unlimited if left out."""


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
    """Apply the limits."""
    client: ClientLimits = ClientLimits()
    member: CallerLimits = CallerLimits()
    admin: CallerLimits = CallerLimits()


class Streams(Section):
    """Pages, streams and exports."""

    page_size: int = Field(500, ge=1, le=10_000)
    """Most rows of a page. An answer that needs no more is buffered, with ETag and Link."""
    page_bytes: int = Field(4_194_304, ge=65_536, le=268_435_456)
    """Bytes beyond which a page is streamed after all, without ETag and Link."""
    chunk_bytes: int = Field(262_144, ge=16_384, le=8_388_608)
    """Bytes that are fetched from a cursor, and written, at a time."""
    copy_after: int = Field(1_048_576, ge=0, le=1 << 40)
    """Bytes that a client must have taken at once before its rows come by COPY instead of a cursor,
    which is quicker, and dearer to give up.
    """
    count_timeout: float = Field(0.2, ge=0, le=60)
    """Seconds for counting the rows of a stream that shows progress before its first row; 0 for no
    count, with a `total` of null. Counting ends at 10,000 rows.
    """
    patience: float = Field(0.25, ge=0, le=0.8)
    """Seconds that a cursor is kept for a client that makes it wait, while no request waits for its
    connection.
    """
    stall_timeout: Seconds = 30.0
    """Seconds after which a client that reads nothing is cut."""
    drain_timeout: Seconds = 30.0
    """Seconds for running streams after SIGTERM; a second signal stops at once."""
    handover_timeout: Seconds = 3_600.0
    """Seconds for running streams after a reload, when other workers have taken over."""
    export_timeout: Seconds = 6 * 3600.0
    """Most seconds of one export."""
    ping_interval: Seconds = 15.0
    """Seconds between two pings of a stream of server-sent events, and between heartbeats."""
    subscribers: int = Field(10_000, ge=1, le=1_000_000)
    """Most subscribers of a worker; a further one is answered with 503."""
    rotate_after: Seconds = 600.0
    """Seconds after which a live answer ends and its client comes back, 20 % more or less."""
    membership_rows: int = Field(10_000, ge=0, le=1_000_000)
    """Most rows of a feed whose keys are kept for those who follow it, so that a change of who sees
    which rows (a table behind a policy) is sent as changes and is no reset. A worker keeps a
    hundred times as many keys. 0 for none.
    """


class Datasets(Section):
    """The file that declares the datasets, relative to the settings file."""

    file: Path = Path("datasets.toml")
    """The file of the datasets, relative to the settings file."""
