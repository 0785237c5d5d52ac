"""The API's description: valid, complete, and what an independent reader of it finds to be true."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from feedsvc.core.problems import problem_types
from feedsvc.web.application import ROUTES
from feedsvc.web.openapi import document
from tests.support.drawn import DRAWN, share
from tests.support.service import Running, bearer

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,unsupported_method"
)


@pytest.fixture
async def description(http: aiohttp.ClientSession) -> Any:
    async with http.get("/openapi.json") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        return await answer.json()


async def test_it_is_valid_and_has_every_route_and_nothing_of_the_operators(
    description: Any, http: aiohttp.ClientSession
) -> None:
    validate(description)
    described = {
        (method.upper(), where)
        for where, operations in description["paths"].items()
        for method in operations
    }
    assert described == {
        (method, document.path(route.path)) for route in ROUTES for method in route.methods
    }
    text = json.dumps(description)
    assert "partner_one" not in text
    assert "wedding" not in text
    for (_, where), operation in (
        ((method, where), operation)
        for where, operations in description["paths"].items()
        for method, operation in operations.items()
    ):
        assert ("security" in operation) == where.startswith(("/v1", "/api", "/metrics")), where


def test_a_route_that_nobody_described_is_an_error() -> None:
    with pytest.raises(KeyError):
        document.document([("GET", "/new")], {"/new": True})


def test_every_status_of_a_problem_is_described_somewhere() -> None:
    guarded = {document.path(route.path): True for route in ROUTES}
    wanted = [(method, document.path(route.path)) for route in ROUTES for method in route.methods]
    described = document.document(wanted, guarded)
    statuses = {
        status
        for operations in described["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
    }
    assert {str(kind.status) for kind in problem_types().values()} <= statuses


async def test_it_is_cached_by_its_tag(http: aiohttp.ClientSession) -> None:
    async with http.get("/openapi.json") as answer:
        tag = answer.headers["ETag"]
    async with http.get("/openapi.json", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


@DRAWN
@pytest.mark.timeout(180)
@pytest.mark.parametrize("who", ["member", "couple", "nobody", "admin"])
def test_schemathesis_finds_no_5xx_and_no_undocumented_answer(
    service: Running, description: Any, tmp_path: Path, who: str
) -> None:
    """Over the description as it is, but with names of feeds that are there."""
    for operations in description["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "dataset":
                    parameter["schema"] = {"enum": ["clients", "budgets", "analytics", "nothing"]}
                if who == "admin" and parameter["name"] == "format":
                    # A stream of the service's own figures has no end to wait for.
                    parameter["schema"] = {"enum": ["json", "csv"]}
    headers = {
        "member": bearer(),
        "couple": bearer(client="1"),
        "nobody": {},
        "admin": bearer(role="admin"),
    }[who]
    if who == "admin":
        own = ("/api", "/metrics")
        paths = description["paths"].items()
        description["paths"] = {path: of for path, of in paths if path.startswith(own)}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(description))
    given = [f"--header={name}: {value}" for name, value in headers.items()]
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", str(file), f"--url={service.url}", f"--checks={CHECKS}", *given),
            *("--phases=examples,coverage,fuzzing", f"--max-examples={share(15)}", "--seed=7"),
            *("--generation-deterministic", "--no-color"),
            *("--warnings=off", "--request-timeout=20"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
