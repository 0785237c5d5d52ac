"""The way of a client to a cohort: from the state that it has to one that the events follow."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from feedsvc.feeds.live.cohort import Cohort
from feedsvc.feeds.live.step import LiveState, LiveStep
from feedsvc.feeds.live.tail import Tail


class CohortPlace(NamedTuple):
    """A cohort, the number of its first event that a client lacks, and the client's state.

    `is_in_sync`: a step was sent, behind which the client was notified of this state.
    """

    cohort: Cohort
    number: int
    state: LiveState
    is_in_sync: bool


async def join(
    tail: Tail,
    find: Callable[[], Cohort],
    state: LiveState,
    send: Callable[[LiveState, LiveStep], Awaitable[None]],
    *,
    is_whole: bool,
) -> CohortPlace:
    """Bring a client from its state to one that the events of a cohort follow.

    `find` gives the present cohort, and `send` sends a step from a state. Unless `is_whole` the
    client has more than its state. Raises Reset and other Problems.
    """
    is_in_sync = False
    while True:
        cohort = find()
        with cohort.pinned():
            if is_whole and cohort.accepts(state):
                number = await tail.number_behind(cohort, state.snapshot)
                if number is not None and not cohort.broadcast.ended:
                    return CohortPlace(cohort, number, state, is_in_sync)
            elif is_in_sync and cohort.cursor is not None:
                # The rights or the schema of one of the two are not the present ones.
                await tail.verify(cohort)
                if cohort.broadcast.ended:
                    continue
            step = await tail.step(cohort, state, shared=is_whole)
            await send(state, step)
            state, is_whole, is_in_sync = step.cursor, True, True
