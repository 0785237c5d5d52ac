"""PostgreSQL and Valkey from wheels, run as an ordinary account for the demo and the tests.

All of it is synchronous: it runs before there is an event loop (or in a thread beside one).
"""

from feedsvc.commands.demo.embedded.copies import cache_folder
from feedsvc.commands.demo.embedded.errors import EmbeddedError
from feedsvc.commands.demo.embedded.postgres import PostgresServer, start_postgres
from feedsvc.commands.demo.embedded.slots import claim_folder, claim_slot
from feedsvc.commands.demo.embedded.valkey import ValkeyServer, start_valkey

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
