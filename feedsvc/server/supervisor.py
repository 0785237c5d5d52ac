"""Several processes on one listening socket, each started again when it dies.

A reload starts new ones by the settings, keys and datasets as they are by then; when all of them
answer, the old ones take no more connections and end when their streams have. New ones that can't
begin are ended, and the old ones go on.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from feedsvc import settings
from feedsvc.core import logs
from feedsvc.core.process import WorkerContext
from feedsvc.server.shared_folder import WorkerSlots
from feedsvc.server.worker import Worker, WorkerError
from feedsvc.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

_FIRST_BACKOFF: Final = 0.5  # seconds, doubled with each death that follows soon
_LONGEST_BACKOFF: Final = 30.0
_WELL_AFTER: Final = 10.0  # seconds after which a worker counts as well
_BEGINNING: Final = 30.0  # seconds for a start beside what it waits for the database
_END: Final = 15.0  # seconds for an end beside the drain


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """The command of workers. `count` None: the number of the settings."""

    command: Sequence[str]
    config: Path | None
    count: int | None


@dataclass(slots=True)
class _Generation:
    """Workers that began with the same settings."""

    settings: Settings
    count: int
    workers: list[Worker] = field(default_factory=list)


class Supervisor:
    """The workers of a service, kept at their number until a stop."""

    def __init__(self, plan: WorkerPlan, workplace: WorkerContext, slots: WorkerSlots) -> None:
        self._plan = plan
        self._workplace = workplace
        self._slots = slots
        self._present: _Generation | None = None
        self._old: list[Worker] = []
        self._supervising: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._backoff = _FIRST_BACKOFF

    async def begin(self) -> None:
        """Start workers by the present settings, and retire those before them.

        Raises SettingsError and WorkerError; the former workers then go on.
        """
        effective = settings.load(self._plan.config)
        count = self._plan.count or effective.server.workers
        fresh = _Generation(effective, count)
        try:
            await self._fill(fresh)
            self._refuse_beside_a_stop()
        except BaseException:
            await self._abandon(fresh.workers)
            raise
        before, self._present = self._present, fresh
        logs.configure(effective.log.level, effective.log.format)
        for worker in fresh.workers:
            self._begin_supervising(worker, fresh)
        if before is not None:
            self._retire(before)

    async def reload(self) -> None:
        """As `begin`, but a failure is logged."""
        logger.info("reloading")
        try:
            await self.begin()
        except (SettingsError, WorkerError) as error:
            for line in str(error).splitlines():
                logger.error("reload refused: %s", line)  # noqa: TRY400 - a user's mistake
        else:
            logger.info("reloaded: %d workers", len(self._present.workers if self._present else ()))

    def stop(self) -> None:
        """End them within the drain's time, the second time at once; no other is started."""
        self._stopping.set()
        for worker in self._everyone():
            worker.stop()

    @property
    def begun(self) -> bool:
        """Return whether workers were started."""
        return self._present is not None

    async def wait(self) -> None:
        """Wait for the stop and the end of all workers; kill those that take too long."""
        await self._stopping.wait()
        patience = 0.0
        if self._present is not None:
            given = self._present.settings
            patience = given.server.shutdown_delay + given.streams.drain_timeout
        await self._wait_for_ends(self._everyone(), patience + _END)
        await asyncio.gather(*self._supervising)

    async def _fill(self, fresh: _Generation) -> None:
        """Start as many as there should be. One goes first: what is wrong is wrong for all."""
        first = 1 if self._present is not None else fresh.count
        for many in (first, fresh.count - first):
            started = [self._start(fresh) for _ in range(many)]
            await asyncio.gather(*(self._is_ready(worker, fresh) for worker in started))

    def _start(self, generation: _Generation) -> Worker:
        """Raises WorkerError, as where the system has no room for another process."""
        slot = self._slots.take()
        try:
            worker = Worker(self._plan.command, generation.count, self._workplace, slot)
        except OSError as error:
            self._slots.give_back(slot)
            raise WorkerError(f"no process could be started for a worker: {error}") from None
        generation.workers.append(worker)
        return worker

    async def _is_ready(self, worker: Worker, generation: _Generation) -> None:
        """Raises WorkerError, also where all are to stop meanwhile."""
        patience = generation.settings.database.startup_timeout + _BEGINNING
        ready = asyncio.create_task(worker.ready(patience))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not ready.done():
                ready.cancel()
        self._refuse_beside_a_stop()
        ready.result()

    def _refuse_beside_a_stop(self) -> None:
        """Raises WorkerError once `stop` was called: it has ordered those to end that it knew."""
        if self._stopping.is_set():
            raise WorkerError("the workers are being stopped")

    def _begin_supervising(self, worker: Worker, generation: _Generation) -> None:
        tending = asyncio.create_task(self._supervise(worker, generation))
        self._supervising.add(tending)
        tending.add_done_callback(self._supervising.discard)

    async def _supervise(self, worker: Worker, generation: _Generation) -> None:
        """Wait for a worker's end, and start another one if it was not retired."""
        code = await worker.ended()
        self._slots.give_back(worker.slot)
        if worker in generation.workers:
            generation.workers.remove(worker)
        if worker in self._old:
            self._old.remove(worker)
        if not worker.retired:
            lived = time.monotonic() - worker.started
            self._backoff = _FIRST_BACKOFF if lived > _WELL_AFTER else self._backoff
            what = "worker %d ended with %s; a new one starts in %g s"
            logger.warning(what, worker.process.pid, code, self._backoff)
            await self._replace(generation)

    async def _replace(self, generation: _Generation) -> None:
        """Start another worker, until one is ready."""
        while await self._is_wanted_after_pause(generation):
            try:
                worker = await self._started(generation)
            except WorkerError as error:
                for line in str(error).splitlines():
                    logger.error("a new worker could not begin: %s", line)  # noqa: TRY400
                continue
            self._begin_supervising(worker, generation)
            if generation is not self._present:
                worker.hand_over()  # others have taken over meanwhile
            return

    async def _started(self, generation: _Generation) -> Worker:
        """One more worker, once it is ready. Raises WorkerError; it is ended then."""
        worker = self._start(generation)
        try:
            await self._is_ready(worker, generation)
        except WorkerError:
            generation.workers.remove(worker)
            await self._abandon([worker])
            raise
        return worker

    async def _is_wanted_after_pause(self, generation: _Generation) -> bool:
        """Return whether, after a pause, one more is wanted."""
        pause, self._backoff = self._backoff, min(self._backoff * 2, _LONGEST_BACKOFF)
        try:
            async with asyncio.timeout(pause):
                await self._stopping.wait()
        except TimeoutError:
            return generation is self._present
        return False

    def _retire(self, before: _Generation) -> None:
        """Retire a generation, which ends with its streams. One before it ends now."""
        for worker in self._old:
            worker.stop()
        for worker in before.workers:
            worker.hand_over()
        self._old += before.workers

    async def _abandon(self, workers: Sequence[Worker]) -> None:
        """End workers that are not supervised yet."""
        for worker in workers:
            if worker.is_ready:
                worker.stop()
            else:
                worker.kill()  # it has nothing yet that could be lost
        await self._wait_for_ends(workers, _END)
        for worker in workers:
            self._slots.give_back(worker.slot)

    def _everyone(self) -> list[Worker]:
        return [*(self._present.workers if self._present else ()), *self._old]

    @staticmethod
    async def _wait_for_ends(workers: Sequence[Worker], patience: float) -> None:
        """Wait for the end of workers; kill those that take too long."""
        ending = {asyncio.create_task(worker.ended()): worker for worker in workers}
        if not ending:
            return
        _, left = await asyncio.wait(ending, timeout=patience)
        for task in left:
            logger.error("worker %d does not end, and is killed", ending[task].process.pid)
            ending[task].kill()
        await asyncio.gather(*ending)
