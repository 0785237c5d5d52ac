"""The other workers of this service, asked through sockets in the folder that all of them share.

A request reaches one worker, and an operator means all of them. Each worker answers its peers on a
socket of its own: one question a connection, one JSON object a line.
"""

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from feedsvc.core.process import WorkerContext

logger = logging.getLogger(__name__)

Message: TypeAlias = dict[str, Any]

_NAME: Final = re.compile(r"worker_\d+_(\d+)\.sock")
_LONGEST: Final = 4 << 20  # bytes
_PATIENCE: Final = 5.0  # seconds that a question gets to arrive, and its answer to be taken


class Reply(NamedTuple):
    """A peer's answer; None where there was none in time."""

    pid: int
    message: Message | None


class Peers:
    """A client of the peers, and the server that answers their questions."""

    def __init__(self, workplace: WorkerContext) -> None:
        self._folder = workplace.folder
        self._own = f"worker_{workplace.slot}_{os.getpid()}.sock"
        self._server: asyncio.AbstractServer | None = None

    async def open(self, answer: Callable[[Message], Awaitable[Message]]) -> None:
        """Start to answer, by `answer`. Without a shared folder this worker has no peers."""
        if self._folder is None:
            return
        try:
            self._server = await asyncio.start_unix_server(
                partial(self._serve, answer), self._folder / self._own, limit=_LONGEST
            )
        except (OSError, ValueError) as error:
            logger.warning("other workers can't reach this one: %s", error)

    async def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            (self._folder / self._own).unlink(missing_ok=True)

    async def ask(self, question: Message, timeout: float) -> list[Reply]:
        """The answers of all peers within so many seconds."""
        asked = [self._ask(path, pid, question, timeout) for path, pid in self._others()]
        replies = await asyncio.gather(*asked)
        return [reply for reply in replies if reply is not None]

    def _others(self) -> Iterator[tuple[Path, int]]:
        if self._folder is None:
            return
        for path in sorted(self._folder.glob("worker_*.sock")):
            name = _NAME.fullmatch(path.name)
            if name is not None and path.name != self._own:
                yield path, int(name[1])

    async def _ask(self, path: Path, pid: int, question: Message, timeout: float) -> Reply | None:
        """None where the peer has ended."""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST)
                try:
                    writer.write(orjson.dumps(question) + b"\n")
                    line = await reader.readuntil(b"\n")
                finally:
                    writer.close()
            return Reply(pid, orjson.loads(line))
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            return Reply(pid, None)

    async def _serve(
        self,
        answer: Callable[[Message], Awaitable[Message]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                question = orjson.loads(await reader.readuntil(b"\n"))
            reply = await answer(question)
            writer.write(orjson.dumps(reply) + b"\n")
            async with asyncio.timeout(_PATIENCE):
                await writer.drain()
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            logger.debug("a peer's question did not arrive whole")
        except Exception:
            logger.exception("a peer's question could not be answered")
        finally:
            with suppress(OSError):
                writer.close()
