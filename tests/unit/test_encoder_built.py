"""An install may do without the encoder, but not where there is a compiler."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from streams import encoder

COMPILER = (sysconfig.get_config_var("CC") or "cc").split()[0]
HEADER = Path(sysconfig.get_path("include"), "Python.h")


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"there is no compiler {COMPILER}")
@pytest.mark.skipif(not HEADER.exists(), reason=f"there is no {HEADER}")
def test_it_was_built() -> None:
    assert encoder.MISSING is None, "pip install -e . would say why"


def test_its_absence_is_reported() -> None:
    assert (encoder.MISSING is None) == bool(encoder.KINDS)
