"""The encoder, built with AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from tests.support.service import REPOSITORY

NATIVE: Final = REPOSITORY / "streams" / "encoder" / "native"
HERE: Final = Path(__file__).parent
# What knows of Python, and so is no part of the fuzzer's target.
_BINDING: Final = {"module.c", "plan_type.c", "encoder_type.c", "batch_type.c"}
_SANITIZED: Final = (
    *("-std=c11", "-g", "-O1", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
ENVIRONMENT: Final = {
    "ASAN_OPTIONS": "abort_on_error=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "abort_on_error=1:print_stacktrace=1",
}


def compiler() -> str | None:
    """clang if it has libFuzzer, else gcc if it has the sanitizers, else None."""
    clang, gcc = shutil.which("clang"), shutil.which("gcc")
    if clang and _links(clang, "fuzzer,address", "int LLVMFuzzerTestOneInput(void){return 0;}"):
        return clang
    return gcc if gcc and _links(gcc, "address,undefined", "int main(void){return 0;}") else None


def _links(program: str, sanitizers: str, source: str) -> bool:
    command = [program, f"-fsanitize={sanitizers}", "-x", "c", "-", "-o", os.devnull]
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    return done.returncode == 0


def fuzzer(folder: Path, program: str) -> Path:
    """The fuzzer, built in the folder by this compiler. Raises CalledProcessError."""
    made, core = folder / "fuzzer", _core()
    target: list[str | Path] = [f"-I{NATIVE}", HERE / "target.c"]
    if Path(program).name == "clang":
        run(program, *_SANITIZED, "-fsanitize=fuzzer", *target, *core, "-o", made)
        return made
    # The driver must not count its own edges.
    for path in core:
        counted = "-fsanitize-coverage=trace-pc", "-c", path, "-o", folder / f"{path.stem}.o"
        run(program, *_SANITIZED, *counted)
    run(program, *_SANITIZED, *target, HERE / "driver.c", *folder.glob("*.o"), "-o", made)
    return made


def allocations(folder: Path, program: str) -> Path:
    """The encoder under an allocator that fails at its n-th call. Raises CalledProcessError."""
    made = folder / "allocations"
    wrapped = "-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc"
    sources = HERE / "allocations.c", *_core()
    run(program, *_SANITIZED, wrapped, f"-I{NATIVE}", *sources, "-o", made)
    return made


def _core() -> list[Path]:
    return [path for path in sorted(NATIVE.glob("*.c")) if path.name not in _BINDING]


def module(folder: Path, program: str) -> dict[str, str]:
    """The repository's packages with a sanitized module, copied to the folder.

    Answers what the environment of a Python must have for it. Raises CalledProcessError.
    """
    for part in ("streams", "feedsvc", "tests"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("*.so"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    include = f"-I{sysconfig.get_path('include')}"
    made = folder / "streams" / "encoder" / "_native.abi3.so"
    sources = sorted(NATIVE.glob("*.c"))
    run(program, *_SANITIZED, "-shared", "-fPIC", include, *sources, "-o", made)
    libraries = [run(program, f"-print-file-name=lib{name}.so") for name in ("asan", "ubsan")]
    return {
        **ENVIRONMENT,
        "ASAN_OPTIONS": f"{ENVIRONMENT['ASAN_OPTIONS']}:detect_leaks=0",  # Python's own
        "LD_PRELOAD": " ".join(map(str.strip, libraries)),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(folder),
    }


def run(*command: str | Path) -> str:
    """A program's output. Raises CalledProcessError, after telling what it said."""
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout + done.stderr
