"""Remembered requests are forgotten once the database, or what may be cached, is another."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from feedsvc.cache.envelope import PageRequest
from feedsvc.core.principal import Principal
from feedsvc.feeds.query import FeedQuery
from feedsvc.settings import Settings
from feedsvc.web.context import Service
from feedsvc.web.feeds.rendering import REPEATABLE, PageForm, Repeatable
from feedsvc.web.protocol.page_answers import PageAnswers
from feedsvc.web.record import RECORD, RequestRecord
from tests.support.datasets import DATASET

PATH = "/v1/feeds/things?limit=5"
PRINCIPAL = Principal("t", "member", None, 0.0)


@pytest.mark.parametrize(
    "changed",
    [{"origin": "another life"}, {"kept_out": {"things": "why"}}, {"feeds": {"things": object()}}],
)
def test_words_mean_nothing_once_the_cache_is_another(changed: dict[str, Any]) -> None:
    coverage = SimpleNamespace(origin="one life", kept_out={}, feeds={})
    service = SimpleNamespace(
        settings=Settings(),
        pages=SimpleNamespace(coverage=coverage),
        drain=SimpleNamespace(begun=False),
        tokens=SimpleNamespace(verify=lambda _: PRINCIPAL),
    )
    shortcut = PageAnswers(cast("Service", service))
    request = make_mocked_request("GET", PATH, headers={"Accept": "*/*"})
    query = FeedQuery.parse({"limit": "5"}, DATASET)
    form = PageForm(query, "identity", "/v1/feeds/things", {"limit": "5"})
    request[REPEATABLE] = Repeatable(PageRequest("key", (), DATASET), form)
    request[RECORD] = known = RequestRecord("/v1/feeds/{dataset}")
    known.principal = PRINCIPAL
    answer = SimpleNamespace(status=200, reason="OK", keep_alive=True, headers={})
    shortcut.remember(request, cast("web.Response", answer))
    assert shortcut.ask(request) is not None
    vars(coverage).update(changed)
    assert shortcut.ask(request) is None
