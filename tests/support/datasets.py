"""A dataset made by hand, for what needs one and no database."""

from feedsvc.datasets.dataset import Column, Dataset, OrderColumn
from feedsvc.datasets.tags import Template

ID = Column("id", "bigint", False, "pg_catalog.int8", "int8", "N")
DATASET = Dataset(
    name="things",
    title="Things",
    relation='"app"."things"',
    columns={"id": ID},
    all_columns={"id": ID},
    key=(ID,),
    orders={"key": (OrderColumn(ID, False),)},
    served=frozenset(),
    filters={},
    tenant=None,
    client=None,
    shared_with_clients=False,
    roles=("member",),
    pool="read",
    source="auto",
    ranges=1,
    replica=False,
    cache=True,
    fresh=300.0,
    stale=0.0,
    tags=(Template.parse("things"),),
    filename="Dînge",
)
