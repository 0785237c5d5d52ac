"""No raw token stays in the service's memory behind its request: not as a key, not in a value.

The service runs in the test's own process, so that all of its objects can be looked through.
"""

from __future__ import annotations

import asyncio
import gc
import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import SecretStr

from feedsvc.core.process import WorkerContext
from feedsvc.server.app import serving
from feedsvc.settings import Auth, Database, Datasets, Settings
from tests.support.raw import request
from tests.support.service import KEY, REPOSITORY, bearer

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = "/v1/feeds/clients?limit=5"


async def test_no_token_is_kept(world_url: str) -> None:
    settings = Settings(
        auth=Auth(key=SecretStr(KEY)),
        database=Database(url=SecretStr(world_url)),
        datasets=Datasets(file=REPOSITORY / "config" / "datasets.toml"),
    )
    gc.unfreeze()  # what was there before a test may hold a token as well
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        async with serving(settings, WorkerContext(listener)) as served:
            service, port = served.service, listener.getsockname()[1]
            async with asyncio.timeout(60):
                while not await service.pages.catch_up():
                    await asyncio.sleep(0.05)
                marks = [await _ask_everything(port, str(number)) for number in range(3)]
                while (kept := _places(marks)) and served.is_connected():
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0)
            assert _places(marks) == [], kept
            planted = {bearer(subject="planted")["Authorization"]: 1}
            mark = next(iter(planted))[-40:-10]
            assert _places([mark]) == ["a key of a dict"], "the scan finds nothing"


async def _ask_everything(port: int, subject: str) -> str:
    """Send requests of each kind with one token; a part of it that no other text has."""
    header = bearer(subject=subject)["Authorization"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = f"Authorization: {header}"
    kinds = [
        *(request(PAGE, line) for _ in range(3)),  # the second and third are remembered
        request("/v1/feeds/clients?format=ndjson", line),
        request("/v1/feeds/none", line),
        request(f"{PAGE}&limit=x", line),
        request("/api/performance/cache", line),
        request(PAGE, f"{line}x"),  # its signature is another one
    ]
    for kind in kinds:
        writer.write(kind)
    last = request("/live", "Connection: close")
    writer.write(last)
    answers = await reader.read(-1)
    assert answers.count(b"HTTP/1.1 ") == len(kinds) + 1
    assert answers.count(b"HTTP/1.1 401 ") == 1
    writer.close()
    await writer.wait_closed()
    return header[-40:-10]


def _places(marks: list[str]) -> list[str]:
    """Where a text that is longer than a mark holds one: the kinds of objects that refer to it."""
    gc.collect()
    # So that the expression itself holds none.
    text = re.compile("|".join(f"[{mark[0]}]{mark[1:]}" for mark in marks))
    found = _Scan(text, re.compile(text.pattern.encode()), len(marks[0]))
    return [place for holder in gc.get_objects() for place in found.within(holder)]


class _Scan(NamedTuple):
    """A look at what an object refers to, without a call for each of some millions."""

    text: re.Pattern[str]
    data: re.Pattern[bytes]
    longer: int

    def within(self, holder: Any) -> Iterator[str]:
        if isinstance(holder, dict):
            # Of keys that are texts the collector knows nothing.
            for key in list(holder):
                if isinstance(key, str) and len(key) > self.longer and self.text.search(key):
                    yield "a key of a dict"
        for each in gc.get_referents(holder):
            if isinstance(each, str):
                if len(each) > self.longer and self.text.search(each):
                    yield f"a {type(holder).__name__}"
            elif isinstance(each, bytes | bytearray):
                if len(each) > self.longer and self.data.search(each):
                    yield f"a {type(holder).__name__}"
            # Nor of dicts and tuples whose values are numbers or texts.
            elif isinstance(each, dict | tuple) and not gc.is_tracked(each):
                yield from self.within(each)
