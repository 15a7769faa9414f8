"""The bench's C programs: compiled on need, kept in build/bench. Refuses to run them; processes.py does."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from glacic.errors import LabError

ROOT = Path(__file__).resolve().parent.parent
SOURCES = Path(__file__).resolve().parent / "c"
BUILT = ROOT / "build" / "bench"
FLAGS = ("-O2", "-Wall", "-Wextra")


def compiler() -> list[str]:
    """The C compiler: $CC, or cc."""
    return shlex.split(os.environ.get("CC", "cc"))


def program(name: str) -> Path:
    """The path of the program made of c/NAME.c, which is compiled if it is new or was changed. Raises LabError."""
    source, built = SOURCES / f"{name}.c", BUILT / name
    sources = [source, *SOURCES.glob("*.h")]
    if built.exists() and built.stat().st_mtime >= max(path.stat().st_mtime for path in sources):
        return built
    BUILT.mkdir(parents=True, exist_ok=True)
    half = (
        BUILT / f".{name}.{os.getpid()}"
    )  # renamed when it is whole: others may be compiling it, or running the old one
    command = [*compiler(), *FLAGS, "-o", str(half), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- as asked above
    except FileNotFoundError:
        raise LabError(f"no C compiler ({command[0]}); on Debian: apt-get install gcc libc6-dev") from None
    if done.returncode != 0:
        raise LabError(f"{source.name} does not compile:\n{done.stderr}")
    half.rename(built)
    return built
