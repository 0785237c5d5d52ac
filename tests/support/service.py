"""A feedsvc process that serves, forked unless a test needs the real start."""

import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import jwt

from tests.support import forked
from tests.support.redis_server import SHARED_URL

KEY = "a key of the tests' own, long enough for HS256"
NO_REDIS = {"REDIS_URL": ""}
"""Settings of a service that has none, whatever the tests run on."""
REPOSITORY = Path(__file__).parents[2]

_SERVES = re.compile(r"feedsvc serves (http://\S+)")


def token(
    tenant: str = "rosewood",
    role: str = "member",
    client: str | None = None,
    *,
    subject: str | None = None,
    lifetime: float = 3_600,
    operator: bool | None = None,
) -> str:
    """A token as an issuer of its own would make it, not as `feedsvc token` does.

    As in the demo, an admin is an operator too, unless `operator` says otherwise.
    """
    claims = {"aud": "feedsvc", "exp": time.time() + lifetime, "tenant": tenant, "role": role}
    if client is not None:
        claims["client"] = client
    if (role == "admin" and client is None) if operator is None else operator:
        claims["operator"] = True
    if subject is not None:
        claims["sub"] = subject
    return jwt.encode(claims, KEY, algorithm="HS256")


def bearer(
    tenant: str = "rosewood",
    role: str = "member",
    client: str | None = None,
    *,
    subject: str | None = None,
    lifetime: float = 3_600,
    operator: bool | None = None,
) -> dict[str, str]:
    """The header that carries such a token."""
    signed = token(tenant, role, client, subject=subject, lifetime=lifetime, operator=operator)
    return {"Authorization": f"Bearer {signed}"}


@dataclass
class Running:
    """A process that serves at `url`; its output is kept, line by line, in `log`."""

    url: str
    process: forked.Process
    log: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def serving(
    database_url: str,
    *,
    datasets: Path = REPOSITORY / "config" / "datasets.toml",
    settings: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    wrapper: Sequence[str] = (),
    is_forked: bool = True,
) -> Iterator[Running]:
    """`feedsvc serve` on this database and a free port; `settings` as FEEDSVC_ variables.

    `wrapper` is a command that runs the command behind it. With one, with a variable that is no
    setting, or unless `is_forked`, the process and its workers start as in production, with a
    second of processor time each for their imports.

    Unless they name a Redis, or are of one that has none (`NO_REDIS`), it is the one that the
    tests run on, under a prefix that nobody else has.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FEEDSVC_") and name != "REDIS_URL"
    }
    if not {"REDIS_URL", "FEEDSVC_REDIS__URL"} & {*(settings or {})}:
        environment |= {
            "REDIS_URL": os.environ.get(SHARED_URL, ""),
            "FEEDSVC_REDIS__PREFIX": f"tests-{uuid.uuid4().hex}",
            "FEEDSVC_REDIS__TIMEOUT": "2",  # a busy machine's Redis would count as away
        }
    environment |= {
        "DATABASE_URL": database_url,
        "FEEDSVC_AUTH__KEY": KEY,
        "FEEDSVC_SERVER__PORT": "0",
        "FEEDSVC_DATASETS__FILE": str(datasets),
        "PYTHONUNBUFFERED": "1",
        **(settings or {}),
    }
    process, output = forked.start(["serve", *arguments], environment, wrapper, is_forked=is_forked)
    running = Running("", process)
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(output, running, ready), daemon=True)
    reader.start()
    try:
        if not ready.wait(45) or not running.url:
            raise AssertionError("the service did not start:\n" + "".join(running.log))
        yield running
    finally:
        _end(process)
        reader.join(5)


def _read(output: IO[str], running: Running, ready: threading.Event) -> None:
    with output:
        for line in output:
            running.log.append(line)
            if match := _SERVES.search(line):
                running.url = match[1]
                ready.set()
    ready.set()


def _end(process: forked.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(4)
        except subprocess.TimeoutExpired:
            continue
