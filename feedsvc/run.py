"""One process that serves, from its first request to its drain."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable

import uvloop

from feedsvc.app import serving
from feedsvc.settings import Settings
from feedsvc.workplace import Workplace

logger = logging.getLogger(__name__)


def run(settings: Settings, workplace: Workplace, on_ready: Callable[[], None]) -> None:
    """Serves on the listening sockets until SIGTERM or SIGINT; a second one stops at once.

    `on_ready` is called when requests are answered. Raises StartError.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, workplace, on_ready))


async def _serve(settings: Settings, workplace: Workplace, on_ready: Callable[[], None]) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with serving(settings, workplace) as service:
        _calm_the_collector()
        on_ready()
        await stop.wait()
        logger.info("draining; a second signal stops at once")
        draining = asyncio.create_task(service.drain.run(settings.streams.drain_timeout))
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurrying):
            task.cancel()
        if hurry.is_set():
            await service.drain.interrupt_all()
        logger.info("drained")


def _calm_the_collector() -> None:
    """Has cycles looked for less often, and never among what is there for good.

    A request leaves a dozen objects that wait to be logged and written down. To look through them
    after every 700 new ones, as Python does, takes a tenth of a busy process's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
