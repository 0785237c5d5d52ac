"""HTTP: the only package that knows `aiohttp.web`."""
