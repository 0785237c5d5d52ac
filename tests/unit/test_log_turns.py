"""Upkeep of the change log: turns of workers, and pauses between them."""

import errno
from pathlib import Path

import pytest

from feedsvc.changes.log_turns import UpkeepTurn, UpkeepTurns
from feedsvc.changes.log_upkeep import Upkept, longest_pause, pause_after
from feedsvc.settings import Changes

MEGABYTE = 1 << 20
SETTINGS = Changes(retention=86_400, max_bytes=48 * MEGABYTE)  # a sixth of a window: 1 MB


def upkept(size: int | None, *, is_read: bool = False) -> Upkept:
    return Upkept(size, trimmed=0, is_read=is_read, epoch="e")


def test_a_pause_is_a_sixth_of_a_window_within_bounds() -> None:
    assert [longest_pause(kept) for kept in (0.1, 72.0, 360.0, 259_200.0)] == [1, 2, 10, 60]


@pytest.mark.parametrize(
    ("grown", "pause"), [(0, 60), (-5, 60), (0.9, 60), (6, 10), (30, 2), (600, 1)]
)
def test_a_log_that_grows_quickly_has_shorter_pauses(grown: float, pause: float) -> None:
    """`grown` is in megabytes a minute."""
    last = UpkeepTurn(at=100.0, bytes=50 * MEGABYTE, epoch="e")
    size = 50 * MEGABYTE + round(grown * MEGABYTE)
    assert pause_after(upkept(size), last, 160.0, SETTINGS) == pytest.approx(pause, rel=0.01)


def test_a_trim_that_a_reader_was_in_the_way_of_is_tried_again_at_once() -> None:
    assert pause_after(upkept(5, is_read=True), UpkeepTurn(), 1.0, SETTINGS) == 1
    assert pause_after(upkept(None), UpkeepTurn(at=0.5, bytes=5), 1.0, SETTINGS) == 60


def test_workers_share_their_turns_and_one_without_a_folder_has_its_own(tmp_path: Path) -> None:
    one, other = UpkeepTurns(tmp_path), UpkeepTurns(tmp_path)
    assert other.last() == UpkeepTurn()
    noted = UpkeepTurn(7.0, 5.0, 3, "e", "no right")
    one.note(noted)
    assert other.last() == noted
    alone = UpkeepTurns(None)
    assert alone.last() == UpkeepTurn()
    alone.note(noted)
    assert alone.last() == noted


def test_a_file_that_can_not_be_used_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns = UpkeepTurns(tmp_path)
    turns.note(UpkeepTurn(due=7.0))
    (tmp_path / "log-upkeep.turn").write_text('{"due": 9, "of another version": 1}')
    assert turns.last().due == 7.0
    gone = UpkeepTurns(tmp_path / "gone")
    gone.note(UpkeepTurn(due=5.0))
    gone.note(UpkeepTurn(due=6.0))
    assert gone.last().due == 6.0
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_two_workers_that_note_a_turn_at_once_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = UpkeepTurns(tmp_path), UpkeepTurns(tmp_path)
    replace = Path.replace

    def behind_the_others(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        other.note(UpkeepTurn(due=2.0))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", behind_the_others)
    one.note(UpkeepTurn(due=1.0))
    assert caplog.messages == []
    assert UpkeepTurns(tmp_path).last().due == 1.0
    assert len([*tmp_path.iterdir()]) == 1


def test_a_turn_that_can_not_be_noted_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", failing)
    UpkeepTurns(tmp_path).note(UpkeepTurn(due=1.0))
    assert [*tmp_path.iterdir()] == []
