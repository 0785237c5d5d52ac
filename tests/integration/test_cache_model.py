"""Several workers' caches over one Redis, against a database whose history is written down.

The database is a model here, and nothing else is: only so can a write, its notification, a load
and a cancellation come in any order. Redis is real.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from feedsvc import settings
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.page import Page, Wanted, digest_of, pack
from feedsvc.cache.pages import Found, Pages
from feedsvc.cache.shared import Shared
from feedsvc.cache.snapshot import Snapshot
from feedsvc.observations import Observers
from feedsvc.redis_link import RedisLink
from tests.support.datasets import DATASET
from tests.support.redis_server import RunningRedis, redis_running

_WORKERS = range(3)
_TAGS = ("a", "b")
_workers = st.sampled_from(_WORKERS)
_tags = st.sampled_from(_TAGS)


@dataclass
class _Database:
    """Every commit in order. A tag's value is the number of its last commit."""

    next: int = 100
    running: list[int] = field(default_factory=list)
    commits: list[tuple[int, str]] = field(default_factory=list)

    def snapshot(self) -> Snapshot:
        lowest = min(self.running, default=self.next)
        return Snapshot(lowest, self.next, frozenset(self.running))

    def value(self, tag: str) -> int:
        return sum(committed == tag for _, committed in self.commits)


class _Worker:
    def __init__(self, url: str) -> None:
        self.link = RedisLink(url, settings.Redis(timeout=1.0))
        self.ledger = Ledger(keep=300, silence=300)
        given = settings.Cache(memory_bytes=160_000, wait_timeout=0.05)
        self.pages = Pages(given, self.ledger, Shared(self.link), [DATASET], Observers())
        self.untold: list[tuple[int, str]] = []
        self.knows = dict.fromkeys(_TAGS, 0)
        """What this worker was told, or may have missed before it listened: how old is too old."""

    def deliver(self) -> None:
        xid, tag = self.untold.pop(0)
        if self.ledger.listening:
            self.ledger.told(xid, [tag])
            self.knows[tag] += 1


@dataclass
class _Read:
    worker: _Worker
    tag: str
    at_least: int
    task: "asyncio.Task[object]"


class CacheMachine(RuleBasedStateMachine):
    redis: RunningRedis

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.database = _Database()
        self.workers = [self._in_loop(_Worker, self.redis.url) for _ in _WORKERS]
        self.reads: list[_Read] = []
        self.gates: list[asyncio.Event] = []
        self.closing = False
        self.redis.each("FLUSHALL")

    def teardown(self) -> None:
        self.closing = True
        for gate in self.gates:
            gate.set()
        for read in self.reads:
            self._settle(asyncio.wait({read.task}, timeout=10))
        self.every_answer_is_new_enough()
        for worker in self.workers:
            self._settle(worker.pages.close())
            self._settle(worker.link.close())
        self.loop.close()

    # The database

    @rule()
    def begin_writing(self) -> None:
        self.database.running.append(self.database.next)
        self.database.next += 1

    @rule(tag=_tags, latest=st.booleans())
    def commit(self, tag: str, latest: bool) -> None:
        if not self.database.running:
            self.begin_writing()
        xid = self.database.running.pop(-1 if latest else 0)
        self.database.commits.append((xid, tag))
        for worker in self.workers:
            worker.untold.append((xid, tag))

    @rule(worker=_workers)
    def deliver(self, worker: int) -> None:
        if self.workers[worker].untold:
            self.workers[worker].deliver()

    @rule(worker=_workers)
    def beat(self, worker: int) -> None:
        chosen = self.workers[worker]
        while chosen.untold:
            chosen.deliver()
        chosen.ledger.heard(self.database.snapshot())

    @rule(worker=_workers)
    def cut(self, worker: int) -> None:
        self.workers[worker].ledger.lose()
        self.workers[worker].untold.clear()

    @rule(worker=_workers)
    def listen(self, worker: int) -> None:
        chosen = self.workers[worker]
        chosen.untold.clear()
        chosen.ledger.begin(self.database.snapshot())
        chosen.knows = {tag: self.database.value(tag) for tag in _TAGS}

    # Readers

    @rule(worker=_workers, tag=_tags, wait=st.booleans())
    def read(self, worker: int, tag: str, wait: bool) -> None:
        chosen = self.workers[worker]
        # While nobody listens a read goes past the cache.
        known = chosen.knows[tag] if chosen.ledger.listening else self.database.value(tag)
        reading = chosen.pages.page(_wanted(tag), lambda: self._load(tag, wait))
        self.reads.append(_Read(chosen, tag, known, self.loop.create_task(_as_it_is(reading))))
        self._settle(asyncio.sleep(0.002))

    @rule(number=st.integers(0, 5))
    def release(self, number: int) -> None:
        if self.gates:
            self.gates.pop(number % len(self.gates)).set()
            self._settle(asyncio.sleep(0.002))

    @rule(number=st.integers(0, 5))
    def cancel(self, number: int) -> None:
        if self.reads:
            self.reads[number % len(self.reads)].task.cancel()
            self._settle(asyncio.sleep(0.001))

    # What befalls the tiers

    @rule(worker=_workers)
    def evict(self, worker: int) -> None:
        self.workers[worker].pages.memory.clear()

    @rule(how=st.sampled_from(["flush", "garbage", "another's"]), tag=_tags)
    def spoil(self, how: str, tag: str) -> None:
        link, name = self.workers[0].link, Shared(self.workers[0].link)._name(_wanted(tag).key)
        other = pack(_wanted("c").key, self._page("c"))
        match how:
            case "flush":
                self.redis.each("FLUSHALL")
            case "garbage":
                self._settle(link.write("SET", name, b"\x00garbage"))
            case _:
                self._settle(link.write("SET", name, other))

    @invariant()
    def every_answer_is_new_enough(self) -> None:
        left = []
        for read in self.reads:
            if not read.task.done():
                left.append(read)
            elif not read.task.cancelled():
                answer: Any = read.task.result()
                page = answer.held.page if isinstance(answer, Found) else answer
                tag, value = page.records[0].decode().split(":")
                assert tag == read.tag
                assert int(value) >= read.at_least
        self.reads = left

    # Ours

    async def _load(self, tag: str, wait: bool) -> Page:
        page = self._page(tag)
        if wait and not self.closing:
            gate = asyncio.Event()
            self.gates.append(gate)
            await gate.wait()
        return page

    def _page(self, tag: str) -> Page:
        record = f"{tag}:{self.database.value(tag)}".encode()
        snapshot = self.database.snapshot()
        return Page(
            [record], digest_of([record]), "1", False, snapshot, loaded=time.time(), cost=0.0
        )

    def _settle(self, work: Any) -> None:
        self.loop.run_until_complete(work)

    def _in_loop(self, make: Any, *given: object) -> Any:
        async def made() -> Any:
            return make(*given)

        return self.loop.run_until_complete(made())


async def _as_it_is(reading: Any) -> object:
    return await reading


def _wanted(tag: str) -> Wanted:
    return Wanted(f"the page of {tag}", (tag,), replace(DATASET, name="things"))


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with redis_running() as server:
        yield server


def test_no_read_is_older_than_what_its_worker_was_told(redis: RunningRedis) -> None:
    CacheMachine.redis = redis
    chosen = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(CacheMachine, settings=chosen)
