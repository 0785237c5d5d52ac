"""The changes that a page must have, against a history that is written down in full."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.ledger import Ledger

_XIDS = st.integers(3, 12)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    xmin, xmax = sorted((draw(_XIDS), draw(_XIDS)))
    running = draw(st.sets(st.integers(xmin, xmax - 1))) if xmax > xmin else set()
    return Snapshot(xmin, xmax, frozenset(running))


@given(snapshots())
def test_a_snapshot_is_read_back_from_its_text(snapshot: Snapshot) -> None:
    assert Snapshot.parse(str(snapshot)) == snapshot


@given(snapshots(), snapshots())
def test_one_covers_another_if_it_sees_all_that_the_other_sees(a: Snapshot, b: Snapshot) -> None:
    sees_all = all(a.sees(xid) for xid in range(1, 14) if b.sees(xid))
    if a.covers(b):
        assert sees_all
    elif sees_all:
        # Only transactions that cannot have been seen apart may be judged too strictly.
        assert a.xmax < b.xmax


@dataclass
class _Page:
    snapshot: Snapshot
    tag: bytes
    seen: frozenset[int]


@dataclass
class _World:
    """Every transaction, what it changed, and whether the log was read behind it."""

    next: int = 100
    running: set[int] = field(default_factory=set)
    committed: dict[int, bytes] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)

    def snapshot(self) -> Snapshot:
        xmin = min(self.running, default=self.next)
        return Snapshot(xmin, self.next, frozenset(self.running))


@dataclass
class _Look:
    """The log's rows when it was read, on their way; `goes_on` from the look before."""

    snapshot: Snapshot
    entries: list[int]
    goes_on: bool


class LedgerMachine(RuleBasedStateMachine):
    """A page is admitted only if it shows every change of its item that was read or passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.world = _World()
        self.ledger = Ledger(keep=10, clock=lambda: self.now)
        self.pages: list[_Page] = []
        self.look_on_its_way: _Look | None = None
        self.has_started = False
        self.due: set[int] = set()
        """The changes that a page must have: committed, and read or passed over."""

    @rule()
    def begin_writing(self) -> None:
        self.world.running.add(self.world.next)
        self.world.next += 1

    @rule(tag=st.sampled_from([b"a", b"b"]), which=st.randoms(use_true_random=False))
    def commit(self, tag: bytes, which: object) -> None:
        if self.world.running:
            xid = which.choice(sorted(self.world.running))  # type: ignore[attr-defined]
            self.world.running.remove(xid)
            self.world.committed[xid] = tag

    @rule(tag=st.sampled_from([b"a", b"b"]))
    def load(self, tag: bytes) -> None:
        snapshot = self.world.snapshot()
        seen = frozenset(xid for xid in self.world.committed if snapshot.sees(xid))
        self.pages.append(_Page(snapshot, tag, seen))

    @rule(goes_on=st.booleans())
    def ask(self, goes_on: bool = True) -> None:
        """Read the log, from the position of the last look or from now on."""
        entries = sorted(set(self.world.committed) - self.world.read)
        goes_on = goes_on and self.has_started
        self.look_on_its_way = _Look(self.world.snapshot(), entries, goes_on)

    @rule()
    def hear(self) -> None:
        look, self.look_on_its_way = self.look_on_its_way, None
        if look is None:
            return
        self.world.read.update(look.entries)
        self.due.update(look.entries)
        if look.goes_on:
            for xid in look.entries:
                self.ledger.record(xid, [self.world.committed[xid]])
        else:
            self.ledger.start(look.snapshot)
            self.has_started = True
        self.ledger.confirm(look.snapshot)

    @rule()
    def lose(self) -> None:
        self.ledger.disconnect()
        self.look_on_its_way = None

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(tag=st.sampled_from([b"a", b"b"]), later=st.booleans())
    def turn(self, tag: bytes, later: bool) -> None:
        """A page is read, then changed, and then what was read becomes the older half.

        By chance this needs eight rules in one order, which a run of fifty hardly ever has.
        """
        self.load(tag)
        self.begin_writing()
        self.world.running.remove(xid := self.world.next - 1)
        self.world.committed[xid] = tag
        if later:
            self.load(tag)
        self.ask()
        self.wait(11.0)
        self.hear()

    @invariant()
    def no_page_that_lacks_a_change_is_admitted(self) -> None:
        for page in self.pages:
            due = {xid for xid in self.due if self.world.committed[xid] == page.tag}
            if self.ledger.is_fresh(page.snapshot, [page.tag]):
                assert due <= page.seen
            if self.ledger.has_no_newer_change(page.snapshot, [page.tag]) and self.has_started:
                assert due <= page.seen

    @invariant()
    def a_page_that_was_just_read_is_admitted(self) -> None:
        if self.ledger.is_followed:
            assert self.ledger.is_fresh(self.world.snapshot(), [b"a"])


TestLedger = LedgerMachine.TestCase


def test_a_tag_that_is_written_all_the_time_takes_bounded_room() -> None:
    ledger = Ledger(keep=300)
    ledger.start(Snapshot(3, 3, frozenset()))
    for xid in range(10, 10_000):
        ledger.record(xid, [b"=a"])
    late = Snapshot(5, 10_000, frozenset([5]))
    assert not ledger.is_fresh(Snapshot(5, 9_999, frozenset([5])), [b"=a"])
    ledger.confirm(late)
    assert ledger.is_fresh(late, [b"=a"])
    assert not ledger.is_fresh(Snapshot(5, 9_999, frozenset([5])), [b"=a"])
    assert len(ledger._writers[b"=a"].xids) == 0


def test_a_change_counts_for_as_long_as_a_page_may_lack_it() -> None:
    now = 0.0
    ledger = Ledger(keep=10, clock=lambda: now)
    ledger.start(Snapshot(10, 10, frozenset()))
    ledger.record(10, [b"=a"])
    lacking, having = Snapshot(10, 10, frozenset()), Snapshot(11, 11, frozenset())
    assert not ledger.is_fresh(lacking, [b"=a"])
    now = 11.0  # what was told is among the older now
    ledger.confirm(having)
    assert not ledger.is_fresh(lacking, [b"=a"])
    assert not ledger.unchanged(lacking, having, [b"=a"])
    assert ledger.is_fresh(lacking, [b"=b"])
    assert ledger.is_fresh(having, [b"=a"])
    now = 22.0  # and now forgotten, for a page from before would be too old by its age
    ledger.confirm(having)
    assert not ledger.is_fresh(lacking, [b"=a"])
    assert ledger.is_fresh(having, [b"=a"])


def test_without_the_log_nothing_is_fresh() -> None:
    ledger = Ledger(keep=300)
    page = Snapshot(10, 10, frozenset())
    assert not ledger.is_followed
    ledger.confirm(page)
    assert not ledger.is_fresh(page, [b"=a"]), "it has not started"
    ledger.start(page)
    assert ledger.is_fresh(page, [b"=a"])
    ledger.disconnect()
    assert not ledger.is_fresh(page, [b"=a"])
    assert not ledger.unchanged(page, page, [b"=a"])
    assert ledger.has_no_newer_change(page, [b"=a"])
    ledger.confirm(page)
    assert ledger.is_fresh(page, [b"=a"]), "it goes on where it was"
    ledger.reset()
    ledger.confirm(page)
    assert not ledger.is_fresh(page, [b"=a"]), "another database's log is no continuation"


def test_a_page_too_old_before_the_connection_was_lost_is_too_old_afterwards() -> None:
    ledger = Ledger(keep=300)
    page = Snapshot(10, 10, frozenset())
    assert ledger.has_no_newer_change(page, [b"=a"])
    ledger.start(Snapshot(11, 11, frozenset()))
    ledger.disconnect()
    assert not ledger.has_no_newer_change(page, [b"=a"])
    assert ledger.has_no_newer_change(Snapshot(11, 11, frozenset()), [b"=a"])


def test_changes_forgotten_for_want_of_room_count_when_the_connection_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("feedsvc.cache.ledger._MOST_ITEMS", 1)
    ledger = Ledger(keep=300)
    ledger.start(Snapshot(10, 10, frozenset()))
    page = Snapshot(10, 10, frozenset())
    ledger.record(10, [b"=a", b"=b"])
    ledger.confirm(Snapshot(11, 11, frozenset()))
    assert not ledger.is_fresh(page, [b"=a"])
    ledger.disconnect()
    assert not ledger.has_no_newer_change(page, [b"=a"])


def test_another_life_of_the_database_gives_the_numbers_out_anew() -> None:
    ledger = Ledger(keep=300)
    ledger.start(Snapshot(10, 10, frozenset()))
    ledger.record(900, [b"=a"])
    ledger.reset()
    late = Snapshot(20, 20, frozenset())
    assert not ledger.is_fresh(late, [b"=a"])
    assert not ledger.has_no_newer_change(late, [b"=a"])
    ledger.start(late)
    assert ledger.is_fresh(late, [b"=a"])
    assert not ledger.is_fresh(Snapshot(19, 19, frozenset()), [b"=a"])


def test_a_standbys_snapshot_is_neither_shown_nor_proof() -> None:
    ledger = Ledger(keep=300)
    page = Snapshot(10, 10, frozenset())
    ledger.start(page)
    standby = Snapshot.parse("3:3:")
    assert not ledger.is_fresh(standby, [b"=a"])
    assert not ledger.unchanged(page, standby, [b"=a"])
    assert ledger.unchanged(page, Snapshot(12, 12, frozenset()), [b"=a"])
