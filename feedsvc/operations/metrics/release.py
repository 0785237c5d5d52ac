"""The release that is installed."""

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Its number, "unknown" where the package runs without being installed."""
    try:
        return version("feedsvc")
    except PackageNotFoundError:
        return "unknown"
