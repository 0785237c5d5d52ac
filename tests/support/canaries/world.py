"""The tenants and their rows, known to the tests without asking any database."""

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final, Literal, TypeAlias

import asyncpg

from feedsvc.changes import triggers
from streams import tokens
from tests.support.servers import LOG_TEMPLATE
from tests.support.service import bearer

HERE: Final = Path(__file__).parent
DATASETS_FILE: Final = HERE / "datasets.toml"
CLIENTS: Final = (1, 2, 3)
NOBODY: Final = "t999"
"""A tenant that nobody has ever heard of."""

Name: TypeAlias = Literal["letters", "stamps", "notices"]
Order: TypeAlias = Literal["key", "sorted"]
Value: TypeAlias = str | int

NAMES: Final[Sequence[Name]] = ("letters", "stamps", "notices")
ROWS: Final[dict[Name, int]] = {"letters": 240, "stamps": 120, "notices": 60}
KEYS: Final[dict[Name, Sequence[str]]] = {
    "letters": ("id",),
    "stamps": ("code", "seq"),
    "notices": ("id",),
}
# The columns of each order with its key, as docs/feeds.md has it, and whether they descend.
_ORDERS: Final[dict[tuple[Name, Order], tuple[Sequence[str], bool]]] = {
    ("letters", "key"): (("id",), False),
    ("letters", "sorted"): (("sorted_by", "id"), False),
    ("stamps", "key"): (("code", "seq"), False),
    ("stamps", "sorted"): (("seq", "code"), False),
    ("notices", "key"): (("id",), False),
    ("notices", "sorted"): (("topic", "id"), True),
}

# Of nothing but letters, digits and hyphens, so that no format and no token writes it differently.
# What a cut leaves of one still says the tenant.
CANARY: Final = re.compile(rb"canary-(t\d{3})(?:-c(\d)(?:-(?:\d{4}[a-z]?)?)?)?")
MARK: Final = re.compile(rb"canary-t\d{3}-c\d-\d{4}m")


@dataclass(frozen=True)
class Caller:
    """A caller: a member or an admin of a tenant, or with `client` a couple of it."""

    tenant: str
    role: str = "member"
    client: int | None = None

    @cached_property
    def headers(self) -> dict[str, str]:
        client = None if self.client is None else str(self.client)
        return bearer(self.tenant, self.role, client, subject=f"{self.tenant} {client}")

    def owns(self, tenant: str, client: int | None) -> bool:
        """Return whether this caller may see a canary; the client is 0 for what all may see."""
        return tenant == self.tenant and (self.client is None or client in {None, 0, self.client})


@dataclass(frozen=True)
class Row:
    """One row, as it was put into the table."""

    name: Name
    client: int
    values: dict[str, Value]

    @property
    def mark(self) -> str:
        """The canary that stands in no token, so that nothing but the row itself shows it."""
        return str(self.values["mark"])

    @property
    def address(self) -> str:
        """The row's path."""
        key = tokens.encode(str(self.values[column]) for column in KEYS[self.name])
        return f"/v1/feeds/{self.name}/{key}"

    def place(self, order: Order) -> tuple[Value, ...]:
        """Its position in an order."""
        return tuple(self.values[column] for column in _ORDERS[self.name, order][0])

    def token(self, order: Order) -> str:
        """The resume token behind it."""
        return tokens.encode(map(str, self.place(order)))


@dataclass(frozen=True)
class World:
    """A database with so many tenants: the superuser's URL of it."""

    url: str
    tenants: Sequence[str]

    def rows(self, caller: Caller, name: Name, order: Order = "key") -> Sequence[Row]:
        """All that the caller may see of a dataset, in this order."""
        return _seen(self.tenants.index(caller.tenant), caller.client, name, order)

    def behind(self, caller: Caller, row: Row, order: Order) -> Sequence[Row]:
        """The rows that the caller sees behind a row, which may be another's."""
        place, descends = row.place(order), _ORDERS[row.name, order][1]
        return [
            seen
            for seen in self.rows(caller, row.name, order)
            if (seen.place(order) < place if descends else seen.place(order) > place)
        ]


def tenant_name(index: int) -> str:
    return f"t{index:03}"


@cache
def _seen(tenant: int, client: int | None, name: Name, order: Order) -> Sequence[Row]:
    rows = [row for row in _rows(tenant, name) if client is None or row.client in {0, client}]
    return sorted(rows, key=lambda row: row.place(order), reverse=_ORDERS[name, order][1])


@cache
def _rows(tenant: int, name: Name) -> Sequence[Row]:
    return [_row(tenant, name, number) for number in range(ROWS[name])]


def _row(tenant: int, name: Name, number: int) -> Row:
    client = 0 if name == "notices" else CLIENTS[number % len(CLIENTS)]

    def canary(place: str) -> str:
        return f"canary-{tenant_name(tenant)}-c{client}-{number:04}{place}"

    extra = {"nested": [{"whose": canary("j"), "number": number}], "about": "ß \"'\n, 📮"}
    values: dict[str, Value] = {
        "tenant_id": tenant_name(tenant),
        "mark": canary("m"),
        "extra": json.dumps(extra),
    }
    # A number stands before the canary, so that the tenants' rows would lie between each other.
    shuffled = number * 7919 % 10_000
    match name:
        case "letters":
            values |= {"id": number * 3 + 1, "client_id": client, "filler": "x" * 480}
            values |= {"sorted_by": f"{shuffled:04}.{canary('o')}"}
        case "stamps":
            values |= {"code": f"{shuffled:04}.{canary('k')}", "seq": number % 5}
            values |= {"client_id": client}
        case _:
            values |= {"id": number * 1_000 + tenant, "topic": f"{shuffled:04}.{canary('o')}"}
    return Row(name, client, values)


@asynccontextmanager
async def peopled(
    new_database: Callable[[str], AbstractAsyncContextManager[str]], tenants: int
) -> AsyncIterator[World]:
    """A database of its own with so many tenants, gone at the block's end."""
    async with new_database(LOG_TEMPLATE) as url:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute((HERE / "schema.sql").read_text())
            for name in NAMES:
                await _fill(connection, name, tenants)
            await triggers.install_for(connection, HERE / "datasets.toml")
            await connection.execute("ANALYZE post.letters, post.stamps, post.notices")
        finally:
            await connection.close()
        yield World(url, [tenant_name(index) for index in range(tenants)])


async def _fill(connection: asyncpg.Connection, name: Name, tenants: int) -> None:
    columns = list(_rows(0, name)[0].values)
    records = [
        tuple(row.values[column] for column in columns)
        for tenant in range(tenants)
        for row in _rows(tenant, name)
    ]
    await connection.copy_records_to_table(
        name, schema_name="post", columns=columns, records=records
    )
