"""Answers from the cache while the readers read."""

from collections import Counter
from typing import Final

from tests.support import cache_figures
from tests.support.canaries.readers import SETTINGS
from tests.support.canaries.world import Caller, tenant_name

_WORKERS: Final = int(SETTINGS["FEEDSVC_SERVER__WORKERS"])


async def cache_counts(url: str) -> Counter[str]:
    """As `cache_figures.cache_counts`, of a service with the readers' settings."""
    admin = Caller(tenant_name(0), "admin")
    return await cache_figures.cache_counts(url, _WORKERS, admin.headers)
