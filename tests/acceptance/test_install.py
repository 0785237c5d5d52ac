"""The project as pip installs it, with a compiler and without."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.service import REPOSITORY
from tests.unit.test_encoder_built import COMPILER, HEADER

PARTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "streams", "feedsvc")
TELL = "from streams import encoder; print(encoder.MISSING)"


# A row's worth of work for the module, so that a build that only imports is not enough.
USE = (
    "from streams.encoder import _native as n; "
    "n.Plan([('id', min(n.KINDS), False)], 'csv', keys=[0], delimiter=';'); print('used')"
)


def wheel(
    folder: Path, python: str = sys.executable, *, is_isolated: bool = True, **environment: str
) -> Path:
    """The wheel that pip makes of a copy of the repository, with build tools of its own or ours."""
    copy = folder / "copy"
    copy.mkdir()
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("*.so"))
        else:
            shutil.copy(source, copy)
    command = [
        python,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "-q",
        "-w",
        str(folder),
        str(copy),
        *([] if is_isolated else ["--no-build-isolation"]),
    ]
    # Half of a build is the optimizer's, which changes nothing here.
    given = {**os.environ, "CFLAGS": "-O0", **environment}
    subprocess.run(command, env=given, check=True, capture_output=True, text=True)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A wheel with the encoder, made once by each version of Python."""
    wheels: dict[str, Path] = {}

    def build(python: str) -> Path:
        code = "import sys; print(sys.implementation.cache_tag)"
        version = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
        if version.stdout not in wheels:
            folder = tmp_path_factory.mktemp("wheel")
            wheels[version.stdout] = wheel(folder, python, FEEDSVC_NATIVE="required")
        return wheels[version.stdout]

    return build


def reported(made: Path, folder: Path, python: str = sys.executable, code: str = TELL) -> str:
    """The output of a Python that has this wheel unpacked."""
    unpacked = folder / "unpacked"
    with zipfile.ZipFile(made) as archive:
        archive.extractall(unpacked)
    command = [python, "-c", code]
    done = subprocess.run(command, cwd=unpacked, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_without_a_compiler_it_is_installed_without_the_encoder(tmp_path: Path) -> None:
    made = wheel(tmp_path, is_isolated=False, CC="/bin/false")
    assert "No module named 'streams.encoder._native'" in reported(made, tmp_path)


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"there is no compiler {COMPILER}")
@pytest.mark.skipif(not HEADER.exists(), reason=f"there is no {HEADER}")
def test_a_wheel_is_for_every_python_and_has_no_sources(
    built: Callable[[str], Path], tmp_path: Path
) -> None:
    made = built(sys.executable)
    assert "-cp311-abi3-" in made.name
    assert reported(made, tmp_path) == "None"
    with zipfile.ZipFile(made) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".c", ".h"))]


def test_what_is_required_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        wheel(tmp_path, is_isolated=False, FEEDSVC_NATIVE="required", CC="/bin/false")
    assert "streams.encoder._native" in caught.value.stderr


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"there is no compiler {COMPILER}")
@pytest.mark.parametrize(
    "name", ["python3.11", pytest.param("python3.12", marks=pytest.mark.soak), "python3.13"]
)
def test_what_one_python_builds_another_uses(
    built: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """As where one checkout has a venv for each, or a wheel is built by the newest."""
    other = shutil.which(name)
    # A shim of pyenv's stands on PATH for a version that is installed and not chosen.
    if other is None or subprocess.run([other, "--version"], check=False).returncode:
        pytest.skip(f"there is no {name} on PATH that runs")
    made = built(other)
    assert reported(made, tmp_path, code=USE) == "used"
