"""Handling of signals, in a process that serves and in a supervisor of workers.

SIGTERM and SIGINT end it, the second one at once; SIGHUP reads the settings, keys and datasets
anew. New settings need new processes, for half of a service is made of them, so a process that
serves by itself hands over to workers at a reload, and supervises them from then
on: its id stays, for its process manager, and it costs no second process before that.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, TypeAlias

import uvloop

from feedsvc.core.process import WorkerContext
from feedsvc.server.control import ControlLine
from feedsvc.server.preflight import StartError
from feedsvc.server.run import ShutdownRequest, serve
from feedsvc.server.shared_folder import WorkerSlots
from feedsvc.server.supervisor import Supervisor, WorkerPlan
from feedsvc.server.worker import WorkerError
from feedsvc.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

Stop: TypeAlias = Callable[[], None]
Ready: TypeAlias = Callable[[], None]

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def serve_as_worker(settings: Settings, workplace: WorkerContext, line: ControlLine) -> None:
    """Serve as one of several, until a signal or the supervisor ends it. Raises StartError."""
    _run(_worker(settings, workplace, line))


def serve_alone(
    settings: Settings, workplace: WorkerContext, plan: WorkerPlan, on_ready: Ready
) -> None:
    """Serve in this process until a signal. Raises StartError."""
    _run(_alone(settings, workplace, plan, on_ready))


def serve_with_workers(workplace: WorkerContext, plan: WorkerPlan, on_ready: Ready) -> None:
    """Serve with several processes until a signal. Raises StartError."""
    _run(_with_workers(workplace, plan, on_ready))


def _run(work: Awaitable[None]) -> None:
    with _handlers_restored(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def run() -> None:
            await work

        runner.run(run())


async def _worker(settings: Settings, workplace: WorkerContext, line: ControlLine) -> None:
    orders, loop = ShutdownRequest(), asyncio.get_running_loop()
    # The supervisor is gone and can't stop it: it stops by itself.
    line.listen(partial(_obey, orders), orders.stop)
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, orders.stop)
    loop.add_signal_handler(signal.SIGHUP, logger.info, "a worker does not reload by itself")
    try:
        await serve(settings, workplace, lambda: line.say(ready=True), orders)
    finally:
        line.stop_listening()  # why it ended may be said yet


def _obey(orders: ShutdownRequest, message: Mapping[str, Any]) -> None:
    if message.get("stop"):
        orders.stop()
    elif message.get("hand_over"):
        orders.hand_over()


async def _alone(
    settings: Settings, workplace: WorkerContext, plan: WorkerPlan, on_ready: Ready
) -> None:
    orders, slots = ShutdownRequest(), WorkerSlots(workplace.folder)
    own_slot = slots.take()
    workers = Supervisor(plan, workplace, slots)

    def stop() -> None:
        orders.stop()
        workers.stop()

    async def reload() -> None:
        await workers.reload()
        if workers.begun:
            orders.hand_over()

    async with _signals_handled(stop, reload):
        # Of sockets of its own: what hands over stops listening, and its workers go on.
        await serve(settings, workplace.copied(), on_ready, orders)
        slots.give_back(own_slot)
        if workers.begun:
            gc.unfreeze()  # what served is garbage by now
            gc.collect()
            await workers.wait()


async def _with_workers(workplace: WorkerContext, plan: WorkerPlan, on_ready: Ready) -> None:
    workers = Supervisor(plan, workplace, WorkerSlots(workplace.folder))
    async with _signals_handled(workers.stop, workers.reload):
        try:
            await workers.begin()
        except (WorkerError, SettingsError) as error:
            raise StartError(str(error)) from None
        on_ready()
        await workers.wait()


@asynccontextmanager
async def _signals_handled(
    stop: Stop, reload: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Handle signals while the block runs."""
    loop, wanted = asyncio.get_running_loop(), asyncio.Event()
    terminals = [s.fileno() for s in (sys.stdin, sys.stdout, sys.stderr) if _is_terminal(s)]

    def hang_up() -> None:
        if terminals and not os.isatty(terminals[0]):
            _discard_output(terminals)
            stop()  # it was not about settings: the terminal has been closed
        else:
            wanted.set()

    async def keep_reloading() -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            try:
                await reload()
            except Exception:  # else every later SIGHUP would do nothing, and say nothing
                logger.exception("the reload failed")

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    reloading = asyncio.create_task(keep_reloading())
    try:
        yield
    finally:
        reloading.cancel()
        await asyncio.gather(reloading, return_exceptions=True)


def _discard_output(terminals: Sequence[int]) -> None:
    """Discard further output, for its terminal is closed.

    Else Python fails at its end to write what is left, and exits with 120 (sys.exit's
    documentation).
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for terminal in terminals:
        os.dup2(nowhere, terminal)
    os.close(nowhere)


def _is_terminal(stream: object) -> bool:
    try:
        return os.isatty(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """Restore the handlers of signals after the block."""
    before = {number: signal.getsignal(number) for number in (*_STOP_SIGNALS, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
