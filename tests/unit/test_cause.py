"""The comment that names a statement's request, and W3C's traceparent."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedsvc.core import cause
from feedsvc.core.cause import Cause, continued
from feedsvc.web.record import request_id

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
COMMENT = re.compile(
    r"/\* feedsvc:request_id='([A-Za-z0-9._%~-]+)'(,traceparent='[0-9a-f-]{55}')? \*/"
)


@given(st.text() | st.from_regex(r"[A-Za-z0-9*/' -]{1,40}"))
def test_nothing_that_a_client_calls_its_request_ends_the_comment(given: str) -> None:
    taken = request_id(given)
    found = COMMENT.fullmatch(Cause(taken, "", 1.0).comment)
    assert found is not None
    assert unquote(found[1]) == taken
    # Nor would what no header can be, were it let in one day.
    assert COMMENT.fullmatch(Cause(f"x{given}", "", 1.0).comment) is not None


def test_a_trace_is_continued_with_a_span_of_our_own() -> None:
    trace = continued(f"00-{TRACE}-{SPAN}-01")
    assert trace is not None
    assert (trace.trace, trace.parent, trace.is_sampled) == (TRACE, SPAN, True)
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", trace.traceparent)
    assert trace.span != SPAN
    assert f"traceparent='{trace.traceparent}'" in Cause("a", "", 1.0, trace=trace).comment


@pytest.mark.parametrize(
    ("given", "sampled"),
    [(f"00-{TRACE}-{SPAN}-00", False), (f"00-{TRACE}-{SPAN}-03", True),
     (f"cc-{TRACE}-{SPAN}-01-what is yet to come", True)],
)  # fmt: skip
def test_flags_and_versions(given: str, sampled: bool) -> None:
    trace = continued(given)
    assert trace is not None
    assert trace.is_sampled is sampled
    assert trace.traceparent.endswith("-01" if sampled else "-00")
    assert trace.traceparent.startswith("00-")


@pytest.mark.parametrize(
    "given",
    [None, "", "00", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-1",
     f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01",
     f"00-{TRACE}-{SPAN}-01\n", f"00-{TRACE}-*/ drop-01"],
)  # fmt: skip
def test_what_is_no_trace_is_ignored(given: str | None) -> None:
    assert continued(given) is None


def test_parameters_are_names_alone() -> None:
    made = Cause("a", "limit=5&status=secret&total%2Egte=7&ticket=p123&&live", 1.0)
    assert made.parameters == ["limit", "status", "total.gte", "live"]


def test_without_a_request_there_is_no_comment() -> None:
    assert cause.marked("SELECT 1") == "SELECT 1"
