"""Live feeds: the fan-out of ready bytes, and the memory of subscribers.

Seconds are of the server's processor, for all events to all clients, which read in a process of
their own; between two events the server waits until all have taken the last one.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from tests.performance.node import installed, running
from tests.performance.processes import ended, listening
from tests.performance.table import Line, Target, ratio
from tests.performance.timing import Contender, Round, in_turn
from tests.performance.world import Service, World

_CLIENTS: Final = 2_000
_EVENTS: Final = 10  # a round
_BYTES: Final = 400
_IDLE: Final = 5_000
_STALLED: Final = 500
_NODE: Final = Path(__file__).parent / "node_events"


def live_fan_out(_world: World, _service: Service, rounds: int) -> list[Line]:
    """The broadcast against a bare loop of `transport.write` on the same sockets."""
    with _rig() as port, crowd(port, "/live", _CLIENTS):
        ways: dict[str, Contender] = {
            "bare": partial(spent, port, "bare"), "broadcast": partial(spent, port, "broadcast"),
        }  # fmt: skip
        measured = in_turn(ways, rounds)
    subject = f"a bare loop of transport.write : fan-out to {_CLIENTS:,}"
    return [ratio(subject, measured, "bare", "broadcast", Target(math.inf, 0.8))]


def live_memory(_world: World, _service: Service, _rounds: int) -> list[Line]:
    """A subscriber's share of the process's memory. Linux alone."""
    if sys.platform != "linux":
        return []
    lines = []
    for kind, count, most in (("idle", _IDLE, 16), ("stalled", _STALLED, 64)):
        with _rig() as port:
            with crowd(port, "/live", 50):
                spent(port, "broadcast")
            before = memory(port)
            with crowd(port, "/live", count, is_stalled=kind == "stalled"):
                if kind == "stalled":
                    ask(port, "what=flood&events=600&bytes=2000")
                share = (memory(port) - before) / count / 1_024
        subject = f"memory, {kind} subscriber"
        lines.append(Line(subject, [share], f"of {count:,}", Target(most), "KiB"))
    return lines


def live_peers(_world: World, _service: Service, rounds: int) -> list[Line]:
    """Node's http server, and aiohttp-sse's `send`, with as many sockets and the same events."""
    measured = {}
    with _rig() as port:
        for name, path, way in (
            ("feedsvc", "/live", "broadcast"), ("aiohttp-sse", "/aiohttp-sse", "aiohttp-sse"),
        ):  # fmt: skip
            with crowd(port, path, _CLIENTS):
                measured[name] = in_turn({name: partial(spent, port, way)}, rounds)
    if (folder := installed(_NODE)) is not None:
        with running(folder, ()) as base:
            port = int(base.rpartition(":")[2])
            with crowd(port, "/", _CLIENTS):
                measured["Node's http"] = in_turn({"Node's http": partial(spent, port, "")}, rounds)
    ours, *theirs = measured.values()
    return [
        ratio(f"fan-out by {peer} : feedsvc", _paired(ours, rounds_of), peer, "feedsvc")
        for rounds_of in theirs
        for peer in rounds_of[0]
    ]


def _paired(ours: list[Round], theirs: list[Round]) -> list[Round]:
    return [{**one, **other} for one, other in zip(ours, theirs, strict=True)]


def ask(port: int, query: str) -> float:
    """The answer to a question about the server."""
    with urlopen(f"http://127.0.0.1:{port}/measure?{query}", timeout=600) as answer:
        return float(json.load(answer))


def spent(port: int, way: str) -> float:
    """Seconds of the server's processor for a round of events."""
    return ask(port, f"what={way}&events={_EVENTS}&bytes={_BYTES}")


def memory(port: int) -> float:
    """Bytes of the server's resident memory."""
    return ask(port, "what=memory")


@contextmanager
def crowd(port: int, path: str, count: int, *, is_stalled: bool = False) -> Iterator[None]:
    """So many clients, for as long as the block runs."""
    command = [sys.executable, "-m", "tests.performance.crowd", str(port), path, str(count)]
    command += ["stalled"] if is_stalled else []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process, ended(process):
        assert process.stdout is not None
        assert process.stdout.readline() == b"all have begun\n"
        yield


@contextmanager
def _rig() -> Iterator[int]:
    with listening() as (listener, port):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.performance.live_rig", str(listener.fileno())],
            pass_fds=(listener.fileno(),),
        )
        with ended(process):
            yield port
