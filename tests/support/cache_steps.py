"""What may happen to the caches of test_cache_model.py, as hypothesis draws it."""

from typing import Any

from hypothesis import strategies as st

from tests.support.cache_world import CALLERS, CLIENTS, DATASETS, TENANTS

WORKERS = range(3)
_worker = st.sampled_from(WORKERS)
_workers = st.sampled_from([[0, 1, 2], [0, 1, 2], [0], [1], [2]])
_name = st.sampled_from([*DATASETS, "letters"])
# Most is about the same few pages, for only there can anything go wrong.
_caller = st.sampled_from([*CALLERS[:2] * 2, *CALLERS])
_tenant = st.sampled_from([TENANTS[0], *TENANTS])
_client = st.sampled_from(CLIENTS)
_any = st.integers(0, 7)
_flag = st.booleans()
_between = st.sampled_from(["write", "late write", "loss", "wait", "outage", "fail-over"])
_page = {"name": _name, "caller": _caller, "gated": _flag}
_row = {"name": _name, "tenant": _tenant, "client": _client}

# What may happen, how often, and with what. One rule for all of it: hypothesis leaves out half of
# a machine's rules from each run, and what goes wrong here needs many of them at once.
_Given = dict[str, st.SearchStrategy[Any]]
_TABLE: list[tuple[int, str, _Given]] = [
    (8, "read", {"workers": _workers, "at_door": _flag, **_page}),
    (6, "read_twice", {"well": _flag, "what": _between, **_page}),
    (4, "stream", {"worker": _worker, **_page}),
    (3, "prove", {"at": _any}),
    (4, "release", {"at": _any}),
    (2, "cancel", {"at": _any}),
    (3, "begin_writing", {}),
    (6, "commit", {**_row, "large": _flag, "at": _any}),
    (1, "roll_back", {"at": _any}),
    (2, "meddle_with_triggers", {"name": _name, "then": st.sampled_from(["off", "on", "both"])}),
    (1, "shake", {"how": st.sampled_from(["away", "fail over", "fail over and lose"])}),
    (3, "all_is_well", {}),
    (6, "hear", {"workers": _workers, "what": st.sampled_from(["told", "ask", "answer", "beat"])}),
    (2, "look", {"worker": _worker}),
    (2, "lose", {"worker": _worker}),
    (2, "listen", {"worker": _worker, "at_once": _flag}),
    (2, "wait", {"seconds": st.sampled_from([1.0, 5.0, 11.0, 46.0]), "silent": _worker}),
    (2, "evict", {"worker": _worker}),
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
