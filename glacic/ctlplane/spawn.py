"""The control process, before its worker: another interpreter is started, and imports what a worker needs.

Those imports are about as many as the control process's own, so they begin first and run beside them (cli/run.py). What
it is to work for, it is told when that is known (child.py). Until then it waits, and it ends with this process. Imports
nothing that takes time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import glacic
from glacic.errors import GlacicError

# Signals reach the whole process group, and what becomes of the worker the parent decides. The same glacic that runs
# here, and nothing out of whatever folder the service was started in.
_START = """
import signal
import sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
root = sys.argv.pop(1)
if root not in sys.path:
    sys.path.insert(0, root)
from glacic.ctlplane.worker import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process that will be a worker, and this end of the socket pair to it."""

    process: subprocess.Popen[bytes]
    link: socket.socket

    def end(self) -> None:
        """Have it gone, whatever it is doing; nothing where it has ended."""
        self.process.kill()
        self.process.wait()
        self.link.close()


def spawn() -> Spawned:
    """Start one afresh, not forked. Raises GlacicError, such as where this process is out of descriptors."""
    try:
        ours, theirs = socket.socketpair()
        with theirs:
            return Spawned(_interpreter(theirs.fileno(), ours), ours)
    except OSError as error:
        raise GlacicError(f"the worker cannot be started: {error.strerror or error}") from None


def _interpreter(descriptor: int, ours: socket.socket) -> subprocess.Popen[bytes]:
    root = str(Path(glacic.__file__).parents[1])
    try:
        return subprocess.Popen(  # noqa: S603 -- ourselves
            [sys.executable, "-P", "-c", _START, root, str(descriptor), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )
    except OSError:
        ours.close()
        raise
