"""Contestants as processes: started in a host, on a core, told to end, and asked what they have done.

Every program of the bench (C or Python) prints the line "ready" when it takes packets, ends on SIGTERM, and prints what
it did as one JSON object, its last line. Refuses to know what the figures mean.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from bench import build, pinning
from glacic.errors import LabError
from glacic.lab.net import Host

READY_S = 30.0
END_S = 30.0


class Running:
    """One that is at work. Use `running`, which ends it also where something fails."""

    def __init__(self, host: Host, command: Sequence[str], core: int | None, errors: IO[bytes]) -> None:
        self.host = host
        self.name = command[0]
        self._errors = errors
        self.process = host.popen(command, stdout=subprocess.PIPE, stderr=errors)
        self.pid = self.process.pid
        if core is not None:
            pinning.pin(self.pid, core)
        self._said = b""

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Until it takes packets. Raises LabError where it does not come to that."""
        deadline = time.monotonic() + timeout_s
        while b"ready\n" not in self._said:
            if not self._read(deadline - time.monotonic()):
                raise LabError(f"{self.name} is not ready: {self._trouble()}")

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """Until it ends by itself; what it says then. Raises LabError."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline - time.monotonic()):
            pass
        try:
            status = self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} has not ended within {timeout_s:g} s") from None
        lines = self._said.decode().strip().splitlines()
        if status != 0 or not lines:
            raise LabError(f"{self.name} failed with status {status}: {self._trouble()}")
        said: dict[str, Any] = json.loads(lines[-1])
        return said

    def end(self) -> dict[str, Any]:
        """Tells it to end; what it says then. Raises LabError."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(END_S)

    def _read(self, timeout_s: float) -> bool:
        assert self.process.stdout is not None  # noqa: S101 -- a pipe, made above
        if not select.select([self.process.stdout], [], [], max(0.0, timeout_s))[0]:
            return False
        some = self.process.stdout.read1(65_536)  # type: ignore[attr-defined]  # IO[bytes] is a BufferedReader here
        self._said += some
        return bool(some)

    def _trouble(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip() or "it said nothing"


@contextlib.contextmanager
def running(
    host: Host, command: Sequence[str | float], *, core: int | None = None, ready: bool = True
) -> Iterator[Running]:
    """A command in a host, ready; ended at the end of the block whether it was told to or not."""
    with tempfile.TemporaryFile() as errors:
        started = Running(host, [str(word) for word in command], core, errors)
        try:
            if ready:
                started.wait_ready()
            yield started
        finally:
            host.end(started.process)


def program(name: str, *arguments: str | float) -> list[str | float]:
    """The command of one of the C programs."""
    return [str(build.program(name)), *arguments]


def python(module: str, *arguments: str | float) -> list[str | float]:
    """The command of a module of the bench, as in "bench.contestants.glacic_queue"."""
    return [sys.executable, "-c", _RUN_MODULE, str(build.ROOT), module, *arguments]


# The bench is found in the source tree, and glacic where it is installed, as for the process that starts this.
_RUN_MODULE = (
    "import runpy, sys; root, module = sys.argv[1:3]; del sys.argv[1:3]; "
    "sys.path[:] = [*(p for p in sys.path if p), root]; runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def send(
    host: Host, interface: str, mac: str, *options: str | float, core: int, timeout_s: float = 600
) -> dict[str, Any]:
    """Runs `traffic` to its end; what it says: {"sent", "seconds", "cpu_s"}. Raises LabError."""
    with running(host, program("traffic", interface, mac, "--core", core, *options), ready=False) as traffic:
        return traffic.wait(timeout_s)
