"""Every setting of the service, in one frozen value.

`config/feedsvc.toml` is overridden by `FEEDSVC_SECTION__KEY` in the environment; `DATABASE_URL`
and `REDIS_URL` are understood too. Times are seconds, sizes bytes.
"""

from feedsvc.settings.effective import Settings, mask_url
from feedsvc.settings.loading import SettingsError, load, named_files, settings_file, warnings
from feedsvc.settings.operations import (
    Advise,
    Alerts,
    Audit,
    Health,
    HttpCheck,
    Log,
    Metrics,
    Queries,
    Tracing,
)
from feedsvc.settings.pools import AnalyticsPool, BulkPool, Pools, PoolSettings, ReadPool, WritePool
from feedsvc.settings.sections import (
    Auth,
    Cache,
    CallerLimits,
    Changes,
    Claims,
    ClientLimits,
    Cors,
    Database,
    Datasets,
    Limits,
    Redis,
    Server,
    Streams,
)

__all__ = [
    "Advise",
    "Alerts",
    "AnalyticsPool",
    "Audit",
    "Auth",
    "BulkPool",
    "Cache",
    "CallerLimits",
    "Changes",
    "Claims",
    "ClientLimits",
    "Cors",
    "Database",
    "Datasets",
    "Health",
    "HttpCheck",
    "Limits",
    "Log",
    "Metrics",
    "PoolSettings",
    "Pools",
    "Queries",
    "ReadPool",
    "Redis",
    "Server",
    "Settings",
    "SettingsError",
    "Streams",
    "Tracing",
    "WritePool",
    "load",
    "mask_url",
    "named_files",
    "settings_file",
    "warnings",
]
