"""Each target of the Makefile is listed by `make help`, with a sentence."""

from __future__ import annotations

import re
import subprocess

from tests.support.service import REPOSITORY


def test_help_lists_every_target_with_a_sentence() -> None:
    run = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = dict(re.findall(r"^make ([\w-]+) +(\S.*)$", run.stdout, re.MULTILINE))
    (declared,) = re.findall(
        r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE
    )
    assert set(listed) == set(declared.split())
    assert [name for name, sentence in listed.items() if not sentence.endswith(".")] == []
