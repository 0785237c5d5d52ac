"""A receiver of alerts that answers as a test wants."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.http_server import listening

KEY = "a key of the tests' own, for webhooks"


@dataclass
class Receiver:
    """Keeps every message, and answers with the statuses it was given, then with 204."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    hangs: bool = False
    received: list[dict[str, Any]] = field(default_factory=list)

    def taken(self, alert: str) -> list[tuple[str, str]]:
        """Id and event of each message of an alert that was taken, in their order."""
        return [
            (message["id"], message["event"])
            for message in self.received
            if message["alert"] == alert and 200 <= message["answered"] < 300
        ]

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        stamp = request.headers["Feedsvc-Timestamp"]
        right = hmac.new(KEY.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert request.headers["Feedsvc-Signature"] == f"sha256={right}"
        message = json.loads(body)
        assert request.headers["Feedsvc-Delivery"] == message["id"]
        if self.hangs:
            self.received.append({**message, "answered": 0})
            await asyncio.sleep(30)
        status = self.answers.pop(0) if self.answers else 204
        self.received.append({**message, "answered": status})
        headers = {"Location": "/elsewhere"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """One, on a free port."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.receive)
    async with listening(app) as url:
        receiver.url = f"{url}/hook"
        yield receiver
