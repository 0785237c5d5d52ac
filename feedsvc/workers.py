"""Several processes on one listening socket, each started again when it dies."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import getLogger
from typing import Final

from feedsvc.app import StartError
from feedsvc.worker_folder import Slots
from feedsvc.workplace import Workplace

logger = getLogger(__name__)

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_FIRST_BACKOFF: Final = 0.5  # seconds, doubled with each death that follows soon
_LONGEST_BACKOFF: Final = 30.0
_WELL_AFTER: Final = 10.0  # seconds after which a worker counts as well


class _Worker:
    """A child that serves. It says over a pipe when it does."""

    def __init__(self, command: Sequence[str], of: int, workplace: Workplace, slot: int) -> None:
        reader, writer = os.pipe()
        self.slot = slot
        self.ready_pipe = reader
        self.ready = False
        self.started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            [*command, *workplace.arguments(slot), f"--ready-fd={writer}"],
            pass_fds=(*workplace.descriptors(), writer),
            # A worker's share of what all of them may do depends on how many there are.
            env={**os.environ, "FEEDSVC_SERVER__WORKERS": str(of)},
            # A terminal's Ctrl-C reaches the whole group; each worker is told once, by us.
            start_new_session=True,
        )
        os.close(writer)

    def hear(self) -> bool:
        """Whether the worker has just said that it serves; closes the pipe either way."""
        said = os.read(self.ready_pipe, 16) != b""
        os.close(self.ready_pipe)
        self.ready = said
        return said


class Workers:
    """A number of workers, kept at that number until a signal ends them."""

    def __init__(self, command: Sequence[str], count: int, workplace: Workplace) -> None:
        self._command = command
        self._count = count
        self._workplace = workplace
        self._slots = Slots(workplace.folder)
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._backoff = _FIRST_BACKOFF

    def run(self, on_ready: Callable[[], None]) -> None:
        """Runs until a signal; `on_ready` is called once all workers answer.

        Raises StartError where a worker can't even start once.
        """
        with _signals(self._pass_on), self._selector:
            for _ in range(self._count):
                self._start()
            told = False
            while self._workers:
                self._look()
                if not told and all(worker.ready for worker in self._workers):
                    told = True
                    on_ready()

    def _start(self) -> None:
        worker = _Worker(self._command, self._count, self._workplace, self._slots.take())
        self._workers.append(worker)
        self._selector.register(worker.ready_pipe, selectors.EVENT_READ, worker)

    def _look(self) -> None:
        """Hears who is ready, and replaces who has died."""
        for key, _ in self._selector.select(timeout=0.2):
            self._selector.unregister(key.fd)
            key.data.hear()
        for worker in [w for w in self._workers if w.process.poll() is not None]:
            self._workers.remove(worker)
            self._slots.give_back(worker.slot)
            if not self._stopping:
                self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        code = worker.process.returncode
        if not worker.ready and code == 1:
            self._stopping = True
            self._tell_all(signal.SIGTERM)
            raise StartError("a worker could not start; its own lines say why")
        lived = time.monotonic() - worker.started
        self._backoff = _FIRST_BACKOFF if lived > _WELL_AFTER else self._backoff
        logger.warning("worker %d ended with %s; a new one starts", worker.process.pid, code)
        time.sleep(self._backoff)
        self._backoff = min(self._backoff * 2, _LONGEST_BACKOFF)
        if not self._stopping:
            self._start()

    def _pass_on(self, number: int) -> None:
        self._stopping = True
        self._tell_all(number)

    def _tell_all(self, number: int) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)


@contextmanager
def _signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Has the handler called for each stop signal for as long as the block runs."""
    before = {n: signal.signal(n, lambda number, _frame: handler(number)) for n in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
