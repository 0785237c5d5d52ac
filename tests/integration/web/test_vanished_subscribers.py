"""Subscribers whose machine or network is gone: no FIN, no RST, and nothing is acknowledged."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys

import pytest

from feedsvc.server.open_files import raise_limit
from feedsvc.settings import Limits
from tests.support.live import Listener, eventually, listen, live_world, on_loop

SO_ATTACH_FILTER = 26  # socket(7), <asm-generic/socket.h>
RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, <linux/filter.h>
PRESENT = 20
MANY = 2_000
NEEDED = 2 * (MANY + PRESENT) + 200

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="filters of sockets are Linux's"),
    pytest.mark.skipif(
        0 <= raise_limit() < NEEDED, reason=f"fewer than {NEEDED} files may be open here"
    ),
]


def vanish(listener: Listener) -> None:
    """Let the client's kernel drop all that comes, as if it were not there."""
    sock: socket.socket = listener.writer.get_extra_info("socket")
    code = ctypes.create_string_buffer(RETURN_NOTHING)
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(code))
    assert struct.calcsize("P") == 8
    listener.writer.transport.pause_reading()  # type: ignore[attr-defined]
    fd = socket.socket(fileno=socket.dup(sock.fileno()))
    with fd:
        fd.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.mark.parametrize("vanishing", [200, pytest.param(MANY, marks=pytest.mark.soak)])
def test_those_that_vanish_are_gone_and_the_others_stay(vanishing: int) -> None:
    async def scenario() -> None:
        free = Limits(enabled=False)
        async with live_world(limits=free, stall_timeout=1.5, ping_interval=1) as world:
            present = [await listen(world) for _ in range(PRESENT)]
            vanished = [await listen(world) for _ in range(vanishing)]
            everyone = PRESENT + vanishing
            await eventually(lambda: world.subscribers.count == everyone)
            for listener in vanished:
                vanish(listener)
            await eventually(lambda: world.subscribers.count == PRESENT)
            assert world.reasons == ["stalled"] * vanishing
            world.broadcast.publish(b"event: change\nid: 1\ndata: {}\n\n")
            for listener in present:
                await listener.until(b"event: change")
            assert (world.counted, world.connections) == (PRESENT, 0)
            assert world.broadcast.count == PRESENT
            for listener in [*present, *vanished]:
                listener.close()
            await asyncio.sleep(0)

    on_loop("uvloop", scenario)
