"""The client's end of the control socket. Imports nothing but the standard library: `glacic stats` must be quick.

Refuses to know what the requests mean; the commands do.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from glacic.ctlplane import protocol
from glacic.ctlplane.origin import told
from glacic.errors import GlacicError, NotAllowed, Unreachable

TIMEOUT_S = 120.0  # a reload of a large configuration on a slow machine; a dead service closes the socket at once

CONNECT_S = 10.0  # until a service that is crowded has let us in


class Client:
    """One connection to the service. Raises Unreachable where nobody answers, NotAllowed where it is not for us."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            _connect(self._socket, path)
        except OSError as error:
            self._socket.close()
            raise _why_not(path, error) from None
        self._lines = self._socket.makefile("rb")
        self._told = told()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def call(self, do: str, **args: Any) -> Any:
        """The result of one request; raises what the service answered, or Unreachable where it went away."""
        try:
            with suppress(BrokenPipeError):  # it was turned away: the answer that says why may be there
                self._socket.sendall(protocol.pack(protocol.request(do, args, self._told)))
            line = self._lines.readline()
        except OSError as error:
            raise Unreachable(f"the service at {self._path} stopped answering: {error}") from None
        if not line:
            raise Unreachable(f"the service at {self._path} closed the connection")
        return protocol.result_of(protocol.unpack(line))


def _connect(connecting: socket.socket, path: Path) -> None:
    """Connect; while others wait to be let in, too (EAGAIN, unix(7)), again and again for a bounded time."""
    ends = time.monotonic() + CONNECT_S
    while True:
        try:
            return connecting.connect(str(path))
        except BlockingIOError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.01)


def _why_not(path: Path, error: OSError) -> GlacicError:
    if isinstance(error, PermissionError):
        return NotAllowed(f"no permission to use {path}: be root, or a member of group glacic")
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return Unreachable(
            f"no service at {path}: start it with `glacic run` or `systemctl start glacic`, or name another --socket"
        )
    return Unreachable(f"cannot connect to {path}: {error.strerror or error}")
