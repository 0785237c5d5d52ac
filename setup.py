"""What pyproject.toml has no words for: the native encoder.

Where there is no compiler, `optional` makes that a warning, and PostgreSQL itself encodes. With
FEEDSVC_NATIVE=required in the environment it is an error.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("streams", "encoder", "native")

setup(
    ext_modules=[
        Extension(
            "streams.encoder._native",
            sources=sorted(map(str, NATIVE.glob("*.c"))),
            depends=sorted(map(str, NATIVE.glob("*.h"))),
            extra_compile_args=[] if sys.platform == "win32" else ["-std=c11", "-O3"],
            py_limited_api=True,
            optional=os.environ.get("FEEDSVC_NATIVE") != "required",
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
