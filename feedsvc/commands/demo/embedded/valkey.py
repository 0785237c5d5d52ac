"""An embedded Valkey (or Redis): a cache on a free port of 127.0.0.1 that keeps nothing."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from feedsvc.commands.demo.embedded.account import Account, server_account
from feedsvc.commands.demo.embedded.binaries import find_valkey, runnable_for
from feedsvc.commands.demo.embedded.copies import cache_folder
from feedsvc.commands.demo.embedded.errors import EmbeddedError, explained
from feedsvc.commands.demo.embedded.ports import on_free_port
from feedsvc.commands.demo.embedded.processes import ServerProcess
from feedsvc.commands.demo.embedded.valkeyprocess import (
    HOST,
    KILL,
    START_SECONDS,
    TERMINATE,
    bring_up,
    end_left_valkey,
    valkey_process,
    write_settings,
)


@dataclass(frozen=True, slots=True)
class ValkeyServer:
    """A running Valkey."""

    host: str
    port: int
    password: str = field(repr=False)
    process: ServerProcess = field(repr=False)

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            EmbeddedError: it isn't running.
        """
        return self.process.pid

    @property
    def url(self) -> str:
        """The URL, password included."""
        return f"redis://:{self.password}@{self.host}:{self.port}/0"

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start it again after `stop`, on the same port, empty.

        Raises:
            EmbeddedError: it is running, or isn't ready after `seconds`, or ended: why.
        """
        bring_up(self.process, self.port, self.password, seconds)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it if it runs: at once, or in order and at once after 5 s."""
        self.process.end(KILL if kill else TERMINATE)


@contextmanager
def start_valkey(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    binary: Path | None = None,
    cache: Path | None = None,
    seconds: float = START_SECONDS,
) -> Iterator[ValkeyServer]:
    """Valkey with its files in `folder`, which is the caller's alone: claim it first.

    `settings` go over those of the demo, and over the random password; `binary` is a server of
    your choice, Redis from 6.2 on; `cache` is where it is copied to if need be; `seconds` are for
    the start.

    Raises:
        EmbeddedError: there is no binary, or the server doesn't start: why, in one line.
    """
    account = server_account()
    account.make_folder(folder)
    folder = folder.resolve()
    with explained(f"start Valkey in {folder}"):
        server_binary = _binary(binary, account, cache or cache_folder())
        end_left_valkey(folder)

        def start(port: int) -> ValkeyServer:
            given = dict(settings or {})
            password = given.setdefault("requirepass", secrets.token_urlsafe(24))
            write_settings(folder, account, port, password, given)
            process = valkey_process(server_binary, folder, account)
            bring_up(process, port, password, seconds)
            return ValkeyServer(HOST, port, password, process)

        server = on_free_port(start)
    try:
        yield server
    finally:
        server.stop()


def _binary(chosen: Path | None, account: Account, cache: Path) -> Path:
    if chosen is None:
        return find_valkey(account, cache)
    runnable = runnable_for(chosen.absolute(), account, cache)
    if runnable is None:
        raise EmbeddedError(f"{account.name} can't run {chosen}: name another Valkey server")
    return runnable
