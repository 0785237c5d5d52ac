"""All settings in one value."""

import os
from typing import Any, Final

from pydantic import SecretStr
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict

from feedsvc.settings.operations import (
    Advise,
    Alerts,
    Audit,
    Health,
    Log,
    Metrics,
    Queries,
    Tracing,
)
from feedsvc.settings.pools import Pools
from feedsvc.settings.renamed import PREFIX
from feedsvc.settings.sections import (
    Auth,
    Cache,
    Changes,
    Cors,
    Database,
    Datasets,
    Limits,
    Redis,
    Server,
    Streams,
)

PLAIN_VARIABLES: Final = {
    "DATABASE_URL": ("database", "url"),
    "MIGRATION_DATABASE_URL": ("database", "owner_url"),
    "REDIS_URL": ("redis", "url"),
}


class PlainVariables(InitSettingsSource):
    """`DATABASE_URL`, `REDIS_URL` and the like, as every platform sets them."""

    def __init__(self, settings_class: type[BaseSettings]) -> None:
        values: dict[str, Any] = {}
        for variable, (section, key) in PLAIN_VARIABLES.items():
            if os.environ.get(variable):
                values.setdefault(section, {})[key] = os.environ[variable]
        super().__init__(settings_class, values)


class Settings(BaseSettings):
    """The effective settings. Read them with `load`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__"
    )

    server: Server = Server()
    cors: Cors = Cors()
    database: Database = Database()
    redis: Redis = Redis()
    cache: Cache = Cache()
    changes: Changes = Changes()
    auth: Auth = Auth()
    limits: Limits = Limits()
    audit: Audit = Audit()
    streams: Streams = Streams()
    pools: Pools = Pools()
    health: Health = Health()
    metrics: Metrics = Metrics()
    alerts: Alerts = Alerts()
    datasets: Datasets = Datasets()
    log: Log = Log()
    queries: Queries = Queries()
    advise: Advise = Advise()
    tracing: Tracing = Tracing()

    def masked(self) -> dict[str, Any]:
        """The settings as plain values, passwords and keys replaced by asterisks."""
        plain = self.model_dump(mode="json")
        for section, key in PLAIN_VARIABLES.values():
            secret: SecretStr | None = getattr(getattr(self, section), key)
            plain[section][key] = mask_url(secret.get_secret_value()) if secret else None
        replicas = self.database.replicas
        plain["database"]["replicas"] = [mask_url(url.get_secret_value()) for url in replicas]
        return {section: _without_credentials(value) for section, value in plain.items()}


def _without_credentials(value: Any) -> Any:
    """The value with every URL in it masked, for any setting may be one with a password."""
    if isinstance(value, dict):
        return {key: _without_credentials(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_credentials(item) for item in value]
    return mask_url(value) if isinstance(value, str) and "://" in value else value


def mask_url(url: str) -> str:
    """The URL with its password, and its query, which may hold one, replaced by asterisks.

    Also of one with several hosts, or with a password that should have been percent-encoded.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***" if url else ""
    place, mark, query = rest.partition("?")
    if "@" in query and "@" not in place:
        return f"{scheme}://***"
    who, at, where = place.rpartition("@")
    user = f"{who.partition(':')[0]}:***" if at else ""
    return f"{scheme}://{user}{at}{where}{mark}{'***' if query else ''}"
