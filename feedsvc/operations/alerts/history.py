"""The alerts' history in PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta
from importlib.resources import files
from typing import Final, NamedTuple

import orjson

from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Pool
from feedsvc.core.json_object import Json
from feedsvc.operations.alerts.states import AlertState

KEPT: Final = timedelta(days=90)
_ADD, _LATEST, _STANDING, _TRIM = (
    (files("feedsvc.operations.alerts") / f"{name}.sql").read_text()
    for name in ("add", "latest", "standing", "trim")
)


class StandingAlerts(NamedTuple):
    """Firing alerts and silences as of the history, by alert."""

    firing: dict[str, AlertState]
    silences: dict[str, Json]


class AlertHistory:
    """Events of alerts. Every method raises Problem."""

    def __init__(self, pool: Pool, instance: str) -> None:
        self._pool = pool
        self._instance = instance

    async def add(self, events: Sequence[Json]) -> None:
        """Add events; one that is there already is not added again."""
        async with write_transaction(self._pool) as connection:
            await connection.execute(_ADD, orjson.dumps(events).decode())

    async def latest(self, most: int) -> list[Json]:
        """The latest events, of every instance, the newest first."""
        async with write_transaction(self._pool) as connection:
            return [dict(row) for row in await connection.fetch(_LATEST, most)]

    async def standing(self) -> StandingAlerts:
        """The alerts that fire and the silences, by their latest events."""
        async with write_transaction(self._pool) as connection:
            rows = await connection.fetch(_STANDING, self._instance)
        # A message that an alert fires is followed by one that it is over, also from a service
        # that was started again in between.
        firing = {
            row["alert"]: AlertState("firing", row["at"], row["value"], told=True)
            for row in rows
            if row["event"] == "firing"
        }
        silences = {
            row["alert"]: {"until": row["until"], "reason": row["reason"], "at": row["at"]}
            for row in rows
            if row["event"] == "silenced"
        }
        return StandingAlerts(firing, silences)

    async def trim(self) -> None:
        """Delete events older than `KEPT`."""
        async with write_transaction(self._pool) as connection:
            await connection.execute(_TRIM, KEPT)
