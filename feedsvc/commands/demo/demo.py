"""`feedsvc demo`: everything that the service needs, started, filled in and served."""

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from feedsvc import settings
from feedsvc.access.tokens import Tokens
from feedsvc.commands.demo.embedded import (
    EmbeddedError,
    cache_folder,
    claim_folder,
    claim_slot,
    start_postgres,
    start_valkey,
)
from feedsvc.commands.demo.greeting import greeting, write_ready_file
from feedsvc.commands.demo.world import World, make_triggers, prepare
from feedsvc.server.serve import listening, serve_on
from feedsvc.settings import Settings

logger = logging.getLogger(__name__)

_USUAL_PORT: Final = 8080
_TOKEN_LIFETIME: Final = 30 * 86_400.0  # seconds
_KEY_FILE: Final = "token.key"


@dataclass(frozen=True, slots=True)
class Options:
    """Options of `feedsvc demo`. `port` None is the usual one, or a free one."""

    port: int | None
    rows: int
    seed: int
    ready_file: Path | None
    workers: int
    data: Path | None
    config: Path | None


def run_demo(options: Options) -> None:
    """Run the demo until a signal. Raises EmbeddedError, StartError and SettingsError."""
    with ExitStack() as stack:
        stack.enter_context(_stop_signals_raise())
        claim = claim_folder(options.data) if options.data else claim_slot(cache_folder())
        folder = stack.enter_context(claim)
        server = stack.enter_context(start_postgres(folder))
        redis_url = _redis(stack, folder)
        world = asyncio.run(prepare(server, options.rows, options.seed))
        _export_to_environment(folder, world, redis_url)
        effective = settings.load(options.config)
        asyncio.run(make_triggers(world.admin_url, effective.datasets.file))
        listener = stack.enter_context(listening(effective, "127.0.0.1", _port(options.port)))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        tokens = _tokens(effective, world)

        def on_ready() -> None:
            if options.ready_file is not None:
                write_ready_file(options.ready_file, url, world, redis_url, tokens)
            sys.stdout.write(greeting(url, world, tokens))
            sys.stdout.flush()

        serve_on(effective, listener, options.workers, options.config, on_ready)


def _redis(stack: ExitStack, folder: Path) -> str | None:
    """An embedded Valkey's URL; the service works without one, so its lack is only logged."""
    try:
        return stack.enter_context(start_valkey(folder)).url
    except EmbeddedError as error:
        logger.warning("no Redis: %s", error)
        return None


def _export_to_environment(folder: Path, world: World, redis_url: str | None) -> None:
    """Hand the demo's own settings on as an operator would, to workers too."""
    key_file = folder / _KEY_FILE
    if not key_file.exists():
        key_file.touch(mode=0o600)
        key_file.write_text(secrets.token_urlsafe(48) + "\n")
    os.environ["FEEDSVC_DATABASE__URL"] = world.service_url
    os.environ["FEEDSVC_AUTH__KEY_FILE"] = str(key_file)
    os.environ.pop("FEEDSVC_REDIS__URL", None)
    os.environ.pop("REDIS_URL", None)
    if redis_url is not None:
        os.environ["FEEDSVC_REDIS__URL"] = redis_url


def _tokens(effective: Settings, world: World) -> dict[str, str]:
    tokens = Tokens(effective.auth)
    return {
        "member": tokens.sign(world.tenant, "member", None, _TOKEN_LIFETIME),
        "other_member": tokens.sign(world.other_tenant, "member", None, _TOKEN_LIFETIME),
        "couple": tokens.sign(world.tenant, "member", world.client, _TOKEN_LIFETIME),
        "admin": tokens.sign(world.tenant, "admin", None, _TOKEN_LIFETIME, operator=True),
    }


def _port(asked: int | None) -> int:
    """The given port, else the usual one if it is free, else any free one (0)."""
    if asked is not None:
        return asked
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _USUAL_PORT))
        except OSError:
            return 0
    return _USUAL_PORT


@contextmanager
def _stop_signals_raise() -> Iterator[None]:
    """While servers start and stop, SIGTERM must unwind the stack as Ctrl-C does.

    And SIGINT too where the parent ignores it, as a shell does for what it runs with `&`.
    """

    def unwind(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    handlers = {signal.SIGTERM: unwind, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
