"""The client's end of the control socket. Imports nothing but the standard library: `glacic stats` must be quick.

Refuses to know what the requests mean; the commands do.
"""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from glacic.ctlplane import protocol
from glacic.errors import Unreachable

TIMEOUT_S = 120.0  # a reload of a large configuration on a slow machine; a dead service closes the socket at once


class Client:
    """One connection to the service. Raises Unreachable where nobody answers."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise Unreachable(_advice(path, error)) from None
        self._lines = self._socket.makefile("rb")

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
            self._socket.sendall(protocol.pack(protocol.request(do, args)))
            line = self._lines.readline()
        except OSError as error:
            raise Unreachable(f"the service at {self._path} stopped answering: {error}") from None
        if not line:
            raise Unreachable(f"the service at {self._path} closed the connection")
        return protocol.result_of(protocol.unpack(line))


def _advice(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"no permission to use {path}: be root, or in the group that owns the socket"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"no service at {path}: start it with `glacic run` or `systemctl start glacic`, or name another --socket"
    return f"cannot connect to {path}: {error.strerror or error}"
