"""One process that serves, from its first request to its last."""

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from feedsvc.core.process import WorkerContext
from feedsvc.server.app import Serving, serving
from feedsvc.settings import Settings

logger = logging.getLogger(__name__)

_PARTING: Final = 1.0  # seconds that clients of idle connections get to notice their end
_TICK: Final = 0.1  # seconds between checks for connected clients


class ShutdownRequest:
    """Orders to end, from a signal or from the supervisor."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.hurried = asyncio.Event()
        self.succeeded = asyncio.Event()
        """Other processes take new connections; this one finishes what is under way."""
        self._any = asyncio.Event()

    def stop(self) -> None:
        """Finish what runs within the drain's time, and end; the second time, end at once."""
        (self.hurried if self.stopped.is_set() else self.stopped).set()
        self._any.set()

    def hand_over(self) -> None:
        """End when no client is connected any more."""
        self.succeeded.set()
        self._any.set()

    async def come(self) -> None:
        """Wait for the first order."""
        await self._any.wait()


async def serve(
    settings: Settings,
    workplace: WorkerContext,
    on_ready: Callable[[], None],
    orders: ShutdownRequest,
) -> None:
    """Serve on the listening sockets until ordered to end.

    `on_ready` is called when requests are answered. Raises StartError.
    """
    async with serving(settings, workplace) as served:
        _tune_collector()
        on_ready()
        await orders.come()
        if not orders.stopped.is_set():
            await _hand_over(served, settings.streams.handover_timeout, orders)
        else:
            await _announce_end(served, settings.server.shutdown_delay, orders)
        logger.info("draining; a second signal stops at once")
        await _drain(served, settings.streams.drain_timeout, orders)
        await served.part(0.0 if orders.hurried.is_set() else _PARTING)
        logger.info("drained")


async def _hand_over(served: Serving, timeout: float, orders: ShutdownRequest) -> None:
    """Answer each connected client one last time, and let streams run to their end."""
    logger.info("handing over: no new connections are taken here")
    served.service.drain.leave()
    await served.stop_accepting()
    try:
        async with asyncio.timeout(timeout):
            # aiohttp sets no event that could be waited for.
            while served.is_connected() and not orders.stopped.is_set():  # noqa: ASYNC110
                await asyncio.sleep(_TICK)
    except TimeoutError:
        await served.service.drain.interrupt_all()


async def _announce_end(served: Serving, delay: float, orders: ShutdownRequest) -> None:
    """Answer on, while load balancers notice that this process is not ready."""
    served.service.drain.announce()
    if delay:
        logger.info("not ready any more; requests are answered for another %g s", delay)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await orders.hurried.wait()


async def _drain(served: Serving, timeout: float, orders: ShutdownRequest) -> None:
    """Refuse new streams, and wait for those that run, unless the end is ordered at once."""
    draining = asyncio.create_task(served.service.drain.run(timeout))
    hurrying = asyncio.create_task(orders.hurried.wait())
    try:
        await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        draining.cancel()
        hurrying.cancel()
    if orders.hurried.is_set():
        await served.service.drain.interrupt_all()


def _tune_collector() -> None:
    """Collect cycles less often, and never among objects that stay for good.

    A request leaves a dozen objects that wait to be logged and written down. To look through them
    after every 700 new ones, as Python does, takes a tenth of a busy process's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
