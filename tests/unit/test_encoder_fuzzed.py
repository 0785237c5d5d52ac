"""Some seconds of what `make fuzz` does for ten minutes."""

from pathlib import Path

import pytest

from tests.fuzzing import build
from tests.fuzzing.run import fuzzed, out_of_memory
from tests.support.drawn import DRAWN, share

SECONDS = share(8)


@DRAWN
def test_no_input_leads_astray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = build.compiler()
    if program is None:
        pytest.skip("there is no compiler with sanitizers on this machine")
    monkeypatch.chdir(tmp_path)  # where a crash would be kept
    fuzzed(build.fuzzer(tmp_path, program), tmp_path, SECONDS, number=1)


def test_memory_that_runs_out_is_said_so_and_nothing_is_left_behind(tmp_path: Path) -> None:
    program = build.compiler()
    if program is None:
        pytest.skip("there is no compiler with sanitizers on this machine")
    words = out_of_memory(build.allocations(tmp_path, program), tmp_path)
    assert int(words.split()[1]) > 20
