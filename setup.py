"""The compiled part of road 2. Everything else about the package is in pyproject.toml.

Optional: where there is no compiler the wheel is built without it, and the same things are done in Python.
"""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(str(path) for path in Path("glacic/native").glob("*.c"))
FLAGS = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]

setup(
    ext_modules=[
        Extension(
            "glacic.native._road",
            SOURCES,
            depends=["glacic/native/road.h"],
            extra_compile_args=FLAGS,
            optional=True,
        )
    ]
)
