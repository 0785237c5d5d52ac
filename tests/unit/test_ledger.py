"""What a page's snapshot must have seen, against a history that is written down in full."""

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
    tag: str
    seen: frozenset[int]


@dataclass
class _World:
    """Every transaction, what it changed, and what has been told of it."""

    next: int = 100
    running: set[int] = field(default_factory=set)
    committed: dict[int, str] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)

    def snapshot(self) -> Snapshot:
        xmin = min(self.running, default=self.next)
        return Snapshot(xmin, self.next, frozenset(self.running))


class LedgerMachine(RuleBasedStateMachine):
    """A page is admitted only if it shows every change of its tag that was told or missed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.world = _World()
        self.ledger = Ledger(keep=10, silence=3, clock=lambda: self.now)
        self.pages: list[_Page] = []
        self.start_on_its_way: tuple[Snapshot, set[int]] | None = None
        self.beat_on_its_way: Snapshot | None = None
        self.due: set[int] = set()
        """What has to be in a page: committed, and told or missed before somebody listened."""

    @rule()
    def begin_writing(self) -> None:
        self.world.running.add(self.world.next)
        self.world.next += 1

    @rule(tag=st.sampled_from("ab"), which=st.randoms(use_true_random=False))
    def commit(self, tag: str, which: object) -> None:
        if self.world.running:
            xid = which.choice(sorted(self.world.running))  # type: ignore[attr-defined]
            self.world.running.remove(xid)
            self.world.committed[xid] = tag

    @rule()
    def tell(self) -> None:
        for xid in sorted(set(self.world.committed) - self.world.told):
            self.world.told.add(xid)
            if self.ledger.listening or self.start_on_its_way is not None:
                self.ledger.record(xid, [self.world.committed[xid]])
                self.due.add(xid)

    @rule(tag=st.sampled_from("ab"))
    def load(self, tag: str) -> None:
        snapshot = self.world.snapshot()
        seen = frozenset(xid for xid in self.world.committed if snapshot.sees(xid))
        self.pages.append(_Page(snapshot, tag, seen))

    @rule()
    def listen(self) -> None:
        """A snapshot is on its way; what is committed now is told before it or after it."""
        self.ledger.disconnect()
        self.beat_on_its_way = None
        self.start_on_its_way = self.world.snapshot(), set(self.world.committed)
        self.world.told.update(self.world.committed)

    @rule()
    def begin(self) -> None:
        if self.start_on_its_way is not None:
            snapshot, missed = self.start_on_its_way
            self.ledger.start(snapshot)
            self.due |= missed
            self.start_on_its_way = None

    @rule()
    def lose(self) -> None:
        self.ledger.disconnect()
        self.start_on_its_way = self.beat_on_its_way = None

    @rule()
    def ask(self) -> None:
        self.tell()
        self.beat_on_its_way = self.world.snapshot()

    @rule()
    def hear(self) -> None:
        if self.beat_on_its_way is not None:
            self.ledger.confirm(self.beat_on_its_way)
            self.beat_on_its_way = None

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(tag=st.sampled_from("ab"), later=st.booleans())
    def turn(self, tag: str, later: bool) -> None:
        """A page is read, then changed and told of, and then what was told becomes the older half.

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

    @invariant()
    def a_page_that_was_just_read_is_admitted(self) -> None:
        if self.ledger.listening:
            assert self.ledger.is_fresh(self.world.snapshot(), ["a"])


TestLedger = LedgerMachine.TestCase


def test_a_tag_that_is_written_all_the_time_takes_bounded_room() -> None:
    ledger = Ledger(keep=300, silence=3)
    ledger.start(Snapshot(3, 3, frozenset()))
    for xid in range(10, 10_000):
        ledger.record(xid, ["=a"])
    late = Snapshot(5, 10_000, frozenset([5]))
    assert not ledger.is_fresh(Snapshot(5, 9_999, frozenset([5])), ["=a"])
    ledger.confirm(late)
    assert ledger.is_fresh(late, ["=a"])
    assert not ledger.is_fresh(Snapshot(5, 9_999, frozenset([5])), ["=a"])
    assert len(ledger._writers["=a"].xids) == 0


def test_what_was_told_counts_for_as_long_as_a_page_may_lack_it() -> None:
    now = 0.0
    ledger = Ledger(keep=10, silence=3, clock=lambda: now)
    ledger.start(Snapshot(10, 10, frozenset()))
    ledger.record(10, ["=a"])
    lacking, having = Snapshot(10, 10, frozenset()), Snapshot(11, 11, frozenset())
    assert not ledger.is_fresh(lacking, ["=a"])
    now = 11.0  # what was told is among the older now
    ledger.confirm(having)
    assert not ledger.is_fresh(lacking, ["=a"])
    assert not ledger.unchanged(lacking, having, ["=a"])
    assert ledger.is_fresh(lacking, ["=b"])
    assert ledger.is_fresh(having, ["=a"])
    now = 22.0  # and now forgotten, for a page from before would be too old by its age
    ledger.confirm(having)
    assert not ledger.is_fresh(lacking, ["=a"])
    assert ledger.is_fresh(having, ["=a"])


def test_in_silence_nothing_is_believed() -> None:
    now = 0.0
    ledger = Ledger(keep=300, silence=4, clock=lambda: now)
    page = Snapshot(10, 10, frozenset())
    assert not ledger.listening
    ledger.start(page)
    now = 4.0
    assert ledger.listening
    assert ledger.is_fresh(page, ["=a"])
    now = 4.1
    assert not ledger.listening
    assert not ledger.is_fresh(page, ["=a"])
    assert not ledger.unchanged(page, page, ["=a"])
    assert ledger.has_no_newer_change(page, ["=a"])
    ledger.confirm(page)
    assert ledger.is_fresh(page, ["=a"])
    now = 8.2
    assert not ledger.is_fresh(page, ["=a"])
    ledger.disconnect()
    ledger.confirm(page)
    assert not ledger.is_fresh(page, ["=a"]), (
        "what was lost begins anew, and is not just heard again"
    )


def test_what_was_too_old_before_the_connection_was_lost_is_too_old_after_that() -> None:
    ledger = Ledger(keep=300, silence=3)
    page = Snapshot(10, 10, frozenset())
    assert ledger.has_no_newer_change(page, ["=a"])
    ledger.start(Snapshot(11, 11, frozenset()))
    ledger.disconnect()
    assert not ledger.has_no_newer_change(page, ["=a"])
    assert ledger.has_no_newer_change(Snapshot(11, 11, frozenset()), ["=a"])


def test_what_was_forgotten_for_want_of_room_counts_when_the_connection_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("feedsvc.cache.ledger._MOST_ITEMS", 1)
    ledger = Ledger(keep=300, silence=3)
    ledger.start(Snapshot(10, 10, frozenset()))
    page = Snapshot(10, 10, frozenset())
    ledger.record(10, ["=a", "=b"])
    ledger.confirm(Snapshot(11, 11, frozenset()))
    assert not ledger.is_fresh(page, ["=a"])
    ledger.disconnect()
    assert not ledger.has_no_newer_change(page, ["=a"])


def test_another_life_of_the_database_gives_the_numbers_out_anew() -> None:
    ledger = Ledger(keep=300, silence=3)
    ledger.start(Snapshot(10, 10, frozenset()))
    ledger.record(900, ["=a"])
    ledger.reset()
    late = Snapshot(20, 20, frozenset())
    assert not ledger.is_fresh(late, ["=a"])
    assert not ledger.has_no_newer_change(late, ["=a"])
    ledger.start(late)
    assert ledger.is_fresh(late, ["=a"])
    assert not ledger.is_fresh(Snapshot(19, 19, frozenset()), ["=a"])


def test_a_standbys_snapshot_is_neither_shown_nor_proof() -> None:
    ledger = Ledger(keep=300, silence=3)
    page = Snapshot(10, 10, frozenset())
    ledger.start(page)
    standby = Snapshot.parse("3:3:")
    assert not ledger.is_fresh(standby, ["=a"])
    assert not ledger.unchanged(page, standby, ["=a"])
    assert ledger.unchanged(page, Snapshot(12, 12, frozenset()), ["=a"])
