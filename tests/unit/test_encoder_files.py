"""The encoder's C files lie in layers: a header does not lead to a file of one of its users."""

import re
from pathlib import Path
from typing import Final

import pytest

NATIVE: Final = Path(__file__).parents[2] / "streams" / "encoder" / "native"
# Some functions of one subject that have a file of their own.
ELSEWHERE: Final = {"encoder.h": {"copy.c"}, "binding.h": {"encoder_type.c", "batch_type.c"}}
DECLARED: Final = re.compile(
    r"^(?!static|typedef|return)\w[\w *]*?\*?(\w+)\([^;{]*\);", re.MULTILINE
)
DATA: Final = re.compile(r"^extern [\w *]*?(\w+)(?:\[\w*\])?;", re.MULTILINE)


def _defining(name: str) -> set[str]:
    defined = re.compile(
        rf"^(?!static|extern)\w[\w *]*\*?\b{name}(?:\([^;]*\)\n{{|(?:\[\w*\])? =)", re.MULTILINE
    )
    return {path.name for path in NATIVE.glob("*.c") if defined.search(path.read_text())}


@pytest.mark.parametrize("header", sorted(path.name for path in NATIVE.glob("*.h")))
def test_what_a_header_declares_is_defined_in_the_file_of_its_name(header: str) -> None:
    text = (NATIVE / header).read_text()
    for name in DECLARED.findall(text) + DATA.findall(text):
        files = {Path(header).with_suffix(".c").name} | ELSEWHERE.get(header, set())
        defining = _defining(name)
        assert defining, f"{name} of {header}"
        assert defining <= files, f"{name} of {header}"
