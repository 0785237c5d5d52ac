"""Percentiles from sketches are near the exact ones, and merging loses nothing."""

import random
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsvc.operations.performance.figures import Figures, FiguresError
from feedsvc.operations.performance.sketch import ACCURACY, LEAST, OFFSET, SCALE, Sketch
from tests.support.drawn import share
from tests.support.recorded import RANKS, SECONDS, exact

EDGE = ACCURACY * 1.000_1
DURATIONS = st.floats(LEAST, 7 * 86_400.0, allow_nan=False)


def sketch_of(values: list[float]) -> Sketch:
    made = Sketch()
    for value in values:
        made.add(value)
    return made


@given(st.lists(DURATIONS, min_size=1), st.floats(0, 1))
def test_every_rank_is_right_within_the_accuracy(values: list[float], rank: float) -> None:
    (found,) = sketch_of(values).quantiles([rank])
    assert found == pytest.approx(exact(values, rank), rel=EDGE)


@given(st.lists(st.lists(DURATIONS, max_size=20), max_size=8), st.randoms())
def test_merged_in_any_order_and_written_in_between_they_are_one_sketch_of_all(
    parts: list[list[float]], chance: random.Random
) -> None:
    sketches = [sketch_of(part) for part in parts]
    chance.shuffle(sketches)
    merged = Sketch()
    for sketch in sketches:
        merged.merge(Sketch.parse(sketch.plain()))
    whole = sketch_of([value for part in parts for value in part])
    assert merged.bins == whole.bins
    assert merged.count == sum(map(len, parts))
    assert merged.total == pytest.approx(whole.total, abs=1e-5)


def test_of_a_recorded_sample_over_workers_and_minutes() -> None:
    chance = random.Random(1)
    values = chance.sample(SECONDS, len(SECONDS))
    merged = Sketch()
    for part in batched_of(values, 97):
        merged.merge(sketch_of(part))
    for rank, found in zip(RANKS, merged.quantiles(RANKS), strict=True):
        assert found == pytest.approx(exact(SECONDS, rank), rel=EDGE)
    assert merged.total == pytest.approx(sum(SECONDS))


def test_no_value_has_no_bin_and_no_percentile_is_made_up() -> None:
    sketch = Sketch()
    assert sketch.quantiles(RANKS) == []
    for value in (0.0, -1.0, LEAST / 2, 1e12):
        sketch.add(value)
    assert min(sketch.bins) >= 0
    assert sketch.quantiles([0.0])[0] == pytest.approx(LEAST, rel=2 * ACCURACY)


def test_the_bin_that_is_inlined_elsewhere_is_the_same() -> None:
    for value in SECONDS[:500]:
        (place,) = sketch_of([value]).bins
        assert place == int(log(value) * SCALE + OFFSET)


def figures_of(number: int) -> Figures:
    made = Figures()
    made.add(("requests", "GET", "/v1/feeds/{dataset}", "clients", "complete"), number)
    made.peak(("memory",), number * 1e6)
    made.sketch(("seconds", "GET", "/v1/feeds/{dataset}", "clients")).add(number / 10)
    return made


def test_figures_merge_and_come_back_from_a_row() -> None:
    merged = Figures()
    for number in (1, 5, 3):
        merged.merge(Figures.unpack(figures_of(number).pack()))
    assert merged.total("requests") == merged.total("requests", "GET", None, "clients") == 9
    assert merged.total("requests", "POST") == 0
    assert merged.highest("memory") == 5e6
    assert merged.merged("seconds").count == 3
    assert merged.merged("seconds", "POST").count == 0
    again = Figures.unpack(merged.pack())
    assert again.plain() == merged.plain()


@settings(max_examples=share(200))
@given(st.data())
def test_bytes_that_are_no_figures_are_refused(data: st.DataObject) -> None:
    packed = bytearray(figures_of(1).pack())
    kind = data.draw(st.sampled_from(["noise", "cut", "flipped"]))
    if kind == "noise":
        given_bytes = data.draw(st.binary(max_size=100))
    elif kind == "cut":
        given_bytes = bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])
    else:
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
        given_bytes = bytes(packed)
    try:
        Figures.unpack(given_bytes)
    except FiguresError:
        return
    assert kind == "flipped", "only a bit that changes nothing else may go unnoticed"


def batched_of(values: list[float], size: int) -> list[list[float]]:
    return [values[at : at + size] for at in range(0, len(values), size)]
