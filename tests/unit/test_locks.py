"""The locks name what pyproject asks for, each release by the hashes of its files."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.service import REPOSITORY

EXTRAS = {
    "service": (),
    "demo": ("demo",),
    "development": ("demo", "tracing", "test", "lint", "bench"),
}
NAMES = ("build", *EXTRAS, "uv")
RELEASE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9a-z.]+)(?: ; [\w'!=<>. ]+)?"
    r"(?: --hash=sha256:[0-9a-f]{64})+"
)


def entries(name: str) -> list[str]:
    """The entries of a lock, each on one line, without comments."""
    text = Path(REPOSITORY, "locks", f"{name}.txt").read_text()
    joined = re.sub(r" \\\n *", " ", re.sub(r"(?m)^ *#.*\n", "", text))
    return joined.splitlines()


def releases(name: str) -> dict[str, str]:
    """The release that a lock has of each project."""
    found = [RELEASE.fullmatch(entry) for entry in entries(name)]
    return {match["name"]: match["version"] for match in found if match}


def pyproject() -> dict[str, Any]:
    return tomllib.loads(Path(REPOSITORY, "pyproject.toml").read_text())


def required(name: str) -> list[str]:
    """The requirements that a lock was made of."""
    if name == "build":
        return list(pyproject()["build-system"]["requires"])
    if name == "uv":
        return Path(REPOSITORY, "locks/uv.in").read_text().split()
    project = pyproject()["project"]
    of_extras = (project["optional-dependencies"][extra] for extra in EXTRAS[name])
    return [*project["dependencies"], *(one for extra in of_extras for one in extra)]


@pytest.mark.parametrize("name", NAMES)
def test_each_line_is_a_release_with_hashes_and_names_no_place(name: str) -> None:
    assert entries(name)
    assert [entry for entry in entries(name) if not RELEASE.fullmatch(entry)] == []
    text = Path(REPOSITORY, "locks", f"{name}.txt").read_text()
    assert re.findall(r"(?m)^.*(?:://|file:|--(?!hash=)).*$|(?<![\w.-])/\w+.*$", text) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_requirement_is_locked_in_its_range(name: str) -> None:
    locked = releases(name)
    for requirement in map(Requirement, required(name)):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in locks/{name}.txt: run `make lock`"
        assert Version(version) in requirement.specifier, f"{requirement}: run `make lock`"


@pytest.mark.parametrize("name", ["service", "demo"])
def test_every_lock_has_the_releases_that_were_tested(name: str) -> None:
    assert releases(name).items() <= releases("development").items()


def test_every_extra_is_locked() -> None:
    assert set(pyproject()["project"]["optional-dependencies"]) == set(EXTRAS["development"])


def test_what_ci_and_the_image_install_is_locked() -> None:
    """An install has its hashes checked, or takes nothing but the project."""
    makefile = Path(REPOSITORY, "Makefile").read_text()
    dockerfile = re.sub(r"\\\n *", " ", Path(REPOSITORY, "Dockerfile").read_text())
    steps = re.findall(r"pip (?:install|wheel) [^&\n]*", dockerfile)
    steps += re.findall(r"\$\((?:INSTALL|LOCKED)\)[^\n]*|pip wheel [^\n]*", makefile)
    assert len(steps) >= 8
    assert makefile.count("pip install") == 1
    for step in steps:
        assert re.search(r"--require-hashes|\$\(LOCKED\)|--no-deps", step), step
        assert "--no-deps" not in step or re.search("--no-build-isolation|--no-index", step), step
