"""The API's description: valid, complete, and what an independent reader of it finds to be true."""

import json
import os
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
from tests.support import callers
from tests.support.drawn import DRAWN, share
from tests.support.service import REPOSITORY, Running, bearer

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,unsupported_method"
)

CALLERS = {
    "member": [bearer()["Authorization"]],
    "couple": [bearer(client="1")["Authorization"]],
    "nobody": [""],
    "admin": [bearer(role="admin")["Authorization"]],
}
OPERATORS = ("/api", "/metrics")
# In `make soak` each asks for all and an operator for what is theirs alone; in `make test` they
# take turns in one run, for most of a short run is schemathesis's own start.
ASKING = ("in turn",) if share(4) < 4 else tuple(CALLERS)
CALLERS["in turn"] = [header for (header,) in CALLERS.values()]


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


def test_a_route_without_a_description_is_an_error() -> None:
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
@pytest.mark.parametrize("who", ASKING)
def test_schemathesis_finds_no_5xx_and_no_undocumented_answer(
    service: Running, description: Any, tmp_path: Path, who: str
) -> None:
    """Over the description as it is, but with names of feeds that are there."""
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "dataset":
                    parameter["schema"] = {"enum": ["clients", "budgets", "analytics", "nothing"]}
                # A feed that is followed has no end to wait for.
                if parameter["name"] == "live":
                    parameter["schema"] = {"enum": ["0"]}
                if parameter["name"] == "feed":
                    parameter["schema"]["items"] = {"enum": ["nothing", "more"]}
                if path.startswith(OPERATORS) and parameter["name"] == "format":
                    # Nor has a stream of the service's own figures.
                    parameter["schema"] = {"enum": ["json", "csv"]}
    if who == "admin":
        paths = description["paths"].items()
        description["paths"] = {path: of for path, of in paths if path.startswith(OPERATORS)}
    # To leave HEAD out of the description would make it a method that must be refused.
    without = ["--exclude-method=HEAD"] if who == "in turn" else []
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(description))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", str(file), f"--url={service.url}", f"--checks={CHECKS}"),
            *("--phases=examples,coverage,fuzzing", f"--max-examples={share(15)}", "--seed=7"),
            *("--generation-deterministic", "--no-color"),
            *("--warnings=off", "--request-timeout=20", *without),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SCHEMATHESIS_HOOKS": callers.__name__,
            callers.CALLERS: json.dumps(CALLERS[who]),
        },
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
