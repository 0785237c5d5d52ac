"""PostgreSQL and Valkey from wheels, run as an ordinary account for the demo and the tests.

All of it is synchronous: it runs before there is an event loop (or in a thread beside one).
"""

from feedsvc.embedded.copies import cache_folder
from feedsvc.embedded.errors import EmbeddedError
from feedsvc.embedded.postgres import PostgresServer, start_postgres
from feedsvc.embedded.slots import claim_folder, claim_slot
from feedsvc.embedded.valkey import ValkeyServer, start_valkey

__all__ = [
    "EmbeddedError",
    "PostgresServer",
    "ValkeyServer",
    "cache_folder",
    "claim_folder",
    "claim_slot",
    "start_postgres",
    "start_valkey",
]
