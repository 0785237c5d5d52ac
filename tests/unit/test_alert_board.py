"""The alerts' board in a folder that workers share, at a clock of the tests' own."""

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import orjson
import pytest

from feedsvc.core.events import Observers
from feedsvc.operations.alerts.board import AlertBoard, AlertStore
from feedsvc.operations.alerts.delivery import AlertDelivery
from feedsvc.operations.alerts.history import AlertHistory

INTERVAL = 5.0


@dataclass
class Workers:
    """Two workers of one service."""

    folder: Path
    now: float = 1_000.0
    one: AlertStore = field(init=False)
    other: AlertStore = field(init=False)

    def __post_init__(self) -> None:
        self.one, self.other = (
            AlertStore(self.folder, slot, INTERVAL, clock=lambda: self.now) for slot in (0, 1)
        )


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


def changes(store: AlertStore, owner: str) -> bool:
    """Change the board's owner; whether that was written."""
    with store.changing() as board:
        if board is None:
            return False
        board.owner = owner
    return not store.superseded


def test_one_that_is_frozen_with_the_lock_loses_it_and_what_it_writes_later_is_dropped(
    workers: Workers,
) -> None:
    assert changes(workers.one, "nobody")
    with ExitStack() as stack:
        frozen = stack.enter_context(workers.one.changing())
        assert frozen is not None
        frozen.owner = "one"
        for _ in range(4):
            assert not changes(workers.other, "other"), "it may just be busy"
            workers.now += INTERVAL
        assert changes(workers.other, "other")
    assert workers.one.superseded
    assert workers.one.read().owner == "other"
    assert changes(workers.one, "one"), "it takes part again"
    assert workers.other.read().owner == "one"
    assert {file.name for file in workers.folder.iterdir()} == {"alerts.now", "alerts.lock"}


def test_one_that_has_just_taken_the_lock_keeps_it_though_nobody_had_it_for_long(
    workers: Workers,
) -> None:
    assert changes(workers.one, "one")
    workers.now += 1_000.0
    with workers.one.changing() as board:
        assert board is not None
        for _ in range(2):
            assert not changes(workers.other, "other")
    assert not workers.one.superseded


def test_one_that_was_frozen_since_before_it_noted_that_it_has_the_lock_loses_it(
    workers: Workers,
) -> None:
    with ExitStack() as stack:
        assert stack.enter_context(workers.one.changing()) is not None
        os.truncate(workers.folder / "alerts.lock", 0)
        assert not changes(workers.other, "other")
        assert changes(workers.other, "other")


def test_a_board_of_another_version_is_read(workers: Workers) -> None:
    """It lacks fields, or has some that are unknown."""
    file = workers.folder / "alerts.now"
    for plain in ({"owner": "x", "states": {}}, {"owner": "x", "states": {}, "later": [1]}):
        file.write_bytes(orjson.dumps(plain))
        assert workers.one.read() == AlertBoard(owner="x")


async def test_a_change_that_was_dropped_is_made_anew(workers: Workers) -> None:
    """Such as that a message is delivered."""
    changes(workers.one, "nobody")
    errands = AlertDelivery({}, workers.one, cast("AlertHistory", None), None, Observers())
    seen = []

    def note(board: AlertBoard) -> None:
        seen.append(board.owner)
        board.alone = ["noted"]
        if len(seen) == 1:
            assert not changes(workers.other, "other")
            workers.now += 4 * INTERVAL
            assert changes(workers.other, "other")

    await errands.change(note)
    assert seen == ["nobody", "other"]
    assert workers.other.read().alone == ["noted"]
