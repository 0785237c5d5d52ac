"""A real balancer in front of services: HAProxy, with health checks of `/ready`."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import reserved_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HAPROXY = shutil.which("haproxy")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="no haproxy here to balance with")

CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend all
    bind 127.0.0.1:{port}
    default_backend instances
backend instances
    option httpchk GET /ready
    http-check expect status 200
    default-server check inter 100ms fall 2 rise 1
"""


@contextmanager
def balancing(ports: Sequence[int], folder: Path, more: str = "") -> Iterator[str]:
    """The URL of a balancer over the services at these ports, once it accepts connections.

    `more` is what its configuration also has, from within the section of the services on.
    """
    with reserved_port() as port:
        yield from _balancing(port, ports, folder, more)


def _balancing(port: int, ports: Sequence[int], folder: Path, more: str) -> Iterator[str]:
    file = folder / "haproxy.cfg"
    servers = (f"    server of_{each} 127.0.0.1:{each}\n" for each in ports)
    file.write_text(CONFIG.format(port=port) + "".join(servers) + more)
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [str(HAPROXY), "-db", "-f", str(file)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _until_it_accepts(port, process, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(30)


def _until_it_accepts(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            said = (folder / "haproxy.log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
        else:
            return
