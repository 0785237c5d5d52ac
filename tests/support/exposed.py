"""`/metrics`, read by prometheus-client's own parsers."""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import bearer

Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Exposed:
    """Values by sample name and labels."""

    values: Mapping[Series, float]
    text: str

    @property
    def series(self) -> frozenset[Series]:
        return frozenset(self.values)

    def total(self, name: str, **labels: str) -> float:
        """The sum over every series of this name that has these labels."""
        wanted = frozenset(labels.items())
        found = [v for (n, given), v in self.values.items() if n == name and wanted <= given]
        assert found, f"there is no {name} with {labels}"
        return sum(found)


def parse(text: str) -> Exposed:
    """Prometheus's own format, or OpenMetrics."""
    is_open = text.endswith("# EOF\n")
    read = openmetrics.text_string_to_metric_families if is_open else text_string_to_metric_families
    samples = [sample for family in read(text) for sample in family.samples]
    values = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(values) == len(samples), "a series stands there twice"
    return Exposed(values, text)


async def exposed(http: aiohttp.ClientSession, path: str = "/metrics") -> Exposed:
    """The present exposition, to an admin."""
    async with http.get(path, headers=bearer(role="admin")) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        return parse(text)
