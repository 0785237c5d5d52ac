"""Several workers' caches over one Redis: whatever happens in whichever order, no page is too old.

Each read knows from the model which commits it must show: within the interval of its worker's last
look those that the worker had read, or may have missed before; later all that were committed, for
then it looks; and where the log can't be read all, or for a dataset that may be shown stale those
that the worker knew of. Redis is real.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from feedsvc.cache import invalidation, ledger
from feedsvc.cache.envelope import PageKey, PageRequest
from feedsvc.cache.redis_store import RedisStore
from feedsvc.cache.status import Lookup
from feedsvc.core.principal import Principal
from feedsvc.core.problems import DatabaseUnavailable
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds import page
from feedsvc.feeds.page import Page
from tests.support.cache_reads import Read
from tests.support.cache_steps import SCENES, STEPS, WORKERS, Step, acts
from tests.support.cache_world import (
    CALLERS,
    DATASETS,
    FRESH,
    STALE,
    Database,
    Worker,
    drifted,
    planned,
    serials_of,
    timeline_of,
)
from tests.support.drawn import DRAWN, share
from tests.support.redis_server import RunningRedis, redis_running


class CacheMachine(RuleBasedStateMachine):
    redis: RunningRedis
    keep = FRESH + STALE + 5.0
    now = 0.0
    counts: ClassVar[Counter[str]] = Counter()
    made: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        # A name of its own in Redis, too: what the machine before had sent, and was then ended,
        # may arrive behind the flush, and would be of another history with the same numbers.
        self.prefix = f"history-{next(self.made)}"
        CacheMachine.now = 1_000.0
        self.loop = asyncio.new_event_loop()
        self.database = Database()
        self.put: list[tuple[PageKey, bytes]] = []
        self.workers = [self._worker() for _ in WORKERS]
        self.reads: list[Read] = []
        self.shown: list[tuple[Worker, Dataset, Principal, Page]] = []
        self.gates: list[asyncio.Event] = []
        self.slow = asyncio.Event()
        self.closing = False
        self.redis.each("FLUSHALL")

    def teardown(self) -> None:
        self.closing = True
        for gate in (*self.gates, self.slow):
            gate.set()
        for read in self.reads:
            self._settle(asyncio.wait({read.task}, timeout=60))
        try:
            self.every_answer_is_new_enough()
            assert self.reads == [], "a read never came to its end"
        finally:
            for read in self.reads:
                read.task.cancel()
            for worker in self.workers:
                self._settle(worker.close())
            self.loop.close()

    @initialize()
    def every_log_is_read(self) -> None:
        self.connect([*WORKERS], at_once=True)

    @rule(step=STEPS)
    def happens(self, step: Step) -> None:
        name, given = step
        getattr(self, name)(**given)

    # The database

    def begin_writing(self) -> None:
        self.database.begin()

    def commit(self, name: str, tenant: str, client: str, large: bool, at: int) -> None:
        if self.database.away:
            return
        made = self.database.commit(at, name, tenant, client, large=large)
        for worker in self.workers:
            if name not in self.database.mute:
                worker.unread.append(made)

    def roll_back(self, at: int) -> None:
        if self.database.running:
            self.database.running.pop(at % len(self.database.running))

    def meddle_with_triggers(self, name: str, then: str) -> None:
        self.database.state += 1
        if then == "off":
            self.database.mute.add(name)
        elif then == "on":
            self.database.mute.discard(name)

    def shake(self, how: str) -> None:
        self.database.away = how == "away"
        self.database.outages += 1
        for worker in self.workers:
            worker.lose()
        if how != "away":
            self.database.fail_over(2 if "lose" in how else 0)
            for worker in self.workers:
                worker.knows -= self.database.lost
                worker.unread = [c for c in worker.unread if c.serial not in self.database.lost]
                worker.goes_on = False  # its epoch is another
            for read in self.reads:
                read.at_least -= self.database.lost
                read.lost = frozenset()

    # The readers of the log

    def read_log(self, workers: list[int], what: str) -> None:
        for chosen in (self.workers[worker] for worker in workers):
            if not chosen.is_connected:
                continue
            if what != "answer" and chosen.look_on_its_way is None:
                chosen.ask()
            if what != "ask" and chosen.look_on_its_way is not None:
                chosen.answer()

    def all_is_well(self) -> None:
        """Nothing is amiss any more, for which the other steps see soon enough."""
        self.database.away = False
        self.database.state += bool(self.database.mute)
        self.database.mute.clear()
        lost = [number for number in WORKERS if not self.workers[number].is_connected]
        self.connect(lost, at_once=True)
        self.read_log([*WORKERS], "answer")
        self.survey([*WORKERS])
        self.read_log([*WORKERS], "look")

    def survey(self, workers: list[int]) -> None:
        for chosen in (self.workers[worker] for worker in workers):
            if chosen.is_connected:
                self._settle(chosen.survey())

    def lose(self, workers: list[int]) -> None:
        for worker in workers:
            self.workers[worker].lose()

    def connect(self, workers: list[int], at_once: bool) -> None:
        for worker in workers if not self.database.away else []:
            self._settle(self.workers[worker].connect())
            if at_once:
                self.read_log([worker], "look")

    def wait(self, seconds: float, silent: int) -> None:
        """Time passes, in which one of the workers does not look."""
        CacheMachine.now += seconds
        for worker in WORKERS:
            if worker != silent:
                self.read_log([worker], "look")

    # Readers

    def read(
        self,
        workers: list[int],
        name: str,
        caller: Principal,
        gated: bool,
        at_door: bool = False,
        slow: bool = False,
    ) -> None:
        """Loads wait for a gate, or Redis is slow, until somebody else lets them go on."""
        dataset = DATASETS[name]
        for chosen in (self.workers[worker] for worker in workers):
            wanted = chosen.wanted(dataset, caller)
            if wanted is not None:
                chosen.shared.held_up = self.slow if slow else None
                load = self._loader(chosen, dataset, caller, gated)
                reading = chosen.at_the_door if at_door else chosen.pages.page
                self._begin(chosen, wanted, caller, reading(wanted, load))

    def play(self, scene: str, well: bool, name: str, caller: Principal) -> None:
        """Do what other steps do, just where it can hurt."""
        if well:
            self.all_is_well()
        meant = acts(name, caller)
        for word in scene.split():
            self.happens(meant[word])
            self.every_answer_is_new_enough()
        self.hurry()

    def stream(self, worker: int, name: str, caller: Principal, gated: bool) -> None:
        chosen, dataset = self.workers[worker], DATASETS[name]
        wanted = chosen.wanted(dataset, caller)
        if wanted is not None:
            load = self._loader(chosen, dataset, caller, gated)
            reading = chosen.stream(wanted, load)
            self._begin(chosen, wanted, caller, reading, may_be_stale=False)

    def prove(self) -> None:
        """A page may count as of a later snapshot only if it is what that one would have given."""
        for shown in () if self.database.away else self.shown:
            self._prove(*shown)

    def _prove(self, worker: Worker, dataset: Dataset, caller: Principal, shown: Page) -> None:
        wanted = worker.wanted(dataset, caller)
        if wanted is None or timeline_of(shown) != self.database.timeline:
            return  # no request lasts so long
        if self._settle(worker.pages.proves(wanted, shown, self.database.snapshot())):
            self.counts["proven"] += 1
            unlogged = self.database.unlogged - worker.knows
            assert self.database.view(dataset, caller) - serials_of(shown) <= unlogged

    def release(self, at: int) -> None:
        if self.gates:
            self.gates.pop(at % len(self.gates)).set()
            self._go_on(*(read.task for read in self.reads))

    def hurry(self) -> None:
        """Every answer of Redis arrives."""
        self.slow.set()
        self.slow = asyncio.Event()
        for worker in self.workers:
            worker.shared.held_up = None
        self._go_on(*(read.task for read in self.reads))

    def cancel(self, at: int) -> None:
        if self.reads:
            chosen = self.reads[at % len(self.reads)].task
            chosen.cancel()
            self._go_on(chosen)

    # What befalls the tiers

    def evict(self, workers: list[int]) -> None:
        for worker in workers:
            self.workers[worker].pages.memory.clear()

    def crash(self, worker: int) -> None:
        """It gives up no claim, and another takes its place."""
        gone = self.workers[worker]
        self._settle(gone.link.close())
        its = [read.task for read in self.reads if read.worker is gone]
        for task in its:
            task.cancel()
        self._settle(gone.close())
        if its:
            self._settle(asyncio.wait(its, timeout=60))
        # One may have had its page before it was cancelled; nobody asks the dead what it proves.
        self.every_answer_is_new_enough()
        self.workers[worker] = self._worker()
        self.shown = [shown for shown in self.shown if shown[0] is not gone]

    def spoil(self, how: str, at: int, place: int) -> None:
        """Put an earlier page a second time, or under another's key, or damaged."""
        if not self.put:
            return
        link, (key, envelope) = self.workers[0].link, self.put[-1 - at % len(self.put)]
        if how == "flush":
            self.redis.each("FLUSHALL")
            return
        if how == "another's":
            key, _ = self.put[-1 - place % len(self.put)]
        value = b"feedsvc-page-1\n{garbage" if how == "garbage" else envelope
        self._settle(link.ask("SET", RedisStore(link)._name(key), value))

    def swap(self) -> None:
        """The last two that were put change places."""
        self.spoil("another's", at=0, place=1)
        self.spoil("another's", at=1, place=0)

    # What must hold

    @invariant()
    def every_answer_is_new_enough(self) -> None:
        done = [read for read in self.reads if read.task.done()]
        self.reads = [read for read in self.reads if not read.task.done()]
        for read in done:
            shown = read.judged(self.database, self.counts)
            if shown is not None:
                self.shown.append((read.worker, read.dataset, read.caller, shown))
                del self.shown[:-8]

    # Ours

    def _begin(
        self,
        worker: Worker,
        wanted: PageRequest,
        caller: Principal,
        reading: Awaitable[Lookup],
        *,
        may_be_stale: bool = True,
    ) -> None:
        dataset, joins = wanted.dataset, worker.reads(wanted)
        view = self.database.view(dataset, caller)
        may_be_old = dataset.stale > 0 and may_be_stale and not worker.is_connected
        if worker.is_current() or may_be_old:
            at_least = view & worker.knows
        elif worker.is_connected:  # it looks first
            at_least = view - (self.database.unlogged - worker.knows)
        else:
            at_least = view
        is_read = worker.is_connected
        lost = frozenset(self.database.lost) if is_read or not dataset.stale else frozenset()
        task = self.loop.create_task(_as_it_is(reading))
        outages = self.database.outages - self.database.away
        self.reads.append(
            Read(worker, dataset, caller, set(at_least), self.now, joins, outages, lost, task)
        )
        self._go_on(task)

    def _loader(
        self, worker: Worker, dataset: Dataset, caller: Principal, gated: bool
    ) -> Callable[[], Awaitable[Page]]:
        async def load() -> Page:
            read = worker.page(dataset, caller)
            if gated and not self.closing:
                gate = asyncio.Event()
                self.gates.append(gate)
                await gate.wait()
                if self.database.away:
                    raise DatabaseUnavailable("It has gone away.")
            return read

        return load

    def _go_on(self, *tasks: "asyncio.Task[object]") -> None:
        """Until these are done, or may be waiting for somebody's gate."""
        for _ in range(100 if tasks else 0):
            _, left = self._settle(asyncio.wait(tasks, timeout=0.004))
            if not left or self.gates or any(w.shared.held_up for w in self.workers):
                return

    def _worker(self) -> Worker:
        async def made() -> Worker:
            worker = Worker(
                self.redis.url,
                self.prefix,
                self.database,
                lambda: CacheMachine.now,
                self.put,
                self.counts,
                self.keep,
            )
            await worker.link.open()
            return worker

        return self.loop.run_until_complete(made())

    def _settle(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)


async def _as_it_is(reading: Awaitable[Lookup]) -> Lookup:
    return await reading


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with redis_running() as running:
        yield running


@pytest.fixture(params=["ample", "tight"])
def counts(
    redis: RunningRedis, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Counter[str]:
    """Counts of events, with a ledger that has room, and with one that forgets when it can."""
    CacheMachine.redis, CacheMachine.counts = redis, Counter()
    monkeypatch.setattr(page, "time", SimpleNamespace(time=lambda: CacheMachine.now))
    monkeypatch.setattr(invalidation, "triggers", SimpleNamespace(plan=planned, drifted=drifted))
    if request.param == "tight":
        monkeypatch.setattr(ledger, "_MOST_ITEMS", 3)
        monkeypatch.setattr(ledger, "_MOST_WRITERS", 1)
    return CacheMachine.counts


REACHED = (
    "hit memory", "hit redis", "miss absent", "miss invalidated", "miss expired", "miss redis",
    "collapsed", "bypass deaf", "stale memory", "away", "proven", "answers, past it",
)  # fmt: skip


def played() -> Iterator[tuple[Any, str, Any]]:
    """Each scene of each dataset, for one of two callers in turn in `make test`, or for both."""
    for number, scene in enumerate(SCENES):
        for turn, name in enumerate(DATASETS, number):
            callers = CALLERS[:2] if share(2) == 2 else (CALLERS[turn % 2],)
            yield from ((scene, name, caller) for caller in callers)


@DRAWN
def test_scenes_that_are_likely_to_hurt(counts: Counter[str]) -> None:
    for scene, name, caller in played():
        machine = CacheMachine()
        try:
            machine.every_log_is_read()
            machine.play(scene, False, name, caller)
            machine.every_answer_is_new_enough()
        except AssertionError as error:
            raise AssertionError(f"{scene!r} of {name} for {caller}: {error}") from error
        finally:
            machine.teardown()
    assert all(counts[what] for what in REACHED), f"not everything came to pass: {counts}"


@DRAWN
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("counts")
def test_no_read_is_older_than_the_changes_that_its_worker_knows() -> None:
    run_state_machine_as_test(
        CacheMachine,
        settings=hypothesis_settings(
            max_examples=share(40),
            stateful_step_count=50,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
