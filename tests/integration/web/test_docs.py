"""`/docs`: the description as people read it, whole, and with nothing from elsewhere."""

from html.parser import HTMLParser
from typing import Any

import aiohttp
import pytest

LINKS = {"href", "src", "srcset", "action", "data", "poster", "style"}


class _Page(HTMLParser):
    """The text that a reader sees, by element, and the page's links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.points_to: set[str | None] = set()
        self.headings: list[str] = []
        self.words: list[str] = []
        self._heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.points_to |= {value for name, value in attrs if name in LINKS}
        if tag == "h3":
            self._heading = True
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "h3":
            self._heading = False

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._heading:
            self.headings[-1] += data


@pytest.fixture
async def docs(http: aiohttp.ClientSession) -> _Page:
    async with http.get("/docs") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "script" not in policy
        return _Page(await answer.text())


@pytest.fixture
async def api(http: aiohttp.ClientSession) -> Any:
    async with http.get("/openapi.json") as answer:
        return await answer.json()


async def test_every_operation_parameter_and_answer_is_there(docs: _Page, api: Any) -> None:
    expected = []
    text = "".join(docs.words)
    for where, methods in api["paths"].items():
        for method, operation in methods.items():
            if method == "head":
                continue
            also = ", HEAD" if "head" in methods and method == "get" else ""
            expected.append(f"{method.upper()} {where}{also}")
            shown = [operation["summary"], *operation["responses"]]
            shown += [given["name"] for given in operation.get("parameters", ())]
            assert not [word for word in shown if word.replace("`", "") not in text]
    assert sorted(docs.headings) == sorted(expected)
    assert len(expected) > 15


async def test_it_runs_nothing_and_points_nowhere_else(docs: _Page) -> None:
    assert docs.elements.isdisjoint({"script", "iframe", "img", "link", "object", "form"})
    assert docs.points_to == {"/openapi.json"}


async def test_what_is_not_text_of_ours_stays_text(http: aiohttp.ClientSession) -> None:
    async with http.get("/docs") as answer:
        source = await answer.text()
    assert "<tr><td><code>delimiter</code><td>query<td><code>,</code> or <code>;</code>" in source
    assert "A feed&#x27;s rows, streamed." in source
