"""Bodies of JSON: what is no object, or has another key, is named in a problem."""

import pytest
from aiohttp import web

from feedsvc.core.problems import BadParameter, BadRequest
from feedsvc.web.bodies import json_object, json_response


class Request:
    """A request with this body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


async def parsed(body: bytes, *keys: str) -> dict[str, object]:
    given: web.Request = Request(body)  # type: ignore[assignment]
    return await json_object(given, keys or None)


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"{'a': 1}", b"[]", b"null", b'"text"'])
async def test_a_body_that_is_no_json_object(body: bytes) -> None:
    with pytest.raises(BadRequest, match="The body is not"):
        await parsed(body)


async def test_a_key_that_there_is_not_is_quoted_in_part() -> None:
    assert await parsed(b'{"path": 1, "more": 2}') == {"path": 1, "more": 2}
    assert await parsed(b'{"path": 1}', "path", "more") == {"path": 1}
    with pytest.raises(BadParameter) as caught:
        await parsed(b'{"path": 1, "%s": 2}' % (b"x" * 1_000), "path")
    assert caught.value.body("/", "1")["parameter"] == "x" * 100
    assert caught.value.body("/", "1")["allowed"] == ["path"]


def test_an_answer_is_a_line_that_no_cache_keeps() -> None:
    response = json_response({"a": 1}, 201, vary="Accept")
    assert (response.status, response.body) == (201, b'{"a":1}\n')
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Vary"] == "Accept"
    assert "Vary" not in json_response([]).headers
