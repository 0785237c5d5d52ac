"""Contenders measured in turn, so that whatever else the machine does meets all of them alike."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

Contender = Callable[[], float]
"""Runs once and answers how long it took, in seconds."""

Round = Mapping[str, float]
"""Each contender's seconds in one round, by its name."""


def in_turn(
    contenders: Mapping[str, Contender], rounds: int, seconds: float = math.inf
) -> list[Round]:
    """A B B A A B …, behind one warm-up of each that doesn't count.

    In one order alone, two that are the same differed by 2 %.

    After so many seconds no further round is begun; there is always one.
    """
    for run in contenders.values():
        run()
    began, measured = time.perf_counter(), list[Round]()
    while len(measured) < rounds and (not measured or time.perf_counter() - began < seconds):
        names = list(contenders) if len(measured) % 2 == 0 else list(contenders)[::-1]
        taken = {name: contenders[name]() for name in names}
        measured.append({name: taken[name] for name in contenders})
    return measured


def medians(rounds: Sequence[Round]) -> Round:
    """Each contender's median, as if all of these were one round."""
    return {name: median(each[name] for each in rounds) for name in rounds[0]}


def ratios(rounds: Sequence[Round], measured: str, against: str) -> list[float]:
    """One ratio a round: seconds of `measured` for one second of `against`."""
    return [each[measured] / each[against] for each in rounds]
