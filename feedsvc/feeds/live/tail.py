"""The tail of the change log: one a worker, for all cohorts of live feeds.

A tick is one question for what was written, and where that concerns cohorts one transaction, in
whose snapshot all of them are read. Between the two, and from one tick to the next, it keeps
nothing in the database.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from feedsvc.backends.postgres.faults import as_problems
from feedsvc.backends.postgres.pool import Pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import Cursor
from feedsvc.core import cause
from feedsvc.core.broadcast import Broadcast, FanOut
from feedsvc.core.events import FeedReset, LiveTick, Observers
from feedsvc.core.identifiers import new_hex
from feedsvc.core.logs import redacted
from feedsvc.core.principal import Principal
from feedsvc.core.problems import (
    Busy,
    DatabaseUnavailable,
    DatasetLocked,
    Internal,
    NotSetUp,
    Problem,
    Reset,
    Timeout,
    Unavailable,
)
from feedsvc.core.single_flight import Flights
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from feedsvc.feeds.arrivals import FAULTS, Arrived, age
from feedsvc.feeds.delta_wait import Deltas
from feedsvc.feeds.feed_state import KnownFeeds
from feedsvc.feeds.live.cohort import Cohort
from feedsvc.feeds.live.live_query import LiveQuery
from feedsvc.feeds.live.step import ChangeReader, LiveStep
from streams import live

logger = logging.getLogger(__name__)

IDLE_PAUSE: Final = 0.25
"""Seconds between two questions while nothing is written to what is followed."""
VERIFY_EVERY: Final = 2.0
"""Seconds after which rights and schema are read again, although nothing was written."""
_IDLE_AFTER: Final = 5.0  # seconds without a change
_LINGER: Final = 10.0  # seconds that a cohort is kept behind its last subscriber
_RETRY_MS: Final = 1_000
_LOCKED_PAUSE: Final = 2.0  # seconds, behind a lock on what a cohort reads
_MOST_TIMEOUTS: Final = 3
_KEYS_IN_ALL: Final = 100  # times those of one feed, for all feeds of all cohorts
_OF_ALL: Final = (DatabaseUnavailable, Busy, NotSetUp, Internal)
"""Problems that no cohort is to blame for."""
_PATIENCE: Final = 10.0  # seconds that one who joins waits for the tail
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds, where the log can't be read


class TailLimits(NamedTuple):
    """Limits of a tail, from the settings."""

    most_keys: int = 0
    """Most keys of a feed that are kept for a cohort (`streams.membership_rows`)."""
    slow: float = float("inf")
    """Seconds beyond which a query is reported as slow (`queries.slow`)."""
    sync_for: float = 0.0
    """Seconds for which the heartbeats of a cohort have the same state."""


class _Moves:
    """The sum of a tick."""

    def __init__(self, committed_at: float) -> None:
        self.committed_at = committed_at
        self.cohorts = self.changes = 0
        self.kept = 0  # keys, of all cohorts

    def add(self, step: LiveStep) -> None:
        self.cohorts += 1
        self.changes += step.upserts + step.deletes


class Tail:
    """Follows the log for the cohorts of a worker, as long as there are any."""

    def __init__(
        self,
        deltas: Deltas,
        own: Pool,
        fan_out: FanOut,
        observers: Observers,
        limits: TailLimits,
    ) -> None:
        """`own` is the tail's pool; joining subscribers read from that of deltas."""
        self.failing_since: float | None = None
        """The time since which the log can't be read (Unix), None while it can be."""
        self._answered_at = 0.0  # Unix; of the last question that was answered, 0 before the first
        self._followed_at = 0.0  # Unix; since when there is something to ask for
        self._cursors, self._arrivals, self._read = deltas
        self._own = own
        self._fan_out = fan_out
        self._observers = observers
        self._limits = limits
        self._cohorts: dict[tuple[object, ...], Cohort] = {}
        self._flights: Flights[LiveStep] = Flights()
        self._task: asyncio.Task[None] | None = None
        self._known: tuple[str | None, str | None] | None = None  # life and floor
        self._verified: dict[tuple[object, ...], float] = {}  # rules, and when (monotonic)
        self._suspect: set[tuple[object, ...]] = set()
        self._unverified: set[tuple[object, ...]] = set()  # rules to be read at the next look
        self._changed_at = 0.0  # monotonic
        self._moves = _Moves(0.0)

    @property
    def failing_for(self) -> float:
        """Seconds for which the log can't be read, 0 while it can be."""
        return 0.0 if self.failing_since is None else max(0.0, time.time() - self.failing_since)

    @property
    def looked_ago(self) -> float | None:
        """Seconds since the log was last read, None while nothing is followed."""
        if not any(cohort.cursor is not None for cohort in self._cohorts.values()):
            return None
        return max(0.0, time.time() - max(self._answered_at, self._followed_at))

    @property
    def cohorts(self) -> Sequence[Cohort]:
        """The cohorts that are followed."""
        return list(self._cohorts.values())

    def cohort(self, query: LiveQuery, principal: Principal, address: str) -> Cohort:
        """The cohort of this query and reader, made where there is none."""
        key = (principal.scope, *(feed.identity for feed in query.feeds))
        cohort = self._cohorts.get(key)
        if cohort is None or cohort.broadcast.ended:
            reader = Principal(principal.tenant, principal.role, principal.client, float("inf"))
            broadcast = Broadcast(self._fan_out)
            cohort = Cohort(query.feeds, reader, broadcast, self._cursors, address)
            self._cohorts[key] = cohort
        if self._task is None:
            self._followed_at = time.time()
            self._task = asyncio.create_task(self._follow())
        return cohort

    async def step(self, cohort: Cohort, since: Cursor, *, shared: bool = True) -> LiveStep:
        """The changes for a cohort since a cursor: read once for all that ask together.

        Unless it is `shared` what is under way already will not do: the reader has more than the
        state of the cursor, of which that might know nothing. Raises Reset and other Problems.
        """
        if shared:
            key = f"{id(cohort)} {self._cursors.text(since)}"
            step = await self._flights.join(key, lambda: self._step(cohort, since))
        else:
            step = await self._step(cohort, since)
        cohort.begin(step)
        return step

    def heartbeat(self, cohort: Cohort) -> bytes:
        """An idle subscriber's sign of life, with the cohort's state."""
        return cohort.heartbeat(self._limits.sync_for)

    async def number_behind(self, cohort: Cohort, snapshot: Snapshot) -> int | None:
        """The number of the cohort's first event for a reader that has this state.

        None where its events from there on are not kept. Waits until the cohort has reached that
        state, for a step that is being read may have an older one. Raises Unavailable.
        """
        await self._looked_at(cohort, lambda: cohort.has_reached(snapshot))
        return cohort.number_behind(snapshot)

    async def verify(self, cohort: Cohort) -> None:
        """Read the cohort's rights and schema anew; it ends where they have changed.

        Raises Unavailable.
        """
        cohort.is_suspect = True
        await self._looked_at(cohort, lambda: not cohort.is_suspect)

    async def is_still_in(self, cohort: Cohort, state: Cursor, within: float) -> bool:
        """Return whether a state was the cohort's still in a look that began behind this call.

        So were the rights and the schema that all cohorts with its rules have. False where there is
        no such look within so many seconds.
        """
        enough = cohort.looks + 2  # the next one to end may have begun
        self._unverified.add(cohort.rules)
        try:
            await self._looked_at(cohort, lambda: cohort.looks >= enough, within)
        except Unavailable:
            return False
        return cohort.is_still_in(state)

    async def catch_up(self, cohort: Cohort, number: int) -> tuple[Sequence[bytes], int]:
        """The net events of a reader who lacks those from this number on.

        And the number of the event to go on with. Raises Problem.
        """
        since = cohort.state_before(number)
        events: list[bytes] = []
        while since is not None:
            step = await self.step(cohort, since)
            before, after = self._cursors.text(since), self._cursors.text(step.cursor)
            events += step.events(before, after, syncs=True)
            since = step.cursor
            found = await self.number_behind(cohort, since.snapshot)
            if found is not None:
                return events, found
        raise Unavailable("This live answer can't be caught up with.")

    async def _looked_at(
        self, cohort: Cohort, is_enough: Callable[[], bool], within: float | None = None
    ) -> None:
        """Wait until the looks at the cohort are enough, or it has ended. Raises Unavailable."""
        try:
            async with asyncio.timeout(_PATIENCE if within is None else within):
                while not is_enough() and not cohort.broadcast.ended:
                    self._arrivals.hasten(self._arrivals.interval)
                    await cohort.next_look()
        except TimeoutError:
            why = "The change log can't be followed just now."
            raise Unavailable(why, retry_after=_RETRY_MS // 1000) from None

    async def close(self) -> None:
        """Follow no more, and end what is under way."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._flights.close()

    async def _step(self, cohort: Cohort, since: Cursor) -> LiveStep:
        reader = ChangeReader(cohort.feeds, cohort.reader, self._read, self._cursors)
        name = cohort.feeds[0].dataset.name
        begun = transaction.reading_the_log(self._read, cohort.reader, Stages(), name)
        with as_problems(self._read.observers):
            async with begun as reading:
                return await reader.read(reading, since)

    async def _follow(self) -> None:
        cause.PRESENT.set(cause.Cause("live", "", self._limits.slow))  # of this task alone
        pause = _FIRST_PAUSE
        while self._drop_unused():
            try:
                await self._tick()
            except asyncio.CancelledError:
                raise
            except FAULTS as error:
                await self._rest(error, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except Exception:
                logger.exception("the tail of the change log failed")
                await asyncio.sleep(_LONGEST_PAUSE)
            else:
                self.failing_since, pause = None, _FIRST_PAUSE
        self._task = None

    async def _rest(self, error: Exception, pause: float) -> None:
        if self.failing_since is None:
            self.failing_since = time.time()
            logger.warning("live feeds can't read the change log: %s", redacted(error))
        if isinstance(error, TimeoutError | Timeout):
            self._own.cut()  # it may be a backend that does nothing any more
        await asyncio.sleep(pause)

    def _drop_unused(self) -> bool:
        """Forget cohorts that have had no subscriber for a while; whether any is left."""
        now = time.monotonic()
        for key, cohort in list(self._cohorts.items()):
            cohort.broadcast.trim()
            if cohort.is_used:
                cohort.left_at = now
            elif cohort.broadcast.ended or now - cohort.left_at > _LINGER:
                del self._cohorts[key]
        return bool(self._cohorts)

    async def _tick(self) -> None:
        begun = [
            (each, each.cursor)
            for each in self._cohorts.values()
            if each.cursor is not None and not each.broadcast.ended
        ]
        if not begun:
            # An old question says nothing of commits before the next one.
            self._answered_at, self._followed_at = 0.0, time.time()
            await asyncio.sleep(self._arrivals.interval)
            return
        since = min((cursor.snapshot for _, cursor in begun), key=age)
        feeds = list({number for cohort, _ in begun for number in cohort.numbers})
        answer = await self._arrivals.next(since, feeds, self._pause())
        touched = [each for each, cursor in begun if self._is_due(each, cursor.snapshot, answer)]
        due = set(map(id, touched))
        self._suspect.clear()
        self._unverified.clear()
        now = time.monotonic()
        ready = [cohort for cohort in touched if cohort.not_before <= now]
        if ready:
            await self._move(ready, self._answered_at or answer.asked_at)
        # Behind it, so that what was found out for some is known at the end of a look at others.
        for cohort, _ in begun:
            if id(cohort) not in due:
                cohort.pass_over(answer.snapshot)
        if len(ready) == len(touched):
            self._known = answer.life, answer.floor
        self._answered_at = answer.asked_at

    def _is_due(self, cohort: Cohort, since: Snapshot, answer: Arrived) -> bool:
        """Return whether to read the cohort: for what was written, or its rights and schema."""
        if cohort.is_touched(answer, since):
            self._changed_at = time.monotonic()
            return True
        if cohort.is_suspect or cohort.rules in self._suspect:
            return True  # or another one of the same rules has ended
        if self._known != (answer.life, answer.floor) or answer.life is None:
            return True  # it may be another log, or lack what was not read yet
        now, rules = time.monotonic(), cohort.rules
        verified = self._verified.get(rules, -math.inf)
        is_asked = rules in self._unverified or verified < now - VERIFY_EVERY
        if is_asked and cohort.not_before <= now:
            self._unverified.discard(rules)
            self._verified[rules] = now  # one will do
            return True
        return False

    def _pause(self) -> float:
        is_idle = time.monotonic() - self._changed_at > _IDLE_AFTER
        is_idle = is_idle and not any(cohort.awaited for cohort in self._cohorts.values())
        return max(IDLE_PAUSE, self._arrivals.interval) if is_idle else self._arrivals.interval

    async def _move(self, cohorts: Sequence[Cohort], committed_at: float) -> None:
        """Bring the cohorts to one state; those that can't be end."""
        left, began = list(cohorts), time.perf_counter()
        self._moves = _Moves(committed_at)
        self._moves.kept = sum(len(cohort.membership) for cohort in self._cohorts.values())
        while left:
            async with transaction.reading_the_log_for_many(self._own) as turn_to:
                known: KnownFeeds = {}
                # A failure is also that of the transaction: the others go on in a new one.
                while left and await self._moved(left.pop(0), turn_to, known):
                    pass
        seconds = time.perf_counter() - began
        self._observers.publish(LiveTick(seconds, self._moves.cohorts, self._moves.changes))

    async def _moved(self, cohort: Cohort, turn_to: transaction.TurnTo, known: KnownFeeds) -> bool:
        """Read and publish what has changed for a cohort; false where that failed."""
        if cohort.cursor is None:
            return True
        kept = len(cohort.membership)
        cohort.membership.most = self._room(self._moves.kept)
        reader = ChangeReader(
            cohort.feeds, cohort.reader, self._own, self._cursors, cohort.membership
        )
        reader.known_feeds = known
        try:
            step = await reader.read(await turn_to(cohort.reader), cohort.cursor)
        except _OF_ALL:
            raise  # all of them go on from where they are
        except DatasetLocked:
            cohort.not_before = time.monotonic() + _LOCKED_PAUSE
            return False
        except Timeout as problem:
            cohort.timeouts += 1
            if cohort.timeouts < _MOST_TIMEOUTS:
                raise
            self.end(cohort, problem)
            return False
        except Problem as problem:
            self.end(cohort, problem)
            return False
        cohort.move(step, self._moves.committed_at)
        self._moves.kept += len(cohort.membership) - kept
        self._verified[cohort.rules] = time.monotonic()
        self._moves.add(step)
        return True

    def _room(self, kept: int) -> int:
        """The number of keys of a further feed that may be kept, beside so many."""
        most = self._limits.most_keys
        return max(0, min(most, _KEYS_IN_ALL * most - kept))

    def end(self, cohort: Cohort, problem: Problem) -> None:
        """End a cohort with a problem; its subscribers come back, and read the feeds anew."""
        request_id = new_hex()
        self._suspect.add(cohort.rules)
        if isinstance(problem, Reset):
            problem.fresh = cohort.address
            for feed in cohort.feeds:
                self._observers.publish(FeedReset(feed.dataset.name, problem.reason))
        names = ", ".join(feed.dataset.name for feed in cohort.feeds)
        logger.info("%s: a live feed of %s ends: %s", request_id, names, problem.detail)
        body = problem.body(cohort.address.partition("?")[0], request_id)
        made = live.reset if isinstance(problem, Reset) else live.failure
        cohort.end(made(body, _RETRY_MS))
