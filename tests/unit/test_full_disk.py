"""The end of a command whose standard error can't be written."""

import os
import subprocess
import sys


def test_what_a_full_disk_does_not_take_is_no_failure_of_the_command() -> None:
    buffered = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        for end, status in (("", 120), ("logs.drop_unwritten()", 0)):
            code = f"""if True:
                import contextlib, sys
                from feedsvc.core import logs
                with contextlib.suppress(OSError):
                    sys.stderr.write("a line" + chr(10))
                {end}"""
            done = subprocess.run(
                [sys.executable, "-c", code], stderr=full, env=buffered, check=False
            )
            assert done.returncode == status
