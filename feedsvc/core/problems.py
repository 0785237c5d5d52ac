"""The problems that a client can meet (RFC 9457).

A class holds its status, name and title; its docstring is the page behind `/problems/NAME`, so
it speaks to the client's developer. `detail` never holds SQL, a path, a stack trace or another
tenant's datum.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias

ResetReason: TypeAlias = Literal[
    "expired", "epoch", "rights", "schema", "truncated", "overflow", "larger", "query"
]
"""The reason for which a cursor can't be continued."""


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """A problem without a page of its own."""

    status: ClassVar[int] = 500
    name: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        parameter: str | None = None,
        allowed: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.parameter = parameter
        self.allowed = allowed
        self.headers = dict(headers or {})

    def body(self, instance: str, request_id: str) -> dict[str, Any]:
        """The problem object; `instance` is the request's path."""
        body: dict[str, Any] = {
            "type": f"/problems/{self.name}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "request_id": request_id,
        }
        if self.parameter is not None:
            body["parameter"] = self.parameter
        if self.allowed is not None:
            body["allowed"] = list(self.allowed)
        return body


class Internal(Problem):
    """An error that the service did not expect.

    The service's log has the cause, beside this response's `request_id`. A retry may help.
    """


class BadParameter(Problem):
    """A parameter is unknown, is repeated, or has an invalid value.

    `parameter` names it, `detail` describes the fault, and `allowed` lists the valid values. No
    row was read.
    """

    status = 400
    name = "bad-parameter"
    title = "Bad parameter"


class BadRequest(Problem):
    """The request can't be read as HTTP, or has a body where none belongs."""

    status = 400
    name = "bad-request"
    title = "Bad request"


class Unauthorized(Problem):
    """The request has no valid token.

    Send `Authorization: Bearer TOKEN` with a token that has not expired, was made for this
    service, and is signed with its key. The reason is never in the response; it is in
    the service's log beside the response's `request_id`.
    """

    status = 401
    name = "unauthorized"
    title = "Unauthorized"

    detail_for_all: ClassVar[str] = "A valid bearer token is needed."
    challenge: ClassVar[str] = 'Bearer realm="feedsvc"'

    def __init__(self, reason: str) -> None:
        """`reason` is for the operator's log: nothing of the token, and not in the answer."""
        super().__init__(self.detail_for_all, headers={"WWW-Authenticate": self.challenge})
        self.reason = reason


class TokenExpired(Unauthorized):
    """The token has expired and is otherwise valid: send a new one.

    A stream that was running goes on behind its last row with `Last-Event-ID` or `after`.
    """

    name = "token-expired"
    title = "Token expired"
    detail_for_all = "The token has expired."
    challenge = 'Bearer realm="feedsvc", error="invalid_token"'

    def __init__(self) -> None:
        super().__init__("it has expired")


class Forbidden(Problem):
    """The token is valid, but its holder may not read this."""

    status = 403
    name = "forbidden"
    title = "Forbidden"


class NotFound(Problem):
    """There is no resource at this address, or none that this caller may see."""

    status = 404
    name = "not-found"
    title = "Not found"


class MethodNotAllowed(Problem):
    """This address does not support the method; the `Allow` header lists those it does."""

    status = 405
    name = "method-not-allowed"
    title = "Method not allowed"


class NotAcceptable(Problem):
    """None of the formats or codings that the request accepts is available.

    Ask for one with `?format=json|csv|ndjson|sse`, or name one in `Accept`.
    """

    status = 406
    name = "not-acceptable"
    title = "Not acceptable"


class Reset(Problem):
    """The cursor can't be continued: read the feed anew, from the URL in `fresh`.

    `reason` says why: `expired` (the log no longer reaches back to it), `epoch` (the database was
    restored, promoted or has crashed, or the service has another key), `rights` (who may see which
    rows has changed, or the token is another reader's), `schema` (the relations have changed),
    `truncated`, `overflow` (a statement changed more rows than are logged one by one), `larger`
    (there are more changes than rows to read), `query` (other filters or columns than before).
    Keep the rows that you have until the new export is whole, then replace them.
    """

    status = 409
    name = "reset"
    title = "Reset"

    def __init__(self, reason: ResetReason, fresh: str = "") -> None:
        super().__init__(_RESETS[reason])
        self.reason = reason
        self.fresh = fresh

    def body(self, instance: str, request_id: str) -> dict[str, Any]:
        """See `Problem.body`."""
        body = super().body(instance, request_id)
        return {**body, "reason": self.reason, "fresh": self.fresh}


_RESETS: Final[Mapping[ResetReason, str]] = {
    "expired": "The change log no longer reaches back to this cursor.",
    "epoch": "The cursor is of another life of the database, or of another service.",
    "rights": "Who may see which rows has changed since this cursor.",
    "schema": "The relations behind this feed have changed since this cursor.",
    "truncated": "A table behind this feed was truncated since this cursor.",
    "overflow": "One statement changed more rows than are logged one by one.",
    "larger": "More has changed since this cursor than a new export has to read.",
    "query": "The cursor was given for other filters or columns.",
}


class RequestTimeout(Problem):
    """The request's body did not arrive in time. The connection is closed.

    Send the body right after the headers, with the length of `Content-Length`.
    """

    status = 408
    name = "request-timeout"
    title = "Request timeout"


class ContentTooLarge(Problem):
    """The request's body is larger than the service accepts."""

    status = 413
    name = "content-too-large"
    title = "Content too large"


class UriTooLong(Problem):
    """The request's target is longer than the service accepts."""

    status = 414
    name = "uri-too-long"
    title = "URI too long"


class UnsupportedContentCoding(Problem):
    """The request's body is compressed, or encoded in another way. Send it as it is.

    The service inflates no body, for a small one can become a very large one.
    """

    status = 415
    name = "unsupported-content-coding"
    title = "Unsupported content coding"

    def __init__(self) -> None:
        super().__init__(
            "A body with a Content-Encoding is not read: send it without one.",
            headers={"Accept-Encoding": "identity"},
        )


class UpgradeRequired(Problem):
    """An HTTP/1.0 client can't tell a whole stream from one that broke off.

    Ask with HTTP/1.1, or for one page with `limit=`: that answer carries its length. nginx speaks
    HTTP/1.0 to what is behind it unless its configuration has `proxy_http_version 1.1;`.
    """

    status = 426
    name = "upgrade-required"
    title = "Upgrade required"


class RateLimited(Problem):
    """A limit of this token is used up: requests a second, concurrent streams, rows or bytes.

    `Retry-After` has the seconds until a retry, `RateLimit-Policy` the limit, and `RateLimit` what
    is left of it. A stream that used up its hour's rows or bytes breaks off and is
    continued with the `after` token that came last.
    """

    status = 429
    name = "rate-limited"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after: int, standing: Mapping[str, str]) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after)), **standing})


class HeadersTooLarge(Problem):
    """A header of the request, or all of them together, are longer than the service accepts."""

    status = 431
    name = "headers-too-large"
    title = "Request header fields too large"


class UnknownTransferCoding(Problem):
    """The request's `Transfer-Encoding` is another than `chunked`, the only one that is read."""

    status = 501
    name = "unknown-transfer-coding"
    title = "Unknown transfer coding"

    def __init__(self) -> None:
        super().__init__("Of Transfer-Encoding only chunked is read.")


class Unavailable(Problem):
    """A resource of the service is exhausted. `Retry-After` has the seconds until a retry."""

    status = 503
    name = "unavailable"
    title = "Service unavailable"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class DataFault(Problem):
    """A value in the database can't be read or calculated: the request is not at fault.

    A retry fails alike until the dataset's owner mends it. The operator finds the cause in
    the service's log, beside this answer's `request_id`. Other columns or other rows, by `columns`
    or a filter, may be had meanwhile.
    """

    status = 500
    name = "data-fault"
    title = "Fault in the data"


class DatabaseUnavailable(Unavailable):
    """PostgreSQL can't be reached, is restarting, or closed the connection. Retry in a moment."""

    name = "database-unavailable"
    title = "Database unavailable"


class Busy(Unavailable):
    """Every connection to the database is in use. Retry in a moment."""

    name = "busy"
    title = "Busy"


class Draining(Unavailable):
    """This process is stopping. Retry: another one will answer.

    A stream that was under way breaks off and is continued with the `after` token that came last.
    """

    name = "draining"
    title = "Draining"


class DatasetUnavailable(Unavailable):
    """The dataset's relation has changed, or may no longer be read, and the service can't go on.

    Its operator finds the mistake with `feedsvc check`.
    """

    name = "dataset-unavailable"
    title = "Dataset unavailable"


class DatasetLocked(Unavailable):
    """Another session holds a lock on what the dataset reads, such as an ALTER TABLE that waits.

    Other datasets are served. Retry in a moment; the operator finds the session under `locks`
    in `/api/performance/health`.
    """

    name = "dataset-locked"
    title = "Dataset locked"


class NotFilled(DatasetUnavailable):
    """A materialized view behind the dataset holds no data yet.

    Its operator fills it with `REFRESH MATERIALIZED VIEW`; `feedsvc check` names it.
    """

    name = "not-filled"
    title = "Not filled"


class NotSetUp(Unavailable):
    """The service's own tables, for tickets and the audit log, are not in this database.

    Its operator makes them with `feedsvc migrate up` and grants `feedsvc_service` to its login.
    """

    name = "not-set-up"
    title = "Not set up"


class Timeout(Problem):
    """PostgreSQL did not return the next rows within the time limit.

    Ask for fewer rows, or with a filter or an order that an index serves.
    """

    status = 504
    name = "timeout"
    title = "Timeout"


def problem_types() -> dict[str, type[Problem]]:
    """Every problem by the name behind its `type`."""
    found: dict[str, type[Problem]] = {}
    pending: list[type[Problem]] = [Problem]
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if kind is not Problem:
            found[kind.name] = kind
    return found
