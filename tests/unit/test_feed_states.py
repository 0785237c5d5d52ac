"""How often the way a feed is logged is asked for in one transaction."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedsvc.feeds.feed_state import FeedStates, KnownFeeds, LoggedFeed

DATASET: Any = SimpleNamespace(name="clients", tenant=SimpleNamespace(canonical=str))
CONNECTION: Any = None


async def test_callers_in_one_transaction_cost_one_question_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[str | None]()

    async def read(self: FeedStates, _connection: Any, _dataset: Any, text: str | None) -> Any:
        asked.append(text)
        since = str(len(asked))
        return LoggedFeed(1, 7, [7, hash(text)], [], since, None, None, "", cast("Any", None))

    monkeypatch.setattr(FeedStates, "_read", read)
    states = FeedStates()

    async def seen(tenant: str, known: KnownFeeds) -> LoggedFeed:
        found = await states.read(CONNECTION, DATASET, tenant, known)
        assert found is not None
        assert found.scopes == [7, hash(tenant)], "never another tenant's"
        return found

    first: KnownFeeds = {}
    for tenant in ("a", "b", "a", "b"):
        await seen(tenant, first)
    assert asked == ["a", "b"], "the scopes of each are learned once"
    second: KnownFeeds = {}
    for tenant in ("a", "b", "a"):
        assert (await seen(tenant, second)).since == "3", "of this transaction, and no former one"
    assert asked == ["a", "b", "a"]
    await states.read(CONNECTION, DATASET, "a")
    assert asked[3:] == ["a"], "without a transaction in common nothing is known"
