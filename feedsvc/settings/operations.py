"""Settings by section: how the service is operated."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from feedsvc.settings.values import (
    FromText,
    Seconds,
    Section,
    of_http,
)

_SHORTEST_KEY: Final = 16


class Audit(Section):
    """The audit log of requests, in the table `feedsvc.audit`."""

    enabled: bool = True
    """Record requests in the table `feedsvc.audit`."""
    most_waiting: int = Field(20_000, ge=100, le=1_000_000)
    """Entries that may wait for PostgreSQL; more are dropped and counted."""


class HttpCheck(Section):
    """An address whose answer is part of the service's health."""

    url: Annotated[str, AfterValidator(of_http)]
    """The address."""
    method: Literal["GET", "HEAD"] = "GET"
    """The request's method."""
    status: int = Field(200, ge=100, le=599)
    """The status of a healthy answer."""
    timeout: float = Field(0.5, gt=0, le=0.7)
    """Seconds for an answer."""
    every: Seconds = 10.0
    """Seconds between two requests."""


class Health(Section):
    """The bounds of health checks, and what is checked beside the service's own parts."""

    runbook: str = "docs/runbook.md"
    """Path or URL of the runbook; the state of each component links to its section there."""
    disks: tuple[Path, ...] = ()
    """Paths whose file systems must have room; the directory of temporary files if left out."""
    disk_free: float = Field(0.1, ge=0, lt=1)
    """The share of a file system that must be free."""
    loop_lag: float = Field(0.25, gt=0, le=60)
    """Seconds by which the event loop may be late."""
    clock_offset: float = Field(1.0, gt=0, le=3_600)
    """Seconds by which this machine's clock may differ from PostgreSQL's."""
    oldest_transaction: Seconds = 300.0
    """Seconds that the oldest transaction of the database may last."""
    ready_needs: Annotated[tuple[Literal["database"], ...], *FromText] = ()
    """Dependencies of /ready beside this instance itself. With ["database"] all instances are
    unready at once while PostgreSQL is away, and no balancer lets `stale` pages through.
    """
    repairs_per_minute: int = Field(6, ge=1, le=6_000)
    """Repairs a minute that one process accepts."""
    http: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], HttpCheck] = Field(
        default_factory=dict
    )
    """Addresses by name."""


class Metrics(Section):
    """Counts and times of requests, and the port that Prometheus reads them from."""

    enabled: bool = True
    """Count and time requests."""
    host: str = "127.0.0.1"
    """The address of `port`."""
    port: int | None = Field(None, ge=0, le=65_535)
    """A port of its own on which /metrics needs no token; none if left out, 0 for any free one."""
    shed_above: float = Field(0.1, ge=0, le=60)
    """Seconds of delay of the event loop above which only one request in `shed_to` has its stages
    timed; 0 for all, always.
    """
    shed_to: int = Field(16, ge=1, le=10_000)
    """One request in so many is timed by stages under load."""


class Alerts(Section):
    """Alerts, and the webhook that receives them."""

    file: Path | None = None
    """The file of the rules, relative to the settings file; alerts.toml beside it, if there is one.
    """
    interval: float = Field(5.0, ge=0.2, le=60)
    """Seconds between two evaluations."""
    instance: str | None = Field(None, min_length=1, max_length=200)
    """This service's name in messages and the history; its host and port if left out."""
    group: str | None = Field(None, min_length=1, max_length=200)
    """A name that instances share. The webhook gets one message for all of them when an alert
    begins, and one when it is over.
    """
    webhook_url: SecretStr | None = None
    """URL that messages are sent to."""
    webhook_key: SecretStr | None = None
    """The key that messages are signed with; the receiver has it too."""
    webhook_timeout: Seconds = 5.0
    """Seconds for the webhook's answer."""

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


class Queries(Section):
    """The log of slow queries, and comments in statements."""

    slow: float = Field(0.25, gt=0, le=3_600)
    """Seconds beyond which a query is logged, with its request and without values, and its plan is
    kept; `pools.NAME.slow` goes before it.
    """
    comment_pages: bool = False
    """Put the request's comment on statements of pages and single rows too, beside exports
    and traced requests. PostgreSQL then parses each anew, in some 0.4 ms.
    """


class Advise(Section):
    """`feedsvc advise`, which tries indexes on a copy."""

    scratch: str = Field("feedsvc_advice", min_length=1, max_length=63)
    """Schema of the copy, made and rolled back unless it is there."""


class Tracing(Section):
    """Spans of requests, for OpenTelemetry; needs the extra `tracing`."""

    endpoint: Annotated[str, AfterValidator(of_http)] | None = None
    """URL of a collector of OTLP over HTTP; `/v1/traces` is added to one without a path."""
    sample: float = Field(0.01, ge=0, le=1)
    """The share of requests without a `traceparent` that begin a trace; with one, its sampled flag
    decides.
    """
    timeout: float = Field(2.0, gt=0, le=60)
    """Seconds for an export, its retries included, and for the last one at a stop."""
    service_name: str | None = Field(None, min_length=1, max_length=200)
    """The service's name in traces; OTEL_SERVICE_NAME, else `feedsvc`, if left out."""

    @property
    def begun(self) -> float:
        """The part of the requests without a `traceparent` that begin a trace, if any may."""
        return 0.0 if self.endpoint is None else self.sample


class Log(Section):
    """The log on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe level that is logged."""
    format: Literal["auto", "text", "json"] = "auto"
    """`text`, or `json`, an object a line; `auto` is text on a terminal, else JSON."""
