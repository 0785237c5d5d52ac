"""Problems: each has a name of its own, a page that explains it, and a well-formed object."""

import inspect
import re
from collections.abc import Iterator

import pytest
from aiohttp.test_utils import make_mocked_request

from feedsvc.core.problems import BadParameter, NotFound, Problem, Unavailable, problem_types
from feedsvc.web import problems


def _subclasses(kind: type[Problem]) -> Iterator[type[Problem]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


KINDS = sorted(_subclasses(Problem), key=lambda kind: kind.__name__)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@every_kind
def test_a_problem_explains_itself_to_a_clients_developer(kind: type[Problem]) -> None:
    own = kind.__dict__.get("__doc__") or ""
    assert len(own.split()) >= 5
    assert kind.title[0].isupper()


@every_kind
def test_a_problem_has_a_status_and_a_name_for_its_type(kind: type[Problem]) -> None:
    assert 400 <= kind.status <= 599
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.name)
    assert problem_types()[kind.name] is kind


@every_kind
async def test_a_problems_page_shows_its_title_name_and_every_paragraph(
    kind: type[Problem],
) -> None:
    request = make_mocked_request("GET", f"/problems/{kind.name}", match_info={"name": kind.name})
    answer = await problems.page(request)
    assert (answer.status, answer.content_type) == (200, "text/html")
    assert answer.text is not None
    assert f"<h1>{kind.title}</h1>" in answer.text
    assert f"<code>/problems/{kind.name}</code>" in answer.text
    assert answer.text.count("<p>") == 1 + len(inspect.cleandoc(kind.__doc__ or "").split("\n\n"))
    assert "`" not in answer.text


async def test_there_is_no_page_for_a_problem_that_there_is_not() -> None:
    request = make_mocked_request("GET", "/problems/x", match_info={"name": "x"})
    with pytest.raises(NotFound):
        await problems.page(request)


def test_a_problem_object_has_the_members_of_rfc_9457_and_ours() -> None:
    problem = BadParameter("limit must be a number.", parameter="limit", allowed=("a", "b"))
    assert problem.body("/v1/feeds/clients", "r1") == {
        "type": "/problems/bad-parameter",
        "title": "Bad parameter",
        "status": 400,
        "detail": "limit must be a number.",
        "instance": "/v1/feeds/clients",
        "request_id": "r1",
        "parameter": "limit",
        "allowed": ["a", "b"],
    }


def test_parameter_and_allowed_are_absent_where_no_parameter_is_at_fault() -> None:
    assert not {"parameter", "allowed"} & NotFound("nothing").body("/", "r1").keys()


@pytest.mark.parametrize(
    "kind", [Unavailable, *_subclasses(Unavailable)], ids=lambda kind: kind.__name__
)
def test_what_is_unavailable_says_when_to_ask_again(kind: type[Unavailable]) -> None:
    assert int(kind("busy", 7).headers["Retry-After"]) == 7


def test_an_answer_is_a_problem_document_that_no_cache_keeps() -> None:
    answer = problems.answer(Unavailable("busy", 7), "/v1", "r1")
    assert (answer.status, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"] == "7"
    assert answer.headers["Cache-Control"] == "no-store"
