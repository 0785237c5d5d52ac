"""Plans of slow statements take a small share of the time, whatever each of them takes."""

import pytest

from feedsvc.operations.performance.slow_plans import PlanningTime


@pytest.mark.parametrize("took", [0.01, 0.1, 2.0])
def test_plans_take_half_a_percent_of_the_time_and_a_second_in_advance(took: float) -> None:
    planning, now, spent, first = PlanningTime(), 1_000.0, 0.0, 0
    while now < 1_000.0 + 86_400:
        spent += took
        now += took
        pause = planning.pause(took, now)
        first += pause == 5.0 and now < 1_500
        now += pause
    assert spent <= 86_400 * 0.006 + 1.0 + took
    assert first >= (90 if took == 0.01 else 8 if took == 0.1 else 0), "the first ones come at once"


def test_what_is_saved_in_quiet_times_is_a_second_at_most() -> None:
    planning = PlanningTime()
    assert planning.pause(0.9, 1_000.0) == 5.0
    assert planning.pause(0.9, 1e6) == 5.0
    assert planning.pause(0.9, 1e6 + 1) == pytest.approx(160, rel=0.01)
