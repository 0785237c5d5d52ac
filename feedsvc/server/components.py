"""Parts of a process: opened in order, run beside the requests, closed in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

logger = logging.getLogger(__name__)

_CLOSE_WITHIN: Final = 5.0  # seconds

ComponentStep: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


async def _nothing() -> None:
    """Do nothing, as parts do that need not be opened or closed."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part, by the steps that it needs.

    `run` begins when all parts are open, goes on until it is cancelled, and has ended before the
    first part is closed. An `open` that fails leaves nothing of its own open.
    """

    name: str
    open: ComponentStep = _nothing
    run: ComponentStep | None = None
    close: ComponentStep = _nothing
    close_within: float = _CLOSE_WITHIN
    """Seconds after which `close` is cancelled, and the next part's turn comes."""


@asynccontextmanager
async def opened(components: Sequence[Component]) -> AsyncIterator[None]:
    """Open the components, run them while the block runs, and close them in reverse.

    A failing `open` closes what is open, and is raised. A failing `close` is logged.
    """
    async with AsyncExitStack() as stack:
        for component in components:
            await component.open()
            stack.push_async_callback(_close, component)
        tasks = [_started(each.name, each.run) for each in components if each.run is not None]
        stack.push_async_callback(_cancel, tasks)
        yield


async def _close(component: Component) -> None:
    try:
        async with asyncio.timeout(component.close_within) as deadline:
            await component.close()
    except Exception:
        if deadline.expired():
            what = "%s was not closed within %g s"
            logger.error(what, component.name, component.close_within)  # noqa: TRY400
        else:
            logger.exception("%s could not be closed", component.name)


def _started(name: str, run: ComponentStep) -> asyncio.Task[None]:
    task = asyncio.create_task(run(), name=name)
    task.add_done_callback(_log_end)
    return task


def _log_end(task: asyncio.Task[None]) -> None:
    """Log the end of a task that was not cancelled: none should end by itself."""
    if not task.cancelled():
        what = "the background task of %s ended"
        logger.critical(what, task.get_name(), exc_info=task.exception())


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=_CLOSE_WITHIN)
    for task in left:
        what = "the background task of %s did not end within %g s"
        logger.error(what, task.get_name(), _CLOSE_WITHIN)
