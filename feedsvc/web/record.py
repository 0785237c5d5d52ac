"""The record of one request, filled in on its way and reported at its end."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from feedsvc.core import cause, identifiers
from feedsvc.core.events import RequestEnded, RequestResult
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Problem, Unauthorized
from feedsvc.web.context import CLIENT_ADDRESS, REQUEST_ID, STAGES

_WELL_FORMED_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def request_id(given: str | None) -> str:
    """The caller's own id if it is well-formed, else a new one."""
    if given is not None and _WELL_FORMED_ID.fullmatch(given):
        return given
    return identifiers.new_hex()


@dataclass(slots=True)
class RequestRecord:
    """Filled in as they become known; `query` is made by `feedsvc.web.request_summary`."""

    # The pattern, for a raw path may hold what does not belong in a log.
    route: str
    guarded: bool = False
    principal: Principal | None = None
    dataset: str | None = None
    format: str | None = None
    query: str | None = None
    rows: int = 0
    size: int = 0
    problem: Problem | None = None
    """The reason for a refusal or a break-off, where it has a name."""

    def ended(
        self, request: web.Request, outcome: web.StreamResponse | BaseException
    ) -> RequestEnded:
        """The observation of the request's end, by an answer or by what broke it."""
        status, result = self._result(outcome)
        stages, present = request[STAGES], cause.PRESENT.get()
        seconds, first_byte = stages.elapsed(), stages.first_byte
        if first_byte is None and isinstance(outcome, web.StreamResponse):
            first_byte = seconds  # the whole answer leaves now
        return RequestEnded(
            at=time.time(),
            request_id=request[REQUEST_ID],
            method=request.method,
            route=self.route,
            guarded=self.guarded,
            status=status,
            result=result,
            why=None if self.problem is None else self.problem.name,
            seconds=seconds,
            first_byte=first_byte,
            stages=stages.seconds,
            address=request.get(CLIENT_ADDRESS),
            principal=self.principal,
            dataset=self.dataset,
            format=self.format,
            query=self.query,
            rows=self.rows,
            size=self.size,
            reason=self.problem.reason if isinstance(self.problem, Unauthorized) else None,
            source=stages.said.get("source"),
            trace=None if present is None else present.trace,
        )

    def _result(self, outcome: web.StreamResponse | BaseException) -> tuple[int, RequestResult]:
        match outcome:
            case web.StreamResponse(status=status) if status < 400:
                return status, "complete"
            case web.StreamResponse(status=status) if status < 500:
                return status, "refused"
            case web.StreamResponse(status=status):
                return status, "failed"
            case asyncio.CancelledError():
                return 499, "cancelled"  # nginx's number for a client that left
            case _ if self.problem is None:
                return 499, "cancelled"
            case _:
                return 200, "failed"  # a body that was broken off behind its head


RECORD: Final = web.RequestKey("particulars", RequestRecord)
