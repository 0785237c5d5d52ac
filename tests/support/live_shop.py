"""A service with a few feeds that tests of live answers follow, as their tables' owner writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.support.live_copy import LiveCopy
from tests.support.logged_shop import LoggedShop
from tests.support.servers import LOGIN
from tests.support.service import bearer

OWN: Final = "tenant = (SELECT current_setting('feedsvc.tenant', true))"
ADMIN: Final = "(SELECT current_setting('feedsvc.role', true)) = 'admin'"
SCHEMA: Final = f"""
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, tenant text NOT NULL, client bigint, status text, secret bool
);
CREATE TABLE shop.notes (
    day date, tenant text NOT NULL, part text, body jsonb, PRIMARY KEY (day, part)
);
CREATE TABLE shop.offers (id bigint PRIMARY KEY, tenant text NOT NULL, until timestamptz);
CREATE POLICY readers ON shop.orders USING ({OWN} AND (NOT secret OR {ADMIN}));
CREATE POLICY readers ON shop.notes USING ({OWN});
CREATE POLICY readers ON shop.offers USING ({OWN} AND until > now());
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.offers ENABLE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA shop TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {LOGIN};
"""
DATASETS: Final = """
[orders]
relation = "shop.orders"
tenant = "tenant"
client = "client"
columns = ["id", "status"]
filters = {status = ["eq", "in"]}
[notes]
relation = "shop.notes"
tenant = "tenant"
[offers]
relation = "shop.offers"
tenant = "tenant"
"""
MEMBER, ADMIN_TOKEN = bearer("a"), bearer("a", "admin")


class LiveShop(LoggedShop):
    """The shop, and its feeds as this file asks for them."""

    def copy(self, who: Mapping[str, str] = MEMBER, feed: str = "orders", **given: str) -> LiveCopy:
        keys = {"": ("day", "part") if feed == "notes" else ("id",)}
        asked = {"live": "1", "format": "sse", **given}
        return LiveCopy(self.http, f"/v1/feeds/{feed}", who, keys, asked)

    async def refused(self, path: str, who: Mapping[str, str] = MEMBER) -> dict[str, Any]:
        async with self.http.get(path, headers=who) as response:
            return {"http": response.status, **json.loads(await response.text())}


def ids(copy: LiveCopy) -> dict[int, str]:
    """The status of each order."""
    return {row["id"]: row["status"] for row in copy.rows.values()}
