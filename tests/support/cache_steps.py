"""Steps of test_cache_model.py, as hypothesis draws them."""

from typing import Any, TypeAlias

from hypothesis import strategies as st

from feedsvc.core.principal import Principal
from tests.support.cache_world import CALLERS, CLIENTS, DATASETS, TENANTS

WORKERS = range(3)

# What is likely to hurt, and chance would seldom find: all of it happens to one page, and to all
# workers where none is named.
SCENES = (
    "read read",
    "read commit log read",
    "gated commit log read release read",
    "begin read commit-it log read",
    "begin read lose commit-it connect read",
    "read begin roll-back commit log read",
    "read commit-large log read",
    # The look's snapshot is older than what is committed meanwhile.
    "read ask commit answer read",
    "connect-1 ask-1 read commit answer-1 read",
    # One does not look, and finds out as it is asked.
    "read commit lose-1 log read",
    "read commit wait-5 read",
    "read commit wait-5 read-at-the-door",
    # PostgreSQL goes away behind a change that was read, or that was not.
    "read commit log away read",
    "read lose commit connect away read",
    "read away read",
    "read fail-over well read",
    "read wait-11 read",
    "read wait-46 read",
    "read away wait-46 read",
    # Triggers are disabled while something is written, with a survey meanwhile and without.
    "read triggers-off commit triggers-on survey log read",
    "read triggers-off survey commit triggers-on survey log read",
    # So long that the ledger forgets.
    "read commit log wait-46 log wait-46 log wait-46 log prove",
    "read log prove",
    "read commit log prove",
    # What Redis holds is another's, or of long ago.
    "commit commit-anothers log read-anothers read swap evict read read-anothers",
    "read commit log read evict put-late read",
    # An answer of Redis is on its way while something is written.
    "read evict slow-read commit log read hurry",
    "read evict slow-read-at-the-door commit log read-at-the-door hurry",
)
_worker = st.sampled_from(WORKERS)
_workers = st.sampled_from([[0, 1, 2], [0, 1, 2], [0], [1], [2]])
_name = st.sampled_from([*DATASETS, "letters"])
# Most is about the same few pages, for only there can anything go wrong.
_caller = st.sampled_from([*CALLERS[:2] * 2, *CALLERS])
_tenant = st.sampled_from([TENANTS[0], *TENANTS])
_client = st.sampled_from(CLIENTS)
_any = st.integers(0, 7)
_flag = st.booleans()
_whose = {"name": _name, "caller": _caller}
_page = {**_whose, "gated": _flag}
_row = {"name": _name, "tenant": _tenant, "client": _client}

# What may happen, how often, and with what. One rule for all of it: hypothesis leaves out half of
# a machine's rules from each run, and what goes wrong here needs many of them at once.
_Given = dict[str, st.SearchStrategy[Any]]
_TABLE: list[tuple[int, str, _Given]] = [
    (8, "read", {"workers": _workers, "at_door": _flag, **_page}),
    (9, "play", {"scene": st.sampled_from(SCENES), "well": _flag, **_whose}),
    (4, "stream", {"worker": _worker, **_page}),
    (3, "prove", {}),
    (4, "release", {"at": _any}),
    (2, "cancel", {"at": _any}),
    (3, "begin_writing", {}),
    (6, "commit", {**_row, "large": _flag, "at": _any}),
    (1, "roll_back", {"at": _any}),
    (2, "meddle_with_triggers", {"name": _name, "then": st.sampled_from(["off", "on", "both"])}),
    (1, "shake", {"how": st.sampled_from(["away", "fail over", "fail over and lose"])}),
    (3, "all_is_well", {}),
    (6, "read_log", {"workers": _workers, "what": st.sampled_from(["ask", "answer", "look"])}),
    (2, "survey", {"workers": _workers}),
    (2, "lose", {"workers": _workers}),
    (2, "connect", {"workers": _workers, "at_once": _flag}),
    (2, "wait", {"seconds": st.sampled_from([1.0, 5.0, 11.0, 46.0]), "silent": _worker}),
    (2, "evict", {"workers": _workers}),
    (1, "crash", {"worker": _worker}),
    (3, "spoil", {"how": st.sampled_from(["late", "another's", "garbage", "flush"]),
                  "at": _any, "place": _any}),
]  # fmt: skip
STEPS = st.one_of(
    *(
        st.tuples(st.just(name), st.fixed_dictionaries(given))
        for weight, name, given in _TABLE
        for _ in range(weight)
    )
)

Step: TypeAlias = tuple[str, dict[str, Any]]
"""A method of the machine, and what it is given."""


def acts(name: str, caller: Principal) -> dict[str, Step]:
    """The meaning of a scene's words about this page."""
    everybody, page = [*WORKERS], {"name": name, "caller": caller}
    reads = {"workers": everybody, "gated": False, **page}
    writes = {"name": name, "tenant": caller.tenant, "client": CLIENTS[0], "large": False, "at": 0}
    looks = {
        f"{word}{suffix}": ("read_log", {"workers": workers, "what": what})
        for word, what in (("log", "look"), ("ask", "ask"), ("answer", "answer"))
        for suffix, workers in (("", everybody), ("-1", [1]))
    }
    return {
        **looks,
        "read": ("read", reads),
        "read-at-the-door": ("read", {**reads, "at_door": True}),
        "read-anothers": ("read", {**reads, "caller": CALLERS[3]}),
        "gated": ("read", {**reads, "gated": True}),
        "slow-read": ("read", {**reads, "slow": True}),
        "slow-read-at-the-door": ("read", {**reads, "slow": True, "at_door": True}),
        "begin": ("begin_writing", {}),
        "roll-back": ("roll_back", {"at": -1}),
        "commit": ("commit", writes),
        "commit-it": ("commit", {**writes, "at": -1}),
        "commit-anothers": ("commit", {**writes, "tenant": CALLERS[3].tenant}),
        "commit-large": ("commit", {**writes, "large": True}),
        "lose": ("lose", {"workers": everybody}),
        "lose-1": ("lose", {"workers": [1]}),
        "connect": ("connect", {"workers": everybody, "at_once": True}),
        "connect-1": ("connect", {"workers": [1], "at_once": False}),
        "survey": ("survey", {"workers": everybody}),
        "wait-5": ("wait", {"seconds": 5.0, "silent": 1}),
        "wait-11": ("wait", {"seconds": 11.0, "silent": 1}),
        "wait-46": ("wait", {"seconds": 46.0, "silent": 1}),
        "triggers-off": ("meddle_with_triggers", {"name": name, "then": "off"}),
        "triggers-on": ("meddle_with_triggers", {"name": name, "then": "on"}),
        "away": ("shake", {"how": "away"}),
        "fail-over": ("shake", {"how": "fail over and lose"}),
        "well": ("all_is_well", {}),
        "evict": ("evict", {"workers": everybody}),
        "swap": ("swap", {}),
        "put-late": ("spoil", {"how": "late", "at": 1, "place": 0}),
        "prove": ("prove", {}),
        "release": ("release", {"at": 0}),
        "hurry": ("hurry", {}),
    }
