"""Fuzzes the encoder under AddressSanitizer and UndefinedBehaviorSanitizer.

With clang, libFuzzer drives; else `driver.c` does. Before that the encoder's unit tests run on a
module that was built with the same sanitizers, which covers what knows of Python.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzzing import build
from tests.fuzzing.seeds import seeds
from tests.support.wire import array, copy_stream, int4, int8, numeric


def main() -> int:
    """Fuzzes for as long as it is told to; answers the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--number", type=int, default=1, help="what the inputs follow from")
    options = parser.parse_args()
    program = build.compiler()
    if program is None:
        sys.exit("fuzz: neither clang nor gcc is there with its sanitizers")
    with tempfile.TemporaryDirectory(prefix="feedsvc-fuzz-") as folder:
        try:
            tested(Path(folder, "module"))
            print(out_of_memory(build.allocations(Path(folder), program), Path(folder)), end="")
            made = build.fuzzer(Path(folder), program)
            print(fuzzed(made, Path(folder), options.seconds, options.number), end="")
        except subprocess.CalledProcessError as error:
            sys.exit(f"fuzz: {error}")
    return 0


def fuzzed(program: Path, folder: Path, seconds: int, number: int) -> str:
    """Run the fuzzer and answer its words. Raises CalledProcessError if it found something.

    The input that it found is left in the working directory, as crash.bin or crash-….
    """
    corpus = folder / "seeds"
    corpus.mkdir()
    for position, seed in enumerate(seeds()):
        (corpus / f"{position:04}").write_bytes(seed)
    if b"libFuzzer" in program.read_bytes():
        length = f"-max_total_time={seconds}"
        options = (length, f"-seed={number}", "-print_final_stats=1", corpus)
        lines = build.run(program, *options).splitlines(keepends=True)
        return "".join(line for line in lines if line.startswith("stat::"))
    return build.run(program, str(seconds), str(number), *sorted(corpus.iterdir()))


def out_of_memory(program: Path, folder: Path) -> str:
    """Run the encoder once for each of its allocations, which then fails; answer its words.

    Raises CalledProcessError where the encoder did not say so or left something behind.
    """
    row = int8(1), b'"text"\n' * 1_000, numeric([1, 5000], 0), array(int4(1), None), b"\1{}"
    stream = folder / "rows"
    stream.write_bytes(copy_stream([row, [None] * len(row)] * 20))
    return build.run(program, stream)


def tested(folder: Path) -> None:
    """Run the encoder's unit tests on a sanitized module. Raises CalledProcessError."""
    gcc = shutil.which("gcc")
    if gcc is None:
        print("fuzz: without gcc the module is not tested under its sanitizers")
        return
    environment = {**os.environ, **build.module(folder, gcc)}
    files = map(str, sorted(folder.glob("tests/unit/test_encoder*.py")))
    options = ["--no-servers", "-q", "-p", "no:cacheprovider", "-k", "not fuzz"]
    command = [sys.executable, "-m", "pytest", *options, *files]
    subprocess.run(command, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
